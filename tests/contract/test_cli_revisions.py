"""The command line's idea of a revision is the operator's, though they share no code."""

from __future__ import annotations

import runpy
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet.rollouts import actions, revisions
from supportfleet.rollouts.api import FIELD_MANAGER
from supportfleet.rollouts.dryrun import OPERATOR
from supportfleet.rollouts.plan import AT_ONCE
from supportfleet.rollouts.view import view
from supportfleet.rollouts.watching import AGENT_LABEL, REVISION_LABEL, Facts
from supportfleet_operator.api import SupportAgent, parse
from supportfleet_operator.resources import labels, revision_name
from supportfleet_operator.resources.revision import PARTS, controller_revision
from supportfleet_operator.rollout import ACTION, ACTION_ID, ACTION_REVISION, reasons
from supportfleet_operator.rollout.policies import action as policy

ROOT = Path(__file__).parent.parent.parent
AGENTS = runpy.run_path(str(ROOT / "tests" / "operator" / "agent_strategies.py"))["AGENTS"]
SCHEMA: dict[str, Any] = yaml.safe_load((ROOT / "crds" / "supportagents.supportfleet.dev.yaml").read_text())["spec"][
    "versions"
][0]["schema"]["openAPIV3Schema"]["properties"]


def served(agent: SupportAgent) -> dict[str, Any]:
    """The spec as the API server sends it: with every default."""
    return agent.spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def is_known(agent: SupportAgent) -> bool:
    return agent.spec.model is None or agent.spec.model.hot or agent.spec.model.artifact is not None


def mixed(one: SupportAgent, other: SupportAgent, parts: set[str]) -> SupportAgent:
    """An agent with some parts of another."""
    taken = {part: getattr(other.spec, part) for part in parts}
    return one.model_copy(update={"spec": one.spec.model_copy(update=taken)})


@settings(deadline=None)
@given(AGENTS.filter(is_known), AGENTS.filter(is_known), st.sets(st.sampled_from([*PARTS, "replicas", "rollout"])))
def test_the_same_specs_are_one_revision(one: SupportAgent, other: SupportAgent, parts: set[str]) -> None:
    """Two specs are one revision for the command line where they are for the operator."""
    another = mixed(one, other, parts)
    same = revisions.fingerprint(served(one)) == revisions.fingerprint(served(another))
    assert same == (revision_name(one) == revision_name(another))


@settings(deadline=None)
@given(AGENTS.filter(is_known))
def test_a_kept_revision_is_found(agent: SupportAgent) -> None:
    """The ControllerRevision of a spec is recognised as the revision of that spec."""
    kept = {"r1": controller_revision(agent, 1)}
    assert revisions.same_as(served(agent), kept) == "r1"


def test_a_channel_is_what_it_points_at() -> None:
    """With what the status says of a channel, the spec is the revision that names it directly."""
    artifact = {"version": "2", "digest": f"sha256:{'2' * 64}"}
    model = {"uri": "s3://models/intent", "channel": "stable"}
    status = {"model": {"channel": "stable", "channelVersion": "2", "channelDigest": artifact["digest"]}}
    head = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent"}
    meta = {"name": "a", "namespace": "n", "uid": "u"}
    spec = {"template": {"image": "i"}, "model": {"uri": model["uri"], **artifact}}
    direct = parse({**head, "metadata": meta, "spec": spec})
    followed = {**served(direct), "model": {**served(direct)["model"], **model}}
    del followed["model"]["version"], followed["model"]["digest"]
    assert revisions.is_unresolved(followed)
    assert revisions.same_as(revisions.resolved(followed, status), {"r1": controller_revision(direct, 1)}) == "r1"
    assert revisions.resolved(followed, {"model": {**status["model"], "channel": "beta"}}) == followed


def test_names() -> None:
    """Parts, labels, annotations, managers and actions are called the same on both sides."""
    assert revisions.PARTS == PARTS
    assert (AGENT_LABEL, REVISION_LABEL) == (labels.AGENT, labels.REVISION)
    assert OPERATOR == labels.FIELD_MANAGER != FIELD_MANAGER
    words = actions.Intent("promote", "r1", "x").patch["metadata"]["annotations"]
    assert words == {ACTION: "promote", ACTION_REVISION: "r1", ACTION_ID: "x"}
    assert set(actions.HELP) == set(policy._ACTIONS)


def test_every_field_is_accounted_for() -> None:
    """A field of the spec makes a revision, or the plan says what it does at once."""
    told = {*AT_ONCE, "replicas", "suspend", *PARTS}
    assert set(SCHEMA["spec"]["properties"]) == told


class Read(dict[str, Any]):
    """Remembers which keys were asked for."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.keys_read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.keys_read.add(key)
        return super().get(key, default)


def test_the_status_has_what_is_read() -> None:
    """Fields of status.rollout that the command line reads are those that the operator writes."""
    state = Read(stableRevision="r1", canaryRevision="r2", phase="Paused", reason="PauseStep", currentStep=0)
    spec = {"rollout": {"steps": [{"pause": {"durationSeconds": 1}}]}}
    agent = {"metadata": {"name": "a"}, "spec": spec, "status": {"rollout": state}}
    view(Facts(agent))
    for action in actions.HELP:
        with suppress(actions.RefusedError):
            actions.progress(actions.intended(action, agent, "x"), agent)
    assert len(state.keys_read) > 10
    assert state.keys_read <= set(SCHEMA["status"]["properties"]["rollout"]["properties"])


def test_reasons() -> None:
    """Reasons that the command line knows are the operator's."""
    assert actions.PAUSE_STEP == reasons.PAUSE_STEP
    assert reasons.HELD_BY_PERSON | {reasons.AWAITING_ANALYSIS, reasons.STABLE_NOT_READY} == actions.HELD
