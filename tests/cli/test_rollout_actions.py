"""``supportfleet promote|abort|retry|pause|resume|undo``: what is written, refused, and waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet.rollouts.actions import HELP, IGNORED, Intent, RefusedError, intended, progress

PREFIX = "supportfleet.dev/action"
STEPPING = {"phase": "Stepping", "reason": "Stepping", "canaryRevision": "r2222222", "currentStep": 0}
PAUSED = {**STEPPING, "phase": "Paused", "reason": "PauseStep", "currentStep": 3}
HELD = {**STEPPING, "phase": "Paused", "reason": "PausedByAction", "message": "paused by a person, until resume"}
FAILED = {"phase": "RolledBack", "failedRevision": "r2222222", "message": "rolled back: errorRate"}
DONE = {"previousRevision": "r0000000"}


class TestWriting:
    @pytest.mark.parametrize(
        ("action", "state", "revision"),
        [
            ("promote", STEPPING, "r2222222"),
            ("abort", STEPPING, "r2222222"),
            ("pause", STEPPING, "r2222222"),
            ("resume", HELD, "r2222222"),
            ("resume", PAUSED, "r2222222"),
            ("retry", FAILED, "r2222222"),
            ("retry", {"undoneRevision": "r2222222"}, "r2222222"),
            ("undo", DONE, "r1111111"),
        ],
    )
    def test_an_action_names_its_revision(
        self, fleet: Any, supportfleet: Callable[..., Any], action: str, state: dict[str, Any], revision: str
    ) -> None:
        """Three annotations by one change, as supportfleet-cli; the spec is not written."""
        fleet.agent(state=state)
        said = supportfleet(action, "desk")
        assert (said.code, said.err) == (0, "")
        assert said.out == f"desk: asked for {action} of {revision}"
        ((method, path, query, body, content),) = fleet.api.writes
        assert (method, content) == ("PATCH", "application/merge-patch+json")
        assert path.endswith("/namespaces/shop/supportagents/desk")
        assert query == {"fieldManager": "supportfleet-cli"}
        words = body["metadata"].pop("annotations")
        assert body == {"metadata": {}}
        assert (words[PREFIX], words[f"{PREFIX}-revision"]) == (action, revision)

    def test_every_word_has_its_own_id(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """The same action twice is two actions."""
        fleet.agent(state=STEPPING)
        supportfleet("promote", "desk")
        supportfleet("promote", "desk")
        ids = {body["metadata"]["annotations"][f"{PREFIX}-id"] for *_, body, _ in fleet.api.writes}
        assert len(ids) == 2

    def test_another_namespace(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """-n names it, and nothing is looked for elsewhere."""
        agent = fleet.agent(state=STEPPING)
        fleet.api.put({**agent, "metadata": {**agent["metadata"], "namespace": "yard", "uid": "other"}})
        assert supportfleet("promote", "desk", "-n", "yard").code == 0
        assert {path.split("/")[5] for _, path, *_ in fleet.api.requests} == {"yard"}


class TestRefusing:
    @pytest.mark.parametrize(
        ("action", "state", "why"),
        [
            ("promote", {}, "no revision is being rolled out: r1111111 is stable"),
            ("promote", {**STEPPING, "phase": "Promoting"}, "r2222222 is being promoted already"),
            ("promote", {**STEPPING, "stableRevision": None}, "r2222222 is the first revision"),
            ("abort", FAILED, "r2222222 is rolled back already"),
            ("abort", {}, "no revision is being rolled out"),
            ("pause", HELD, "it is paused already"),
            ("pause", {}, "no revision is being rolled out"),
            ("resume", STEPPING, "nothing is paused"),
            ("resume", {**PAUSED, "reason": "PausedBySpec"}, "spec.rollout.paused holds it"),
            ("resume", {**PAUSED, "reason": "AwaitingAnalysis", "message": "3 of 20"}, "something else: 3 of 20"),
            ("retry", {}, "no revision was rolled back or undone"),
            ("retry", STEPPING, "r2222222 is being rolled out"),
            ("undo", {}, "there is no revision before the stable one"),
            ("undo", {**DONE, **STEPPING}, "r2222222 is being rolled out"),
            ("undo", {**DONE, **FAILED}, "the spec still asks for r2222222, which was rolled back"),
        ],
    )
    def test_what_the_state_does_not_allow(
        self, fleet: Any, supportfleet: Callable[..., Any], action: str, state: dict[str, Any], why: str
    ) -> None:
        """It is refused with the reason and with what to do, and nothing is written."""
        fleet.agent(state=state)
        agent = fleet.api.agent()
        agent["status"]["rollout"] = {key: one for key, one in agent["status"]["rollout"].items() if one is not None}
        fleet.api.put(agent)
        said = supportfleet(action, "desk")
        assert said.code == 1
        assert said.err.startswith(f"error: can't {action} desk: ")
        assert why in said.err
        assert len(said.err.splitlines()) == 2
        assert not fleet.api.writes

    @pytest.mark.parametrize("action", sorted(HELP))
    def test_suspended_or_unseen(self, fleet: Any, supportfleet: Callable[..., Any], action: str) -> None:
        """Nothing can be said to an agent that is suspended, or that no operator has seen."""
        agent = fleet.agent(state=STEPPING, suspend=True)
        assert "it is suspended" in supportfleet(action, "desk").err
        del agent["status"]
        agent["spec"]["suspend"] = False
        fleet.api.put(agent)
        assert "the operator has not seen it yet" in supportfleet(action, "desk").err
        assert not fleet.api.writes

    def test_forbidden(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """The API server's own words are passed on."""
        fleet.agent(state=STEPPING)
        refusal = type("Refusal", (), {"code": 403, "message": "user x cannot patch", "causes": [], "only_unforced": 0})
        fleet.api.refusals = [refusal()]
        said = supportfleet("promote", "desk")
        assert (said.code, "user x cannot patch" in said.err) == (1, True)


