"""``supportfleet plan`` and ``set``: what a change would do, told before it is made; and the smallest changes."""

from __future__ import annotations

import datetime as dt
import io
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet.rollouts.dryrun import LAST_APPLIED, applied_by, three_way
from supportfleet.rollouts.plan import differences

merged = runpy.run_path(str(Path(__file__).parent.parent / "merge_patch.py"))["merged"]
DIGEST = "sha256:" + "22" * 32


@pytest.fixture
def planned(fleet: Any, supportfleet: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Plan an edit of the agent ``desk``: exit code, and what is said for programs."""

    def plan(edit: Callable[[dict[str, Any]], object] | None = None, *more: str) -> tuple[int, dict[str, Any]]:
        agent = fleet.api.agent()
        spec = agent["spec"]
        if edit:
            edit(spec)
        file = tmp_path / "desk.yaml"
        head = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent"}
        file.write_text(yaml.safe_dump({**head, "metadata": {"name": "desk"}, "spec": spec}))
        said = supportfleet("plan", "-f", str(file), "-o", "json", *more)
        assert said.err == ""
        (item,) = json.loads(said.out)["items"]
        return said.code, item

    return plan


def image(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda spec: spec["template"].update(image=name)


class TestExitCodes:
    def test_nothing(self, fleet: Any, planned: Callable[..., Any]) -> None:
        """0 where the same is applied again; the cluster is asked and not changed."""
        fleet.canary()
        code, found = planned()
        assert (code, found["verb"]) == (0, "none")
        assert [query["dryRun"] for *_, query, _, _ in fleet.api.writes] == ["All"]

    def test_something(self, fleet: Any, planned: Callable[..., Any]) -> None:
        """1 where something changes, whatever it is."""
        fleet.canary()
        assert planned(lambda spec: spec.update(replicas=5))[0] == 1
        assert planned(image("agent:3"))[0] == 1

    def test_refused(self, fleet: Any, supportfleet: Callable[..., Any], planned: Callable[..., Any]) -> None:
        """2 where the API server refuses it, with each field and reason."""
        fleet.canary()
        causes = [{"field": "spec.replicas", "message": "More than one pod needs spec.database"}]
        fleet.api.refusals = [refusal(422, "desk is invalid", causes)]
        code, found = planned(lambda spec: spec.pop("database"))
        assert (code, found["verb"]) == (2, "refused")
        assert found["problems"] == [{"path": "spec.replicas", "message": "More than one pod needs spec.database"}]

    @pytest.mark.parametrize(
        ("status", "message"),
        [
            (400, 'strict decoding error: unknown field "spec.replica"'),
            (500, "failed to create typed patch object (shop/desk): .spec.replica: field not declared in schema"),
        ],
    )
    def test_an_unknown_field(self, fleet: Any, planned: Callable[..., Any], status: int, message: str) -> None:
        """A typing error is refused, as kubectl does it, whatever the API server calls it."""
        fleet.canary()
        fleet.api.refusals = [refusal(status, message, [])]
        code, found = planned(lambda spec: spec.update(replica=3))
        assert (code, message in found["problems"][0]["message"]) == (2, True)
        assert fleet.api.writes[0][2]["fieldValidation"] == "Strict"

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("a: [", "is not YAML"),
            ("- 1", "something else than Kubernetes objects"),
            ("kind: Secret", "has no SupportAgent in it"),
            ("kind: SupportAgent", "has no metadata.name"),
            ("{kind: SupportAgent, metadata: {name: desk, namespace: yard}}", "is of namespace 'yard' in the file"),
        ],
    )
    def test_errors(
        self,
        fleet: Any,
        supportfleet: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
        text: str,
        why: str,
    ) -> None:
        """More than 1 where it can't be told, since 1 means a change."""
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        said = supportfleet("plan", "-f", "-", "-n", "shop")
        assert (said.code, why in said.err) == (2, True)

    def test_what_looks_like_a_date(self, fleet: Any, planned: Callable[..., Any]) -> None:
        """A date in the file is text, as it is for kubectl."""
        fleet.canary()
        _, found = planned(lambda spec: spec["config"].update(since=dt.date(2026, 1, 2)))
        assert found["changes"] == [{"path": "spec.config.since", "after": "2026-01-02"}]

    def test_a_missing_file(self, supportfleet: Callable[..., Any]) -> None:
        """The same for a file that is not there."""
        assert supportfleet("plan", "-f", "nowhere.yaml").code == 2

    def test_a_cluster_out_of_reach(
        self, fleet: Any, supportfleet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """And for a cluster that does not answer."""
        file = tmp_path / "a.yaml"
        file.write_text("{kind: SupportAgent, metadata: {name: desk, namespace: shop}}")
        monkeypatch.setenv("PATH", "/nowhere")
        assert supportfleet("plan", "-f", str(file)).code == 2


def refusal(code: int, message: str, causes: list[dict[str, str]], *, only_unforced: bool = False) -> Any:
    facts = {"code": code, "message": message, "causes": causes, "only_unforced": only_unforced}
    return type("Refusal", (), facts)()


class TestRevisions:
    @pytest.mark.parametrize(
        ("edit", "because"),
        [
            (image("agent:3"), "spec.template.image"),
            (lambda spec: spec["config"].update(greeting="hi"), "spec.config.greeting"),
            (lambda spec: spec["llm"].update(maxTokens=2), "spec.llm.maxTokens"),
            (lambda spec: spec["database"]["secretRef"].update(name="x"), "spec.database.secretRef.name"),
            (lambda spec: spec["model"].update(digest=DIGEST), "spec.model.digest"),
            (lambda spec: spec.update(topology="Layered"), "spec.topology"),
            (lambda spec: spec.update(worker={"resources": {"requests": {"cpu": "2"}}}), "spec.worker.resources"),
        ],
    )
    def test_what_makes_a_new_one(
        self, fleet: Any, planned: Callable[..., Any], edit: Callable[..., object], because: str
    ) -> None:
        """Whatever changes behaviour, with the field that does, the steps that follow and their least time."""
        fleet.canary()
        _, found = planned(edit)
        assert (found["newRevision"], found["because"]) == (True, [because])
        assert found["rollout"].startswith("a new revision comes up beside the stable one and goes through the steps")
        assert "the rollout of r2222222, at 10 %, ends" in found["rollout"]
        assert (len(found["steps"]), found["leastSeconds"], found["people"]) == (4, 330, 1)
        assert found["stable"] == "r1111111 keeps its pods and its autoscaler until the rollout is over"
        assert found["effects"] == []

    @pytest.mark.parametrize(
        ("edit", "effect"),
        [
            (lambda spec: spec.update(replicas=5), "spec.replicas: the stable revision has 5 pods"),
            (lambda spec: spec.update(autoscaling={"maxReplicas": 5}), "spec.autoscaling: the autoscaler of each"),
            (lambda spec: spec.update(suspend=True), "spec.suspend: all pods stop"),
            (lambda spec: spec["traffic"].update(provider="None"), "spec.traffic: the routes change at once"),
            (lambda spec: spec["rollout"].update(paused=True), "spec.rollout: holds from the next step on"),
            (lambda spec: spec.update(service={"port": 81}), "spec.service: the Services change"),
            (lambda spec: spec.update(worker={"replicas": 5}), "spec.worker: the pods of the worker layer become more"),
        ],
    )
    def test_what_makes_none(
        self, fleet: Any, planned: Callable[..., Any], edit: Callable[..., object], effect: str
    ) -> None:
        """Everything else takes effect at once, and it says what that is; the rollout in progress goes on."""
        fleet.canary()
        _, found = planned(edit)
        assert found["newRevision"] is False
        assert found["rollout"].startswith("no new revision: no pod is replaced; the rollout of r2222222 goes on")
        assert [one.startswith(effect) for one in found["effects"]] == [True]
        assert found["steps"] == []

    def test_going_back(self, fleet: Any, planned: Callable[..., Any]) -> None:
        """The stable revision's fields are that revision again, which ends the rollout."""
        fleet.canary()
        _, found = planned(image("agent:1"))
        assert found["revision"] == "r1111111"
        assert found["rollout"] == (
            "back to r1111111, which is stable: no steps; the rollout of r2222222, at 10 %, ends"
        )

    def test_one_that_is_kept(self, fleet: Any, planned: Callable[..., Any]) -> None:
        """Another known revision is named, and goes through the steps."""
        fleet.canary()
        _, found = planned(image("agent:0"))
        assert found["revision"] == "r0000000"
        assert found["rollout"].startswith("r0000000, which is kept, comes up")

    def test_one_that_was_rolled_back(self, fleet: Any, planned: Callable[..., Any]) -> None:
        """A change of something else does not try it again."""
        fleet.agent(state={"phase": "RolledBack", "failedRevision": "r2222222"})
        _, found = planned(lambda spec: spec.update(replicas=4))
        assert "r2222222 stays rolled back until its fields change or somebody asks for a retry" in found["rollout"]

    def test_a_new_agent(self, fleet: Any, supportfleet: Callable[..., Any], tmp_path: Path) -> None:
        """An agent that does not exist would be created, and its first revision has no steps."""
        file = tmp_path / "new.yaml"
        objects = [{"kind": "Secret"}, {"kind": "SupportAgent", "metadata": {"name": "new"}, "spec": fleet.spec()}]
        file.write_text(yaml.safe_dump_all(objects))
        said = supportfleet("plan", "-f", str(file))
        assert said.code == 1
        assert said.out.splitlines() == [
            "supportagent/new in shop: would be created",
            "revision: the first revision takes over as soon as its pods are ready, with no steps",
            "note: only SupportAgents are looked at, and not Secret",
        ]

    @pytest.mark.parametrize(
        ("edit", "said"),
        [
            (lambda spec: spec["rollout"].update(strategy="Rolling", steps=None), "takes over as its pods get ready"),
            (lambda spec: spec.update(replicas=0), "takes over at once: there are no replicas to try it on"),
            (lambda spec: spec.update(suspend=True), "waits: nothing runs while spec.suspend is set"),
            (lambda spec: spec["rollout"].update(paused=True), "held at once, since spec.rollout.paused is set"),
        ],
    )
    def test_other_ways_to_take_over(
        self, fleet: Any, planned: Callable[..., Any], edit: Callable[..., object], said: str
    ) -> None:
        """What follows depends on the strategy and on whether anything runs."""
        fleet.canary()

        def both(spec: dict[str, Any]) -> None:
            image("agent:3")(spec)
            edit(spec)

        assert said in planned(both)[1]["rollout"]

    def test_hot_models(self, fleet: Any, planned: Callable[..., Any]) -> None:
        """With reload: Hot another version is no revision; with a channel what it points at decides."""
        spec = fleet.spec()
        spec["model"]["reload"] = "Hot"
        fleet.agent(**spec)
        _, found = planned(lambda spec: spec["model"].update(version="2", digest=DIGEST))
        assert found["newRevision"] is False
        assert "pods that run load the new model" in found["effects"][0]

        def follow(spec: dict[str, Any]) -> None:
            spec["model"].update(version=None, digest=None, channel="stable")

        fleet.agent()
        _, found = planned(follow)
        assert found["effects"] == ["spec.model: what channel 'stable' points at decides about a new revision"]


class TestTheDryRun:
    def test_it_applies_as_the_last_one_did(self, fleet: Any, planned: Callable[..., Any]) -> None:
        """What Flux applied is planned as Flux would apply it; the operator's and our own writes don't count."""
        agent = fleet.agent()
        entry = {"operation": "Apply", "fieldsV1": {"f:spec": {}}}
        agent["metadata"]["managedFields"] = [
            {**entry, "manager": "kustomize-controller", "time": "2026-11-20T00:00:00Z"},
            {**entry, "manager": "supportfleet-operator", "time": "2026-11-21T00:00:00Z"},
            {**entry, "manager": "supportfleet-cli", "time": "2026-11-21T00:00:00Z"},
        ]
        fleet.api.put(agent)
        planned(image("agent:3"))
        ((_, _, query, _, content),) = fleet.api.writes
        assert (query["fieldManager"], content) == ("kustomize-controller", "application/apply-patch+yaml")
        assert applied_by(None) == "kubectl"

    def test_it_removes_what_kubectl_apply_would(
        self, fleet: Any, supportfleet: Callable[..., Any], tmp_path: Path
    ) -> None:
        """A field that was applied before and is left out now is planned to go; what others set stays."""
        agent = fleet.agent()
        before = {"kind": "SupportAgent", "metadata": {"name": "desk"}, "spec": {"suspend": False, "replicas": 3}}
        agent["metadata"]["annotations"] = {LAST_APPLIED: json.dumps(before)}
        fleet.api.put(agent)
        file = tmp_path / "a.yaml"
        file.write_text("{kind: SupportAgent, metadata: {name: desk}, spec: {replicas: 4}}")
        found = json.loads(supportfleet("plan", "-f", str(file), "-o", "json").out)["items"][0]
        assert {one["path"]: one.get("after") for one in found["changes"]} == {
            "spec.replicas": 4,
            "spec.suspend": None,
        }

    def test_what_somebody_else_wrote(self, fleet: Any, planned: Callable[..., Any]) -> None:
        """A conflict is told, and the plan is that of applying with force."""
        fleet.canary()
        cause = {"field": ".spec.template.image", "message": 'conflict with "supportfleet-cli"'}
        fleet.api.refusals = [refusal(409, "Apply failed with 1 conflict", [cause], only_unforced=True)]
        code, found = planned(image("agent:3"))
        assert code == 1
        (note,) = found["notes"]
        assert note.startswith("applying it takes force, since somebody else wrote these fields: ")
        assert note.endswith('.spec.template.image: conflict with "supportfleet-cli"')

    @settings(deadline=None)
    @given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner)), st.data())
    def test_three_ways(self, wanted: Any, data: st.DataObject) -> None:
        """Whatever was applied, the patch leads from it to what is wanted, and keeps what only others set."""
        maps = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3))
        before = data.draw(st.dictionaries(st.sampled_from("abc"), maps))
        wanted = wanted if isinstance(wanted, dict) else {"a": wanted}
        live = {**before, "z": "of others"}
        assert merged(live, three_way(before, wanted)) == {**wanted, "z": "of others"}

    def test_differences_by_name(self) -> None:
        """An entry of a named list is told by its name, and a key with dots by itself."""
        before = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "a.b/c": 1, "same": {}}
        after = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}], "a.b/c": True, "same": {}}
        found = {one.path: (one.before, one.after) for one in differences("spec", before, after)}
        assert found == {"spec.env[B].value": ("2", "3"), "spec[a.b/c]": (1, True)}


