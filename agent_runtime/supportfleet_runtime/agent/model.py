"""The intent model of this process: which one it must be, and loading it.

With MODEL_DIGEST, exactly that model; until it is there and loaded there is none, and the pod is not ready. Without,
the model at MODEL_DIR/current where there is one, else the built-in keywords.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from supportfleet_runtime.agent.classifier import IntentClassifier, KeywordClassifier, load_model
from supportfleet_runtime.errors import SupportfleetError

log = structlog.get_logger()

RETRY_SECONDS: Final = 5.0


class IntentModel:
    """Holds the classifier once it is loaded. ``problem`` says why it is not."""

    def __init__(
        self,
        folder: Path,
        digest: str | None,
        *,
        load: Callable[[Path], IntentClassifier] = load_model,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._folder = folder
        self._digest = digest
        self._load = load
        self._sleep = sleep
        self._classifier: IntentClassifier | None = None
        self.problem: str | None = "the model is not loaded yet"

    @property
    def classifier(self) -> IntentClassifier:
        """The classifier; only asked for once it is loaded."""
        if self._classifier is None:
            raise RuntimeError("the model is asked before it is loaded")
        return self._classifier

    async def load(self) -> IntentClassifier:
        """Load the model, however long it takes to be there."""
        while True:
            try:
                classifier = await self._try()
            except Exception as error:  # whatever is wrong with the files: it is told, and tried again
                reason = str(error) if isinstance(error, SupportfleetError) else type(error).__name__
                self.problem = f"the model can't be loaded: {reason}"
                log.exception("model_not_loaded", folder=str(self._folder), digest=self._digest)
            else:
                if classifier is not None:
                    return self._use(classifier)
            await self._sleep(RETRY_SECONDS)

    def _use(self, classifier: IntentClassifier) -> IntentClassifier:
        self._classifier = classifier
        self.problem = None
        info = classifier.info
        log.info("model_loaded", version=info.version, digest=info.digest, labels=len(info.labels))
        return classifier

    async def _try(self) -> IntentClassifier | None:
        if self._digest is None:
            current = self._folder / "current"
            return await asyncio.to_thread(self._load, current) if current.exists() else KeywordClassifier()
        path = self._folder / "versions" / self._digest.removeprefix("sha256:")
        if not path.is_dir():
            self.problem = f"the model {self._digest} is not in {self._folder}: run 'supportfleet-runtime sync-model'"
            log.warning("model_missing", folder=str(self._folder), digest=self._digest)
            return None
        classifier = await asyncio.to_thread(self._load, path)
        if classifier.info.digest != self._digest:
            self.problem = f"{path} holds the model {classifier.info.digest}, not {self._digest}"
            log.error("model_is_another", found=classifier.info.digest, digest=self._digest)
            return None
        return classifier
