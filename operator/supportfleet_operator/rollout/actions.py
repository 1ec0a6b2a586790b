"""Actions: a person's word on a rollout, as annotations, so that the spec stays what Git says."""

from collections.abc import Mapping
from typing import Final

from supportfleet_operator.api import GROUP
from supportfleet_operator.rollout.inputs import Action

ACTION: Final = f"{GROUP}/action"
ACTION_REVISION: Final = f"{GROUP}/action-revision"
ACTION_ID: Final = f"{GROUP}/action-id"

PROMOTE: Final = "promote"
ABORT: Final = "abort"
RETRY: Final = "retry"
PAUSE: Final = "pause"
RESUME: Final = "resume"
UNDO: Final = "undo"

LONGEST: Final = 128


def action_of(annotations: Mapping[str, str] | None) -> Action | None:
    """The action that the annotations ask for; without an id, the same one on the same revision is asked for once."""
    annotations = annotations or {}
    name = annotations.get(ACTION, "").strip()[:LONGEST]
    if not name:
        return None
    revision = annotations.get(ACTION_REVISION, "").strip()[:LONGEST]
    return Action(name, revision, annotations.get(ACTION_ID, "")[:LONGEST] or f"{name}/{revision}")
