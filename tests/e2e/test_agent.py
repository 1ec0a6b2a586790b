"""A SupportAgent on a real cluster, from apply to a customer's answer and back to nothing."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

EXAMPLE = "01-customer-support-agent.yaml"
NAME = "customer-support-agent"

pytestmark = pytest.mark.timeout(420)


def apply(operator: Any, agent: dict[str, Any]) -> None:
    operator.kubectl("apply", "-f", "-", stdin=json.dumps(agent))


def small(agent: dict[str, Any], replicas: int = 2) -> dict[str, Any]:
    """The agent with small requests, so that many fit on a test machine."""
    agent = copy.deepcopy(agent)
    agent["spec"]["template"]["resources"] = {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "512Mi"},
    }
    agent["spec"].pop("autoscaling", None)
    agent["spec"]["replicas"] = replicas
    return agent


def wait_ready(operator: Any, namespace: str, name: str = NAME, seconds: int = 180) -> None:
    generation = operator.get("-n", namespace, "supportagent", name)["metadata"]["generation"]
    waits = ("wait", "supportagent", name, f"--timeout={seconds}s")
    for what in (f"jsonpath={{.status.observedGeneration}}={generation}", "condition=Ready"):
        done = operator.kubectl("-n", namespace, *waits, f"--for={what}", check=False, timeout=seconds + 10)
        if done.returncode:
            agent = operator.kubectl("-n", namespace, "get", "supportagent", name, "-o", "yaml", check=False).stdout
            pods = operator.kubectl("-n", namespace, "describe", "pods", check=False).stdout
            logs = operator.kubectl("-n", namespace, "logs", "-l", "supportfleet.dev/agent", "--tail=20", check=False)
            raise AssertionError(f"{what}: {done.stderr}\n{agent}\n{pods}\n{logs.stdout}{logs.stderr}")


def condition(operator: Any, namespace: str, kind: str, name: str = NAME) -> dict[str, Any]:
    status = operator.get("-n", namespace, "supportagent", name).get("status", {})
    found = [one for one in status.get("conditions", []) if one["type"] == kind]
    return found[0] if found else {}


def serving(operator: Any, namespace: str, name: str = NAME) -> str:
    """How the children of the revision that serves are called."""
    status = operator.get("-n", namespace, "supportagent", name)["status"]
    return f"{name}-{status['rollout']['stableRevision']}"


def owned(operator: Any, namespace: str) -> list[str]:
    kinds = "deployments,replicasets,pods,services,hpa,configmaps,serviceaccounts,pdb,networkpolicies,jobs,pvc"
    kinds += ",controllerrevisions"
    found = operator.get("-n", namespace, kinds, "-l", "app.kubernetes.io/managed-by=supportfleet")
    return [f"{one['kind']}/{one['metadata']['name']}" for one in found["items"]]


class TestSeedCase:
    """The example a production team would have written by hand."""

    def test_it_becomes_ready_and_answers(
        self,
        operator: Any,
        namespace: str,
        example: Callable[[str], dict[str, Any]],
        talk: Any,
        until: Any,
        reached: Callable[[str], None],
    ) -> None:
        """The applied example is Ready with three verified pods and answers each kind of message by its rule."""
        apply(operator, example(EXAMPLE))
        wait_ready(operator, namespace)
        deployment = operator.get("-n", namespace, "deployment", serving(operator, namespace))
        assert deployment["status"]["readyReplicas"] == 3
        model = operator.get("-n", namespace, "supportagent", NAME)["status"]["model"]
        assert model["digest"] == example(EXAMPLE)["spec"]["model"]["digest"]

        reached(NAME)
        expected = {
            "Where is my order A-1001?": "order_status",
            "I forgot my password and cannot log in": "password_reset",
            "I want my money back for order A-1001": "refund",
            "please change my delivery address": "address_change",
            "let me talk to a human being": "human",
        }
        for text, intent in expected.items():
            answer = talk("/v1/messages", {"customer_id": "cust-1001", "text": text}, service=NAME)
            assert (answer.status, answer.body["intent"], answer.body["source"]) == (200, intent, "rules"), answer.raw
            assert answer.body["reply"]

        pods = operator.get("-n", namespace, "pods", "-l", "app.kubernetes.io/component=agent")["items"]
        metrics = [talk("/metrics", pod=pod["metadata"]["name"]).raw.decode() for pod in pods]
        for name in ("agent_request_total", "agent_queue_depth", "escalation_to_human_total"):
            assert any(f"\n{name}" in text for text in metrics), name
        # The autoscaler has a figure to go by: metrics-server answers for these pods.
        until(
            lambda: condition(operator, namespace, "ScalingActive").get("status") == "True",
            seconds=120,
            message="ScalingActive",
        )

    def test_a_conversation_continues_on_another_pod(
        self, operator: Any, namespace: str, example: Callable[[str], dict[str, Any]], talk: Any
    ) -> None:
        """Whichever pod answers next knows what the customer said to the first."""
        apply(operator, small(example(EXAMPLE)))
        wait_ready(operator, namespace)
        pods = operator.get("-n", namespace, "pods", "-l", "app.kubernetes.io/component=agent")["items"]
        first, second = (pod["metadata"]["name"] for pod in pods[:2])
        opened = talk("/v1/messages", {"customer_id": "cust-1001", "text": "Where is my order?"}, pod=first)
        assert opened.status == 200, opened.raw
        conversation = opened.body["conversation_id"]
        continued = talk(
            "/v1/messages", {"customer_id": "cust-1001", "conversation_id": conversation, "text": "A-1001"}, pod=second
        )
        assert continued.body["intent"] == "order_status", continued.raw
        history = talk(f"/v1/conversations/{conversation}?customer_id=cust-1001", pod=second)
        texts = [message["text"] for message in history.body["messages"]]
        assert texts[0] == "Where is my order?"
        assert "A-1001" in texts
        assert len(texts) == 4


class TestConvergence:
    """What differs from the spec is put right, and only that."""

    @pytest.fixture
    def agent(self, operator: Any, namespace: str, example: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        agent = small(example(EXAMPLE), replicas=1)
        apply(operator, agent)
        wait_ready(operator, namespace)
        return agent

    def test_edits_hand_edits_and_deletions_converge_and_deletion_leaves_nothing(
        self, operator: Any, namespace: str, agent: dict[str, Any], until: Any
    ) -> None:
        """An edit rolls out, a hand edit is put back, a deleted child returns, a deleted agent leaves nothing."""
        first = serving(operator, namespace)
        agent["spec"]["config"] = {**agent["spec"].get("config", {}), "greeting": "Good day!"}
        apply(operator, agent)
        wait_ready(operator, namespace)
        name = serving(operator, namespace)
        assert name != first
        config = operator.get("-n", namespace, "configmap", f"{name}-config")
        assert "Good day!" in config["data"]["agent_config.json"]
        service = operator.get("-n", namespace, "service", NAME)
        assert service["spec"]["selector"]["supportfleet.dev/revision"] == name.removeprefix(f"{NAME}-")

        operator.kubectl("-n", namespace, "set", "image", f"deployment/{name}", "agent=example.invalid/other:1")
        image = agent["spec"]["template"]["image"]
        until(
            lambda: (
                operator.get("-n", namespace, "deployment", name)["spec"]["template"]["spec"]["containers"][0]["image"]
                == image
            ),
            message="the image is put back",
        )
        before = operator.get("-n", namespace, "service", NAME)["metadata"]["uid"]
        operator.kubectl("-n", namespace, "delete", "service", NAME)
        until(
            lambda: [
                one
                for one in operator.get("-n", namespace, "services")["items"]
                if one["metadata"]["name"] == NAME and one["metadata"]["uid"] != before
            ],
            message="the Service returns",
        )
        wait_ready(operator, namespace)
        operator.kubectl("-n", namespace, "delete", "supportagent", NAME, timeout=90)
        until(lambda: not owned(operator, namespace), seconds=90, message="nothing is left")

    def test_a_converged_agent_costs_no_write(
        self, operator: Any, namespace: str, agent: dict[str, Any], until: Any
    ) -> None:
        """Once converged, the operator writes nothing about the agent: the API server's audit log shows none."""

        def writes() -> list[str]:
            found = []
            for line in operator.audit_log.read_text().splitlines(keepends=True):
                if not line.endswith("\n"):
                    continue  # it is being written
                event = json.loads(line)
                reference = event.get("objectRef", {})
                if (
                    event["user"]["username"] == "system:serviceaccount:supportfleet-system:supportfleet-operator"
                    and event["verb"] in {"create", "update", "patch", "delete", "deletecollection"}
                    and reference.get("namespace") == namespace
                ):
                    found.append(f"{event['verb']} {reference['resource']}/{reference.get('name')}")
            return found

        settled: list[str] = []

        def quiet() -> bool:
            nonlocal settled
            seen, settled = settled, writes()
            time.sleep(3)
            return bool(seen) and seen == settled

        until(quiet, seconds=60, message="the operator settles")
        # An edit that changes nothing and an annotation of somebody else wake the operator; neither may cost a write.
        apply(operator, agent)
        deployment = serving(operator, namespace)
        operator.kubectl("-n", namespace, "annotate", "deployment", deployment, "example.com/note=seen")
        time.sleep(10)
        assert writes() == settled


