"""Hot reload: the model that MODEL_FILE names, now and whenever it changes, without a restart or a failed message.

::

    MODEL_FILE changed -> fetch, verified by digest -> load beside the old one, self-test -> swap -> keep on the volume
                          |                            |
                          out of reach or refused:     can't be loaded, or answers wrongly:
                          tried again, ever slower     waits for another MODEL_FILE

Whatever goes wrong, the model in use stays in use, and ``agent_model_reload_failed_info`` says which one could not
replace it and why. Only the first model is waited for: a process that has one stays ready.

The file is read once a second rather than watched: a ConfigMap's volume changes by a symbolic link two folders up, and
network file systems tell of no change at all. A change while a reload is under way cancels it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from supportfleet_runtime.agent.classifier import IntentClassifier, load_model
from supportfleet_runtime.agent.model import IntentModel
from supportfleet_runtime.models.errors import ArtifactError
from supportfleet_runtime.models.settings import SyncSettings, model_variables, read_model_file, sync_settings
from supportfleet_runtime.models.sync import discard, fetch, keep
from supportfleet_runtime.nlu.errors import ModelLoadError
from supportfleet_runtime.observability.metrics import Metrics

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

SUCCESS, FAILED, UNREACHABLE = "success", "failed", "unreachable"
"""The results of a reload: another model answers, it was refused, it could not be had yet."""


def retry_pause(tries: int, chance: float) -> float:
    """The pause after a failed fetch: doubled each time, spread by ``chance`` (0 to 1). Pure."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries - 1, 10)) * (0.5 + chance / 2)


class ModelFollower:
    """Keeps the model in use the one that a file names. ``environ`` says how the store is reached."""

    def __init__(
        self,
        model: IntentModel,
        metrics: Metrics,
        file: Path,
        environ: Mapping[str, str],
        *,
        load: Callable[[Path], IntentClassifier] = load_model,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        poll: float = POLL_SECONDS,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._file = file
        self._environ = {name: value for name, value in environ.items() if name != "MODEL_FILE"}
        self._load = load
        self._sleep = sleep
        self._poll = poll

    async def run(self) -> None:
        """Follow the file for ever."""
        content: bytes | None = None
        reloading: asyncio.Task[None] | None = None
        try:
            while True:
                found = self._read()
                if found is not None and found != content:
                    content = found
                    await _cancel(reloading)
                    reloading = asyncio.create_task(self._follow(found))
                if reloading is not None and reloading.done():
                    reloading.result()  # a bug is not to be kept quiet
                await asyncio.sleep(self._poll)
        finally:
            await _cancel(reloading)

    def _read(self) -> bytes | None:
        try:
            return read_model_file(self._file)
        except ArtifactError as error:
            if not self._model.loaded.is_set():
                self._model.problem = error.message
            return None  # it may be there in a moment, and what runs keeps running

    async def _follow(self, content: bytes) -> None:
        """Bring the model in use to what the file says, however long the store is out of reach."""
        try:
            wanted = sync_settings({**self._environ, **model_variables(content)})
        except ArtifactError as error:
            self._report(FAILED, None, error.reason, error.message)
            return
        for tries in itertools.count(1):
            if self._model.digest == wanted.digest:
                self._metrics.reload_ended()
                return
            try:
                path = await fetch(wanted)
            except ArtifactError as error:
                result = UNREACHABLE if error.transient else FAILED
                self._report(result, wanted, error.reason, error.message)
                await self._sleep(retry_pause(tries, random.random()))  # noqa: S311 - spreads retries, guards nothing
            else:
                await self._swap(wanted, path)
                return

    async def _swap(self, wanted: SyncSettings, path: Path) -> None:
        try:
            classifier = await asyncio.to_thread(self._load, path)
        except ModelLoadError as error:
            await self._refuse(wanted, error.reason, str(error))
        except Exception as error:  # whatever the files make a library raise: the model in use stays in use
            log.exception("model_load_failed", version=wanted.version, digest=wanted.digest)
            await self._refuse(wanted, ModelLoadError.reason, type(error).__name__)
        else:
            is_reload = self._model.loaded.is_set()
            self._model.use(classifier)
            self._metrics.reload_ended()
            if is_reload:
                self._metrics.reloads.labels(result=SUCCESS).inc()
            await self._tidy(keep(wanted))

    async def _refuse(self, wanted: SyncSettings, reason: str, message: str) -> None:
        self._report(FAILED, wanted, reason, message)
        await self._tidy(discard(wanted))

    async def _tidy(self, work: Awaitable[None]) -> None:
        try:
            await work
        except ArtifactError as error:
            # A claim is mounted read-only: the sync Job keeps it tidy. Else it is full, and the next fetch says so.
            log.info("model_volume_not_changed", reason=error.reason.value)

    def _report(self, result: str, wanted: SyncSettings | None, reason: str, message: str) -> None:
        version, digest = (wanted.version, wanted.digest) if wanted else ("", "")
        self._metrics.reload_failed(version, digest, str(reason))
        if self._model.loaded.is_set():
            self._metrics.reloads.labels(result=result).inc()
        else:
            self._model.problem = f"the model can't be loaded: {message}"
        log.warning(
            "model_reload_failed",
            version=version,
            digest=digest,
            reason=str(reason),
            reason_message=message,
            in_use=self._model.digest,
        )


async def _cancel(task: asyncio.Task[None] | None) -> None:
    """Stop a reload that is no longer wanted; nothing of it is put in use."""
    if task is None:
        return
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