Operator = Callable[[Any, dict[str, Any]], None]


def operator(fleet: Any, *states: dict[str, Any]) -> None:
    """Take the next action up as an operator would: one state after the other."""
    rest = list(states)

    def act(agent: dict[str, Any]) -> None:
        words = agent["metadata"].get("annotations") or {}
        for state in rest:
            fleet.api.status(lastActionId=words[f"{PREFIX}-id"], **state)
        rest.clear()

    fleet.api.changed = act


IDLE = {"phase": "Idle", "reason": "Promoted", "canaryRevision": None, "message": "over", "stableRevision": "r2222222"}
BACK = {"phase": "RolledBack", "canaryRevision": None, "failedRevision": "r2222222", "message": "errorRate 0.5"}


class TestWaiting:
    @pytest.mark.parametrize(
        ("action", "before", "states", "said"),
        [
            (
                "promote",
                STEPPING,
                [{"phase": "Promoting", "message": "waits for pods"}, IDLE],
                "r2222222 is the stable",
            ),
            ("abort", STEPPING, [{**BACK, "phase": "Aborting"}, BACK], "errorRate 0.5"),
            ("pause", STEPPING, [HELD], "r2222222 is paused by a person"),
            ("resume", HELD, [{**STEPPING, "message": "goes on"}, IDLE], "r2222222 is the stable revision"),
            ("resume", HELD, [{**PAUSED, "message": "paused at 50 %"}], "r2222222 is paused at 50 %"),
            ("retry", FAILED, [{**STEPPING, "failedRevision": None}, IDLE], "r2222222 is the stable revision"),
            (
                "undo",
                DONE,
                [
                    {"undoneRevision": "r1111111", "canaryRevision": "r0000000", "phase": "Starting"},
                    {"stableRevision": "r0000000", "canaryRevision": None, "phase": "Idle"},
                ],
                "r0000000 is the stable revision",
            ),
        ],
    )
    def test_until_it_is_done(
        self,
        fleet: Any,
        supportfleet: Callable[..., Any],
        action: str,
        before: dict[str, Any],
        states: list[dict[str, Any]],
        said: str,
    ) -> None:
        """Exit code 0 once the action has brought about what it is for."""
        fleet.agent(state=before)
        operator(fleet, *states)
        found = supportfleet(action, "desk", "--wait", "--timeout", "10")
        assert (found.code, found.err) == (0, "")
        assert said in found.out.splitlines()[-1]

    @pytest.mark.parametrize(
        ("action", "states", "why"),
        [
            ("promote", [BACK], "came to nothing: errorRate 0.5"),
            ("promote", [{"canaryRevision": "r3333333", "message": "r3333333 comes up"}], "r3333333 comes up"),
            ("abort", [IDLE], "r2222222 had been promoted before"),
            ("abort", [{}], IGNORED),
            ("pause", [{}], IGNORED),
            ("pause", [IDLE], "r2222222 is the stable revision"),
        ],
    )
    def test_until_it_comes_to_nothing(
        self, fleet: Any, supportfleet: Callable[..., Any], action: str, states: list[dict[str, Any]], why: str
    ) -> None:
        """Exit code 1, with what came instead."""
        fleet.agent(state=STEPPING)
        operator(fleet, *states)
        found = supportfleet(action, "desk", "--wait", "--timeout", "10")
        assert found.code == 1
        assert why in found.err

    def test_no_operator(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """Where nobody takes it up, waiting ends in time and says what to look at."""
        fleet.agent(state=STEPPING)
        found = supportfleet("promote", "desk", "--wait", "--timeout", "1")
        assert found.code == 1
        assert "the operator has not taken it up yet" in found.err
        assert "Is the operator running?" in found.err

    def test_not_done_in_time(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """A rollout that takes longer goes on without being waited for, and what it waits for is said."""
        fleet.agent(state=STEPPING)
        operator(fleet, {"phase": "Promoting", "message": "2 of 4 pods are ready"})
        found = supportfleet("promote", "desk", "--wait", "--timeout", "4")
        assert (found.code, "after 4 s: 2 of 4 pods are ready" in found.err) == (1, True)
        assert "desk: 2 of 4 pods are ready" in found.out


STATES = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Idle", "Starting", "Stepping", "Paused", "Promoting", "Aborting", "RolledBack"]),
        "reason": st.sampled_from(["PauseStep", "PausedByAction", "PausedBySpec", "AwaitingAnalysis", "Stepping"]),
        "stableRevision": st.sampled_from(["r1", "r2"]),
        "canaryRevision": st.sampled_from(["r2", "r3"]),
        "previousRevision": st.sampled_from(["r1", "r2"]),
        "failedRevision": st.sampled_from(["r2", "r3"]),
        "undoneRevision": st.sampled_from(["r1", "r2"]),
        "currentStep": st.integers(0, 5),
        "message": st.sampled_from(["", "so it is"]),
        "lastActionId": st.sampled_from(["mine", "another"]),
    },
)


