"""``supportfleet-runtime channel``: show where a channel points, or have it point elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import Final

from supportfleet_runtime.models.channel import Channel, Pointer, Target
from supportfleet_runtime.models.errors import ArtifactError
from supportfleet_runtime.models.settings import parse_location, s3_settings

HELP: Final = "show or move the version that a channel points to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="where it points, and pointed before")
    show.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default %(default)s")
    move = actions.add_parser("set", help="have it point to a published version")
    for action in (show, move):
        action.add_argument("uri", metavar="URI", help="where the versions are: s3://bucket/prefix or file:///folder")
        action.add_argument("name", metavar="NAME", help="the channel")
    chosen = move.add_mutually_exclusive_group(required=True)
    chosen.add_argument("version", nargs="?", metavar="VERSION", help="the version that it is to point to")
    chosen.add_argument("--previous", action="store_true", help="where it pointed before; again: forward")
    move.add_argument("--digest", metavar="sha256:…", help="the digest that the version must have")


def run(arguments: argparse.Namespace) -> int:
    """Show or move; the exit code."""
    try:
        channel = Channel(parse_location(arguments.uri), arguments.name, s3_settings(os.environ))
        if arguments.action == "show":
            pointer = asyncio.run(channel.show())
            sys.stdout.write(pointer.render().decode() if arguments.output == "json" else _text(pointer))
            return 0
        now = datetime.now(UTC)
        work = (
            channel.back(now=now) if arguments.previous else channel.set(arguments.version, arguments.digest, now=now)
        )
        moved = asyncio.run(work)
    except ArtifactError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stderr.write(f"{moved.describe(arguments.name)}\n")
    sys.stdout.write(f"{moved.pointer.digest}\n")
    return 0


def _text(pointer: Pointer) -> str:
    lines = [_line("now", pointer), *(_line("before", target) for target in pointer.history)]
    return "\n".join(lines) + "\n"


def _line(when: str, target: Target) -> str:
    return f"{when:<7} {target.version:<20} {target.digest}  {target.moved_at or ''}".rstrip()
