"""``supportfleet-runtime resolve-channel``: what the operator's Job runs to learn where a channel points.

Its last word is as ``sync-model``'s: ``{"reason": "Resolved", "message": …, "version": …, "digest": …}``, or the reason
why not. Whether that version is there and right is for the sync of it to find out, before anything uses it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Final

import structlog

from supportfleet_runtime.models.channel import Channel, Pointer
from supportfleet_runtime.models.errors import ArtifactError
from supportfleet_runtime.models.settings import channel_settings
from supportfleet_runtime.models.sync_command import write_last_word

HELP: Final = "tell the version that a channel points to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none: the environment says which channel."""


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - it has none
    """Resolve; the exit code."""
    log = structlog.get_logger()
    try:
        source, name, s3 = channel_settings(os.environ)
        pointer: Pointer = asyncio.run(Channel(source, name, s3).show())
    except ArtifactError as error:
        log.error("channel_not_resolved", reason=error.reason.value, reason_message=error.message)  # noqa: TRY400 - the reason says it all
        write_last_word(os.environ, {"reason": error.reason.value, "message": error.message})
        return error.exit_code
    log.info("channel_resolved", channel=name, version=pointer.version, digest=pointer.digest)
    message = f"channel {name} points to version {pointer.version}"
    word = {"reason": "Resolved", "message": message, "version": pointer.version, "digest": pointer.digest}
    write_last_word(os.environ, word)
    return 0
