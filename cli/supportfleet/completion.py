"""``kubectl_complete-supportfleet``: what kubectl asks for completions of ``kubectl supportfleet …``.

kubectl calls it with the words typed so far, the last one unfinished, and reads lines of ``value<TAB>help`` and then a
directive, as cobra's shells do.
"""

import sys

from click.shell_completion import ShellComplete

from supportfleet.__main__ import cli

NO_FILES = 4
"""Cobra's directive: these are all, don't complete names of files."""
FILES = 0


def main() -> None:
    """Print the completions of the arguments."""
    *words, unfinished = sys.argv[1:] or [""]
    found = ShellComplete(cli, {}, "kubectl supportfleet", "").get_completions(words, unfinished)
    files = any(one.type in {"file", "dir"} for one in found)
    for one in found:
        if one.type == "plain":
            print(f"{one.value}\t{one.help}" if one.help else one.value)  # noqa: T201 - what kubectl reads
    print(f":{FILES if files else NO_FILES}")  # noqa: T201 - the same