class TestBadInput:
    """What is wrong outside the schema shows as a condition that names the field and the remedy."""

    @pytest.mark.parametrize(
        ("change", "kind", "reason", "field"),
        [
            ({"model": {"digest": "sha256:" + "0" * 64}}, "ModelSynced", "DigestMismatch", "spec.model.digest"),
            ({"model": {"uri": "s3://no-such-bucket/intent"}}, "ModelSynced", "BucketNotFound", "spec.model.uri"),
            (
                {"database": {"secretRef": {"name": "no-such-secret"}}},
                "Ready",
                "MissingReference",
                "spec.database.secretRef",
            ),
            ({"template": {"image": "supportfleet/no-such-image:1"}}, "Ready", "", "spec.template.image"),
            (
                {"template": {"resources": {"requests": {"cpu": "900", "memory": "1Gi"}, "limits": {"cpu": "900"}}}},
                "Ready",
                "Unschedulable",
                "spec.template.resources",
            ),
        ],
        ids=["digest", "bucket", "secret", "image", "resources"],
    )
    def test_it_shows_as_a_condition(
        self,
        operator: Any,
        namespace: str,
        example: Callable[[str], dict[str, Any]],
        until: Any,
        change: dict[str, Any],
        kind: str,
        reason: str,
        field: str,
    ) -> None:
        """A wrong reference is a False condition whose message names the field, and nothing is Ready."""
        agent = small(example(EXAMPLE), replicas=1)
        for part, values in change.items():
            agent["spec"][part] = {**agent["spec"][part], **values}
        if "uri" in change.get("model", {}):
            agent["spec"]["template"]["env"] = []
        apply(operator, agent)

        def shown() -> bool:
            found = condition(operator, namespace, kind)
            return found.get("status") == "False" and field in found["message"] and reason in ("", found["reason"])

        until(shown, seconds=90, message=f"{kind} names {field}")
        assert condition(operator, namespace, "Ready")["status"] == "False"

    def test_a_bad_model_leaves_the_running_one_serving(
        self, operator: Any, namespace: str, example: Callable[[str], dict[str, Any]], talk: Any, until: Any
    ) -> None:
        """With a digest that no artifact has, the pods of before keep answering."""
        agent = small(example(EXAMPLE), replicas=1)
        apply(operator, agent)
        wait_ready(operator, namespace)
        before = operator.get("-n", namespace, "pods", "-l", "app.kubernetes.io/component=agent")["items"]
        broken = copy.deepcopy(agent)
        broken["spec"]["model"]["digest"] = "sha256:" + "1" * 64
        apply(operator, broken)
        until(
            lambda: condition(operator, namespace, "ModelSynced").get("reason") == "DigestMismatch",
            seconds=90,
            message="the mismatch shows",
        )
        assert talk("/v1/messages", {"customer_id": "c-1", "text": "hello"}, service=NAME).status == 200
        after = operator.get("-n", namespace, "pods", "-l", "app.kubernetes.io/component=agent")["items"]
        assert [pod["metadata"]["uid"] for pod in before] == [pod["metadata"]["uid"] for pod in after]
        apply(operator, agent)
        wait_ready(operator, namespace)

    def test_a_malformed_body_gets_a_problem(
        self,
        operator: Any,
        namespace: str,
        example: Callable[[str], dict[str, Any]],
        talk: Any,
        reached: Callable[[str], None],
    ) -> None:
        """A body of the wrong shape is answered by a 4xx problem through the Service."""
        apply(operator, example("02-minimal.yaml"))
        name = example("02-minimal.yaml")["metadata"]["name"]
        wait_ready(operator, namespace, name)
        reached(name)
        for body in ({}, [], {"customer_id": 3, "text": ["x"]}, {"customer_id": "c", "text": ""}):
            answer = talk("/v1/messages", body, service=name)
            assert 400 <= answer.status < 500, answer.raw
            assert answer.body["status"] == answer.status


