"""The intent model of this process: the one that is in use, and loading the first.

With MODEL_DIGEST, exactly that model; until it is there and loaded there is none, and the pod is not ready. With
MODEL_FILE, the model that the file names, now and whenever it changes (see ``reload``). With neither, the model at
MODEL_DIR/current where there is one, else the built-in keywords.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from supportfleet_runtime.agent.classifier import CachedClassifier, IntentClassifier, KeywordClassifier, load_model
from supportfleet_runtime.errors import SupportfleetError
from supportfleet_runtime.observability.metrics import Metrics

log = structlog.get_logger()

RETRY_SECONDS: Final = 5.0


class IntentModel:
    """Holds the model in use. ``problem`` says why there is none.

    Whoever classifies takes ``classifier`` once and asks it alone; the event loop swaps models between two such
    moments, so no message sees half of each. The old one is freed when the last message that took it is done.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._classifier: IntentClassifier | None = None
        self.loaded = asyncio.Event()
        self.problem: str | None = "the model is not loaded yet"

    @property
    def classifier(self) -> IntentClassifier:
        """The classifier; only asked for once it is loaded."""
        if self._classifier is None:
            raise RuntimeError("the model is asked before it is loaded")
        return self._classifier

    @property
    def digest(self) -> str | None:
        """The digest of the model in use."""
        return self._classifier.info.digest if self._classifier else None

    def use(self, classifier: IntentClassifier) -> None:
        """Answer with this model from now on."""
        info = classifier.info
        self._classifier = CachedClassifier(classifier)  # a new cache: another model's answers are not this one's
        self.problem = None
        self._metrics.use_model(info.version, info.digest, info.labels)
        self.loaded.set()
        log.info("model_loaded", version=info.version, digest=info.digest, labels=len(info.labels))


class ModelLoader:
    """Loads the model that stays for as long as the process lives."""

    def __init__(
        self,
        model: IntentModel,
        folder: Path,
        digest: str | None,
        *,
        load: Callable[[Path], IntentClassifier] = load_model,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._model = model
        self._folder = folder
        self._digest = digest
        self._load = load
        self._sleep = sleep

    async def run(self) -> None:
        """Load the model, however long it takes to be there."""
        while not self._model.loaded.is_set():
            try:
                classifier = await self._try()
            except Exception as error:  # whatever is wrong with the files: it is told, and tried again
                reason = str(error) if isinstance(error, SupportfleetError) else type(error).__name__
                self._model.problem = f"the model can't be loaded: {reason}"
                log.exception("model_not_loaded", folder=str(self._folder), digest=self._digest)
            else:
                if classifier is not None:
                    self._model.use(classifier)
                    return
            await self._sleep(RETRY_SECONDS)

    async def _try(self) -> IntentClassifier | None:
        if self._digest is None:
            current = self._folder / "current"
            return await asyncio.to_thread(self._load, current) if current.exists() else KeywordClassifier()
        path = self._folder / "versions" / self._digest.removeprefix("sha256:")
        if not path.is_dir():
            missing = f"the model {self._digest} is not in {self._folder}: run 'supportfleet-runtime sync-model'"
            self._model.problem = missing
            log.warning("model_missing", folder=str(self._folder), digest=self._digest)
            return None
        classifier = await asyncio.to_thread(self._load, path)
        if classifier.info.digest != self._digest:
            self._model.problem = f"{path} holds the model {classifier.info.digest}, not {self._digest}"
            log.error("model_is_another", found=classifier.info.digest, digest=self._digest)
            return None
        return classifier