class TestText:
    def test_a_new_revision(self, fleet: Any, supportfleet: Callable[..., Any], tmp_path: Path) -> None:
        """For people: the fields, the revision and why, the steps, and what else happens."""
        fleet.canary()
        spec = fleet.spec("agent:3")
        spec["replicas"] = 5
        file = tmp_path / "a.yaml"
        file.write_text(yaml.safe_dump({"kind": "SupportAgent", "metadata": {"name": "desk"}, "spec": spec}))
        assert supportfleet("plan", "-f", str(file)).out == (
            "supportagent/desk in shop: another revision\n"
            "  spec.replicas  3 -> 5\n"
            "  spec.template.image  agent:2 -> agent:3\n"
            "revision: a new revision comes up beside the stable one and goes through the steps (Canary); "
            "the rollout of r2222222, at 10 %, ends\n"
            "  because of spec.template.image\n"
            "steps: at least 5m30s, and somebody's word, beside the time that pods take to get ready\n"
            "  1. weight 10 %\n"
            "  2. pause 5m\n"
            "  3. weight 50 %\n"
            "  4. pause until somebody resumes or promotes\n"
            "stable: r1111111 keeps its pods and its autoscaler until the rollout is over\n"
            "at once: spec.replicas: the stable revision has 5 pods, and none of the others is replaced"
        )


