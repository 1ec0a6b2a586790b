"""``supportfleet-runtime publish-model``: put an artifact into a bucket, and print the digest that pins it.

With ``--channel`` the channel's pointer is moved to it once it is there.
"""

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from supportfleet_runtime.models.channel import Channel, check_channel
from supportfleet_runtime.models.errors import ArtifactError
from supportfleet_runtime.models.publish import publish
from supportfleet_runtime.models.settings import parse_location, s3_settings

HELP: Final = "upload a model, and print its digest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the artifact, as train writes it")
    parser.add_argument(
        "uri", metavar="URI", help="s3://bucket/prefix or file:///folder; it is put into a folder named by its version"
    )
    parser.add_argument("--channel", metavar="NAME", help="have this channel point to it, for agents that follow it")


def run(arguments: argparse.Namespace) -> int:
    """Publish; the exit code."""
    try:
        target, s3 = parse_location(arguments.uri), s3_settings(os.environ)
        channel = check_channel(arguments.channel) if arguments.channel else None
        done = asyncio.run(publish(arguments.folder, target, s3))
        if channel:
            moved = asyncio.run(Channel(target, channel, s3).set(done.version, done.digest, now=datetime.now(UTC)))
    except ArtifactError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stderr.write(f"{'published' if done.uploaded else 'already published'} at {done.location}\n")
    if channel:
        sys.stderr.write(f"{moved.describe(channel)}\n")
    sys.stdout.write(f"{done.digest}\n")
    return 0
