"""The Job that checks a revision: what it runs, what it may see, and when it is another one."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from supportfleet_operator.api import SupportAgent, parse
from supportfleet_operator.api.agent import MAX_NAME
from supportfleet_operator.reconcile.references import references
from supportfleet_operator.resources import checklist_job, revision_children
from supportfleet_operator.resources.environment import agent_env
from supportfleet_operator.resources.networkpolicy import network_policy

REV = "r0123456"
BEGUN = "2026-11-21T12:00:00+00:00"
DATABASE = {"secretRef": {"name": "db"}}
DOCUMENTS = ("alert-rules", "on-call", "runbooks")


def agent(checklist: Any = None, name: str = "desk", **spec: Any) -> SupportAgent:
    return parse(
        {
            "apiVersion": "supportfleet.dev/v1alpha1",
            "kind": "SupportAgent",
            "metadata": {"name": name, "namespace": "shop", "uid": "u-1"},
            "spec": {
                "template": {"image": "agent:1"},
                "database": DATABASE,
                "rollout": {"checklist": {} if checklist is None else checklist},
                **spec,
            },
        }
    )


def job(checklist: Any = None, **spec: Any) -> dict[str, Any]:
    found = checklist_job(agent(checklist, **spec), REV, BEGUN)
    assert found is not None
    return found


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return found


def skipped(manifest: dict[str, Any]) -> list[str]:
    args = pod(manifest)["containers"][0]["args"]
    return [after for before, after in itertools.pairwise(args) if before == "--skip"]


def test_without_the_field_there_is_none() -> None:
    """Nobody who doesn't ask for it gets a Job, or a rule in the network policy."""
    assert checklist_job(agent(rollout={}), REV, BEGUN) is None