class TestAnyState:
    @settings(deadline=None)
    @given(st.sampled_from(sorted(HELP)), STATES)
    def test_is_refused_or_meant_for_a_known_revision(self, action: str, state: dict[str, Any]) -> None:
        """Whatever a status holds, the answer is a revision out of it or a refusal with a remedy."""
        agent = {"metadata": {"name": "desk"}, "spec": {}, "status": {"rollout": state}}
        refusal = None
        try:
            intent = intended(action, agent, "mine")
        except RefusedError as error:
            refusal = error
        assert refusal.remedy if refusal else intent.revision in state.values()

    @settings(deadline=None)
    @given(st.sampled_from(sorted(HELP)), STATES)
    def test_progress_is_told(self, action: str, state: dict[str, Any]) -> None:
        """An action that the operator has not taken up is waited for; any other state has an answer."""
        annotations = {f"{PREFIX}-id": "mine"}
        agent = {"metadata": {"name": "desk", "annotations": annotations}, "spec": {}, "status": {"rollout": state}}
        found = progress(Intent(action, "r2", "mine"), agent)
        if state.get("lastActionId") != "mine":
            assert found.outcome == "waiting"
        if found.outcome == "done" and action in {"promote", "retry"}:
            assert state.get("stableRevision") == "r2" or state.get("phase") == "Paused"
