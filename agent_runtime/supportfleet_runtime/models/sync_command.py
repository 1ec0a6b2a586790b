"""``supportfleet-runtime sync-model``: what the operator's Job and the pods' init container run.

Its last word is one line of JSON in the file that ``TERMINATION_LOG`` names (Kubernetes shows it as the container's
termination message): ``{"reason": "Synced", "message": …, "digest": …, "version": …}``, or the reason why not. Exit
codes: 0; 2 where content or configuration is wrong and another try can't help; 3 where it can.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from supportfleet_runtime.models.cache import KEPT_VERSIONS
from supportfleet_runtime.models.errors import ArtifactError
from supportfleet_runtime.models.settings import SyncSettings, sync_settings
from supportfleet_runtime.models.sync import Synced, sync, sync_tested, verify_remote

HELP: Final = "fetch the configured model and verify it"
TERMINATION_LOG: Final = "/dev/termination-log"
MAX_MESSAGE_CHARACTERS: Final = 600
"""Kubernetes keeps 4096 bytes of a termination message, and a character takes up to 6 of them here."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--verify-only", action="store_true", help="check the artifact in the store, and keep nothing")
    parser.add_argument("--self-test", action="store_true", help="load the model and try it before it is kept")
    parser.add_argument(
        "--keep",
        type=int,
        default=KEPT_VERSIONS,
        metavar="N",
        help="versions to keep on the volume (default %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Sync; the exit code."""
    log = structlog.get_logger()
    try:
        done = asyncio.run(_work(arguments, sync_settings(os.environ)))
    except ArtifactError as error:
        log.error("model_sync_failed", reason=error.reason.value, reason_message=error.message)  # noqa: TRY400 - the reason says it all
        write_last_word(os.environ, {"reason": error.reason.value, "message": error.message})
        return error.exit_code
    log.info("model_synced", digest=done.digest, version=done.version, downloaded=done.downloaded)
    word = {"reason": "Synced", "message": done.message, "digest": done.digest, "version": done.version}
    write_last_word(os.environ, word)
    return 0


async def _work(arguments: argparse.Namespace, settings: SyncSettings) -> Synced:
    if arguments.self_test:
        return await sync_tested(settings, self_test, stay=not arguments.verify_only, keep=arguments.keep)
    return await (verify_remote(settings) if arguments.verify_only else sync(settings, keep=arguments.keep))


def self_test(folder: Path) -> None:
    """Load a model and let it answer what it was trained to.

    Raises:
        ArtifactError: LoadFailed, SelfTestFailed.
    """
    from supportfleet_runtime import nlu  # noqa: PLC0415 - whoever only fetches does not pay for ONNX Runtime
    from supportfleet_runtime.nlu.errors import ModelLoadError  # noqa: PLC0415 - the same

    try:
        nlu.load(folder)
    except ModelLoadError as error:
        raise ArtifactError(error.reason, str(error)) from error


def last_word(word: Mapping[str, str]) -> bytes:
    """One line of JSON, short enough for a termination message: cut JSON would be no JSON."""
    short = {**word, "message": word["message"][:MAX_MESSAGE_CHARACTERS]}
    return (json.dumps(short, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def write_last_word(environ: Mapping[str, str], word: Mapping[str, str]) -> None:
    """Write the termination message, where there is a place for it."""
    given = environ.get("TERMINATION_LOG")
    path = Path(given or TERMINATION_LOG)
    if not given and not path.exists():  # not in a container: don't create files in /dev
        return
    try:
        path.write_bytes(last_word(word))
    except OSError as error:
        structlog.get_logger().warning("termination_log_not_written", path=str(path), error=error.strerror)
