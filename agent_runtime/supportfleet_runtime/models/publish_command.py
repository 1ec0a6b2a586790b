"""``supportfleet-runtime publish-model``: put an artifact into a bucket, and print the digest that pins it."""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Final

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


def run(arguments: argparse.Namespace) -> int:
    """Publish; the exit code."""
    try:
        target, s3 = parse_location(arguments.uri), s3_settings(os.environ)
        done = asyncio.run(publish(arguments.folder, target, s3))
    except ArtifactError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stderr.write(f"{'published' if done.uploaded else 'already published'} at {done.location}\n")
    sys.stdout.write(f"{done.digest}\n")
    return 0
