"""Logs that do not fill the disk.

Processes append to their files and are never told to reopen them, so a full file is copied and emptied in place. A
small shell program does it for all of them, as one more process of the cluster.
"""

from supportfleet.local.embedded.daemons import Daemon
from supportfleet.local.embedded.layout import Layout

BYTES = 16 * 2**20
SECONDS = 30

ROTATE = """
while :; do
  sleep "$3"
  for log in "$1"/*.log; do
    if [ "$(stat -c %s "$log")" -gt "$2" ]; then
      cp "$log" "$log.1"
      : > "$log"
    fi
  done
done
"""


def rotation(layout: Layout, *, size: int = BYTES, seconds: float = SECONDS) -> Daemon:
    """Keep every log below this size, and one more of the past."""
    command = ("/bin/sh", "-c", ROTATE, "log-rotation", str(layout.logs), str(size), str(seconds))
    return Daemon("log-rotation", command, layout.control_namespace)
