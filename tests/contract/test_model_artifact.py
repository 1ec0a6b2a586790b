"""What the runtime's model commands say is what the operator understands.

The two share no code: this is where their contract is held.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from supportfleet_operator.api.model import VERSION
from supportfleet_operator.reconcile.policies.model_reasons import CONTENT, REMEDIES
from supportfleet_operator.reconcile.policies.pods import report_of
from supportfleet_operator.resources.model_job import PERMANENT_FAILURE
from supportfleet_runtime.models.artifact import verify_artifact
from supportfleet_runtime.models.errors import PERMANENT, ArtifactError, Reason
from supportfleet_runtime.models.sync_command import MAX_MESSAGE_CHARACTERS, last_word

ROOT = Path(__file__).parents[2]
NOT_FOR_A_CONDITION = {Reason.VERSION_EXISTS}
"""What only publishing can say; the operator never hears it."""


def test_every_reason_has_a_remedy() -> None:
    """The operator knows what to advise for each reason that a sync can give."""
    assert {reason.value for reason in Reason} - NOT_FOR_A_CONDITION <= REMEDIES.keys()


def test_content_that_is_wrong_is_never_tried_again() -> None:
    """Reasons that lie in the artifact end the Job at once; a store that is out of reach does not."""
    assert PERMANENT == PERMANENT_FAILURE
    assert {ArtifactError(Reason(reason), "").exit_code for reason in CONTENT} == {PERMANENT_FAILURE}
    assert ArtifactError(Reason.STORAGE_UNREACHABLE, "").exit_code != PERMANENT_FAILURE


@pytest.mark.parametrize("message", ["short", "ü" * 5000, "📦" * 5000, "\0" * 5000, 'quotes " and \\ and \n lines'])
def test_the_last_word_is_understood(message: str) -> None:
    """What a sync leaves as its termination message fits into what Kubernetes keeps, and the operator reads it."""
    text = last_word({"reason": "NotFound", "message": message}).decode()
    assert len(text.encode()) <= 4096
    assert text.count("\n") == 1
    assert report_of(text) == {"reason": "NotFound", "message": message[:MAX_MESSAGE_CHARACTERS]}
    assert json.loads(text)["reason"] == "NotFound"


def test_the_example_agents_pin_the_example_model() -> None:
    """The digest in the examples is that of the model in examples/models, and its version is one that is allowed."""
    manifest, digest = verify_artifact(ROOT / "examples" / "models" / "intent")
    assert re.fullmatch(VERSION, manifest.version)
    pinned = {}
    for path in sorted((ROOT / "examples").glob("[0-9]*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            model = document.get("spec", {}).get("model") if document else None
            if model and model.get("version") == manifest.version:
                pinned[path.name] = model["digest"]
    assert pinned
    assert set(pinned.values()) == {digest}