class TestSet:
    def test_an_image(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """It is one change of one field, by supportfleet-cli, and says what was before."""
        fleet.agent()
        said = supportfleet("set", "image", "desk", "agent:2")
        assert said.out.splitlines()[0] == "desk: spec.template.image agent:1 -> agent:2"
        ((_, _, query, body, content),) = fleet.api.writes
        assert body == {"spec": {"template": {"image": "agent:2"}}}
        assert (query["fieldManager"], content) == ("supportfleet-cli", "application/merge-patch+json")
        assert supportfleet("set", "image", "desk", "agent:2").out == "desk: it is so already"

    def test_a_model(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """Version and digest go together; a channel makes way for them."""
        fleet.agent()
        supportfleet("set", "model", "desk", f"2@{DIGEST}")
        assert fleet.api.writes[-1][3] == {"spec": {"model": {"version": "2", "digest": DIGEST}}}
        fleet.agent("door", **{**fleet.spec(), "model": {"uri": "s3://m/i", "channel": "stable"}})
        supportfleet("set", "model", "door", f"2@{DIGEST}")
        assert fleet.api.writes[-1][3]["spec"]["model"]["channel"] is None

    @pytest.mark.parametrize("version", ["2", "2@", "2@sha256:12"])
    def test_a_model_without_digest(self, fleet: Any, supportfleet: Callable[..., Any], version: str) -> None:
        """It says how to get the digest, and writes nothing."""
        fleet.agent()
        said = supportfleet("set", "model", "desk", version)
        assert said.code == 1
        assert "aws s3 cp s3://models/intent/2/manifest.json - | sha256sum" in said.err
        assert not fleet.api.writes

    def test_no_model(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """An agent without spec.model needs more than a version."""
        spec = fleet.spec()
        del spec["model"]
        agent = fleet.agent()
        agent["spec"] = spec
        fleet.api.put(agent)
        assert "Set spec.model with uri, version and digest first" in supportfleet("set", "model", "desk", "2@x").err

    def test_for_git(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """--patch prints YAML that makes the change, and touches nothing."""
        fleet.agent()
        said = supportfleet("set", "image", "desk", "agent:2", "--patch")
        assert said.out == (
            "apiVersion: supportfleet.dev/v1alpha1\n"
            "kind: SupportAgent\n"
            "metadata:\n"
            "  name: desk\n"
            "  namespace: shop\n"
            "spec:\n"
            "  template:\n"
            "    image: agent:2"
        )
        assert not fleet.api.writes

    def test_what_git_brings_back(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """A field that Flux holds is changed with a warning."""
        agent = fleet.agent()
        fields = {"f:spec": {"f:template": {"f:image": {}}}}
        agent["metadata"]["managedFields"] = [{"manager": "kustomize-controller", "fieldsV1": fields}]
        fleet.api.put(agent)
        said = supportfleet("set", "image", "desk", "agent:2")
        assert "kustomize-controller applies spec.template.image from Git and will change it back" in said.err
        assert said.code == 0

    @pytest.mark.parametrize("image", ["", "an image"])
    def test_no_image(self, fleet: Any, supportfleet: Callable[..., Any], image: str) -> None:
        """What can't be an image is refused here."""
        fleet.agent()
        assert supportfleet("set", "image", "desk", image).code == 1
        assert not fleet.api.writes
