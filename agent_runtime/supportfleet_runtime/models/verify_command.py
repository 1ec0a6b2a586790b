"""``supportfleet-runtime verify-model``: check a folder against its manifest, and print the artifact's digest."""

import argparse
import sys
from pathlib import Path
from typing import Final

from supportfleet_runtime.models.artifact import verify_artifact
from supportfleet_runtime.models.errors import ArtifactError

HELP: Final = "check a model's folder against its manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the artifact")
    parser.add_argument("--digest", metavar="sha256:HEX", help="the digest that it must have")


def run(arguments: argparse.Namespace) -> int:
    """Verify; the exit code."""
    try:
        manifest, digest = verify_artifact(arguments.folder, arguments.digest)
    except ArtifactError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    files = f"{len(manifest.files)} files, {manifest.total_bytes} bytes, all as listed"
    sys.stderr.write(f"{manifest.name} {manifest.version}: {files}\n")
    sys.stdout.write(f"{digest}\n")
    return 0