class TestModelOnAVolume:
    def test_the_job_fills_a_provisioned_volume(
        self,
        operator: Any,
        namespace: str,
        example: Callable[[str], dict[str, Any]],
        talk: Any,
        reached: Callable[[str], None],
    ) -> None:
        """With a PersistentVolumeClaim as cache the Job fills it and pods read the model from it."""
        agent = small(example("03-model-on-a-volume.yaml"), replicas=1)
        name = agent["metadata"]["name"]
        apply(operator, agent)
        wait_ready(operator, namespace, name)
        assert operator.get("-n", namespace, "pvc", f"{name}-models")["status"]["phase"] == "Bound"
        reached(name)
        answer = talk("/v1/messages", {"customer_id": "cust-1001", "text": "where is my order A-1001"}, service=name)
        assert answer.body["intent"] == "order_status", answer.raw


class TestOperatorFailover:
    def test_a_standby_takes_over(
        self, operator: Any, namespace: str, example: Callable[[str], dict[str, Any]], until: Any
    ) -> None:
        """With the leading operator pod killed, an agent applied just after is reconciled by the other one."""
        system = ("-n", "supportfleet-system")
        lease = operator.get(*system, "lease", "supportfleet-operator")
        holder = lease["spec"]["holderIdentity"]
        pods = operator.get(*system, "pods", "-l", "app.kubernetes.io/name=supportfleet-operator")["items"]
        leader = next(pod["metadata"]["name"] for pod in pods if holder.startswith(pod["metadata"]["name"]))
        operator.kubectl(*system, "delete", "pod", leader, "--grace-period=0", "--force")
        apply(operator, small(example(EXAMPLE), replicas=1))
        until(lambda: owned(operator, namespace), message="the standby reconciles")
        assert operator.get(*system, "lease", "supportfleet-operator")["spec"]["holderIdentity"] != holder
        wait_ready(operator, namespace)
