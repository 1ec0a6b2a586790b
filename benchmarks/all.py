"""Run every benchmark in turn and print its figures; those on a cluster need `make demo` to have run.

The soak is left out: it takes an hour.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TIMEOUT_SECONDS = 1800
LEFT_OUT = {"all", "soak"}


def main() -> None:
    """Run the scripts beside this one."""
    failed = []
    for script in sorted(Path(__file__).parent.glob("*.py")):
        if script.stem in LEFT_OUT:
            continue
        print(f"\n== {script.stem}", flush=True)
        done = subprocess.run([sys.executable, script], timeout=TIMEOUT_SECONDS, check=False)
        if done.returncode:
            failed.append(script.stem)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