def test_it_has_what_the_revisions_pods_have() -> None:
    """Image, environment, configuration, account and security are those of the revision's own pods."""
    spec = agent(template={"image": "agent:7", "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]})
    made = checklist_job(spec, REV, BEGUN)
    assert made is not None
    theirs = revision_children(spec, REV, replicas=1, autoscaled=False).deployment["spec"]["template"]["spec"]
    (container,), (beside,) = pod(made)["containers"], theirs["containers"]
    for field in ("image", "imagePullPolicy", "env", "securityContext"):
        assert container[field] == beside[field]
    for field in ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "securityContext"):
        assert pod(made)[field] == theirs[field]
    assert theirs["volumes"][0] in pod(made)["volumes"]
    assert container["env"] == agent_env(spec, REV)


def test_it_asks_the_revisions_own_service() -> None:
    """Its pods have no traffic yet, so the agent's Service leads elsewhere."""
    args = pod(job(service={"port": 8000}))["containers"][0]["args"]
    assert args[:3] == ["checklist", "--url", f"http://desk-{REV}:8000"]


def test_it_serves_nobody() -> None:
    """No Service, budget or Deployment of the agent chooses its pods."""
    labels = job()["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "checklist"
    assert labels["supportfleet.dev/revision"] == REV


@pytest.mark.parametrize(
    ("checklist", "spec", "left_out"),
    [
        ({}, {}, DOCUMENTS),
        ({}, {"database": None}, (*DOCUMENTS, "queue")),
        ({"configMapName": "papers"}, {}, ()),
        ({"configMapName": "papers", "skip": ["models", "on-call"]}, {}, ("models", "on-call")),
        ({"skip": ["models"]}, {}, (*DOCUMENTS, "models")),
    ],
)
def test_what_cannot_be_checked_there_is_left_out(checklist: Any, spec: Any, left_out: Any) -> None:
    """Documents that it wasn't given, and a database in another pod's file; and what the spec says."""
    assert sorted(skipped(job(checklist, **spec))) == sorted(left_out)


def test_documents_are_mounted_where_the_runtime_looks() -> None:
    """The ConfigMap becomes the three settings, unless the agent has them as variables of its own."""
    mine = {"name": "RUNBOOKS", "value": "/usr/share/runbooks"}
    container = pod(job({"configMapName": "papers"}, template={"image": "a:1", "env": [mine]}))["containers"][0]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert len(env) == len(container["env"])
    assert env["RUNBOOKS"] == "/usr/share/runbooks"
    folder = next(one["mountPath"] for one in container["volumeMounts"] if one["name"] == "checklist-documents")
    assert env["ALERT_RULES"] == f"{folder}/agent.rules.yaml"
    assert env["ONCALL_ATTESTATION"] == f"{folder}/oncall.yaml"


def test_the_key_is_a_file_for_the_pods_user_alone() -> None:
    """It is named on the command line and never held there, nor in a variable."""
    made = job({"apiKeySecretRef": {"name": "callers", "key": "first"}})
    container, volume = pod(made)["containers"][0], pod(made)["volumes"][-1]
    path = container["args"][container["args"].index("--api-key-file") + 1]
    mount = next(one for one in container["volumeMounts"] if one["name"] == volume["name"])
    (item,) = volume["secret"]["items"]
    assert path == f"{mount['mountPath']}/{item['path']}"
    assert (volume["secret"]["secretName"], item["key"]) == ("callers", "first")
    assert volume["secret"]["defaultMode"] == 0o440
    assert "callers" not in json.dumps(container["env"])


def test_what_failed_is_final_and_what_is_not_known_is_tried_again() -> None:
    """Exit code 1 ends the Job; any other costs one of its tries, each of which is bounded, as is the whole."""
    spec = job({"timeoutSeconds": 60})["spec"]
    rule, spot = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"], rule["onExitCodes"]["values"]) == ("FailJob", "In", [1])
    assert rule["onExitCodes"]["containerName"] == spec["template"]["spec"]["containers"][0]["name"]
    assert spot["action"] == "Ignore"
    assert spec["template"]["spec"]["activeDeadlineSeconds"] == 60
    assert spec["activeDeadlineSeconds"] == 60 * (spec["backoffLimit"] + 1)


@pytest.mark.parametrize(
    "other",
    [
        lambda: checklist_job(agent(), REV, "2026-11-21T12:00:01+00:00"),
        lambda: checklist_job(agent({"skip": ["models"]}), REV, BEGUN),
        lambda: checklist_job(agent(template={"image": "agent:2"}), REV, BEGUN),
        lambda: checklist_job(agent(), "r7654321", BEGUN),
    ],
    ids=["another try", "other checks", "another image", "another revision"],
)
def test_another_try_is_another_job(other: Any) -> None:
    """Jobs are immutable, and a verdict holds for what it was about; the same try has the same Job."""
    assert job() == job()
    assert other()["metadata"]["name"] != job()["metadata"]["name"]


def test_the_longest_name_fits_a_label() -> None:
    """The Job's controller labels pods with its name."""
    assert len(job(name="a" * MAX_NAME)["metadata"]["name"]) <= 63


def test_it_may_reach_the_pods_where_egress_is_limited() -> None:
    """A network policy that allows but little allows this as well, and only with a checklist."""
    limited: dict[str, Any] = {"networkPolicy": {"allowEgress": []}}
    to = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "agent", "supportfleet.dev/agent": "desk"}}}
    policy = network_policy(agent(**limited))
    assert policy is not None
    assert {"to": [to]} in policy["spec"]["egress"]
    without = network_policy(agent(rollout={}, **limited))
    assert without is not None
    assert len(without["spec"]["egress"]) == len(policy["spec"]["egress"]) - 1


def test_what_it_names_is_looked_for() -> None:
    """A Secret or ConfigMap that isn't there is told by its field, before a pod waits for it in vain."""
    wanted = {"apiKeySecretRef": {"name": "callers"}, "configMapName": "papers"}
    found = {one.field: (one.name, one.keys) for one in references(agent(wanted))}
    assert found["spec.rollout.checklist.apiKeySecretRef"] == ("callers", ("api-key",))
    assert found["spec.rollout.checklist.configMapName"] == ("papers", ())
