"""Strategies for valid SupportAgents: everything that a spec may hold, in any combination that goes together.

Tests load this file with runpy: it is shared between tiers.
"""

from typing import Any

from hypothesis import strategies as st

from supportfleet_operator.api import InvalidSupportAgentError, SupportAgent, parse
from supportfleet_operator.api.agent import MAX_NAME, NAME

NAMES = st.from_regex(NAME, fullmatch=True).map(lambda name: name[:MAX_NAME].rstrip("-"))
OBJECTS = st.sampled_from(["db", "a.b", "with-dashes-0"])
CPUS = st.sampled_from([1, 2, "500m", "1.5"])
SIZES = st.sampled_from([1, 10**9, "512Mi", "1Gi", "4G", "0.5Ti"])
PERCENT_OR_NUMBER = st.one_of(st.integers(0, 50), st.integers(0, 100).map("{}%".format))
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
SAFE = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp", "Cf", "Cn"]), max_size=20)
SAFE_VALUE = st.sampled_from(["beta=", "a"])
SELECTORS = st.sampled_from(
    [
        {},
        {"matchLabels": {"a": ""}},
        {"matchExpressions": []},
        {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]},
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def some(required: dict[str, Any] | None = None, /, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A dict with all of the required keys and any of the optional ones."""
    return st.fixed_dictionaries(required or {}, optional=optional)


ENV = st.lists(
    st.one_of(
        some({"name": st.sampled_from(["A", "b.c", "HTTPS_PROXY"])}, value=SAFE),
        some(
            {"name": st.sampled_from(["D", "E"])},
            valueFrom=st.sampled_from(
                [
                    {"secretKeyRef": {"name": "s", "key": "k"}},
                    {"fieldRef": {"fieldPath": "status.podIP"}},
                    {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi", "containerName": ""}},
                ]
            ),
        ),
    ),
    max_size=4,
    unique_by=lambda env: env["name"],
)

TEMPLATES = some(
    {"image": st.sampled_from(["agent:1", "registry.example.com:5000/a/b@sha256:" + "0" * 64])},
    imagePullPolicy=st.sampled_from(["Always", "IfNotPresent", "Never"]),
    imagePullSecrets=st.lists(OBJECTS.map(lambda name: {"name": name}), max_size=2, unique_by=lambda one: one["name"]),
    port=st.integers(1024, 65535),
    resources=some(
        requests=some(cpu=CPUS, memory=SIZES),
        limits=some(cpu=CPUS, memory=SIZES),
    ),
    env=ENV,
    envFrom=st.lists(some({"secretRef": some({"name": OBJECTS})}, prefix=st.sampled_from(["", "P_"])), max_size=2),
    labels=st.dictionaries(st.sampled_from(["team", "example.com/a"]), st.sampled_from(["", "x"]), max_size=2),
    annotations=st.dictionaries(st.sampled_from(["note", "example.com/b"]), SAFE, max_size=2),
    nodeSelector=st.dictionaries(st.just("pool"), st.sampled_from(["", "agents"])),
    tolerations=st.lists(
        some({"operator": st.just("Exists")}, key=st.sampled_from(["", "spot"]), value=st.just("")), max_size=2
    ),
    affinity=st.sampled_from([{}, {"nodeAffinity": {}}, {"podAffinity": {"x": [], "y": None}}]),
    topologySpreadConstraints=st.lists(
        some(
            {
                "maxSkew": st.integers(1, 3),
                "topologyKey": st.sampled_from(["zone", "rack"]),
                "whenUnsatisfiable": st.just("DoNotSchedule"),
            },
            labelSelector=SELECTORS,
        ),
        max_size=2,
        unique_by=lambda one: one["topologyKey"],
    ),
    terminationGracePeriodSeconds=st.integers(10, 3600),
)
CACHES = st.one_of(
    some(type=st.just("EmptyDir"), size=SIZES),
    some({"type": st.just("PersistentVolumeClaim")}, size=SIZES, storageClassName=OBJECTS),
    some({"type": st.just("PersistentVolumeClaim"), "claimName": OBJECTS}),
)
MODELS = some(
    {
        "uri": st.sampled_from(["s3://models", "s3://models/a/b"]),
        "version": st.sampled_from(["1", "2026-11-21.rc1"]),
        "digest": st.just("sha256:" + "0" * 64),
    },
    endpoint=st.just("http://s3:9000"),
    region=st.just("eu-central-1"),
    credentialsSecretRef=some({"name": OBJECTS}),
    cache=CACHES,
    channelPollSeconds=st.integers(10, 86400),
    reload=st.sampled_from(["Rollout", "Hot"]),
)
PEERS = st.lists(
    st.one_of(
        some({"podSelector": SELECTORS}, namespaceSelector=SELECTORS),
        some({"ipBlock": some({"cidr": st.sampled_from(["10.0.0.0/8", "::/0"])}, **{"except": st.just([])})}),
    ),
    max_size=2,
)
MATCH = some(
    {"headers": some({"user-agent": some({"regex": st.just(".*beta.*")})}, cookie=some({"prefix": SAFE_VALUE}))}
)
MATCHES = st.lists(MATCH, max_size=2)
QUERIES = st.sampled_from(
    ["up", "avg(happiness{agent='{{agent}}',revision='{{revision}}'})", "a{{canary}} - b{{stable}}"]
)
ANALYSES = some(
    {
        "metrics": st.lists(
            st.one_of(
                some({"name": st.just("errorRate"), "max": st.just(0.01)}),
                some({"name": st.just("costPerReply"), "maxIncreaseOverStable": st.just(0.01)}),
                some({"name": st.just("happiness"), "query": QUERIES, "min": st.just(-1)}),
            ),
            min_size=1,
            unique_by=lambda metric: metric["name"],
        ),
        "prometheus": some({"address": st.just("http://prometheus:9090")}, timeoutSeconds=st.integers(1, 30)),
    },
    onNoData=st.just("Fail"),
)
ROLLOUTS = st.one_of(
    some(
        paused=st.booleans(),
        revisionHistoryLimit=st.integers(1, 32),
        checklist=some(skip=st.sampled_from([[], ["models"]]), configMapName=OBJECTS),
    ),
    some(
        {"strategy": st.just("BlueGreen")},
        steps=st.lists(st.sampled_from([{"pause": {}}, {"setMirror": 0}, {"setMirror": 100}]), max_size=3),
        match=MATCHES,
    ),
    some(
        {
            "strategy": st.just("ABTest"),
            "steps": st.lists(st.just({"pause": {"durationSeconds": 1}}), min_size=1, max_size=2),
            "match": st.lists(MATCH, min_size=1, max_size=2),
        },
        analysis=ANALYSES,
    ),
    some(
        {
            "strategy": st.just("Canary"),
            "steps": st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(
                lambda weights: [{"setWeight": weight} for weight in sorted(weights)]
            ),
            "match": MATCHES,
        },
        analysis=ANALYSES,
    ),
)
STICKINESS = st.one_of(
    some({"cookie": some(name=st.sampled_from(["revision", "A_b-1"]))}, ttlSeconds=st.integers(1, 86400)),
    some({"header": some(name=st.just("x-revision"))}, ttlSeconds=st.integers(1, 86400)),
)
TRAFFIC = st.one_of(
    some(
        {"provider": st.just("Istio")},
        hosts=st.sampled_from([[], ["agent.example.com", "*.example.com"]]),
        gateways=st.sampled_from([[], ["mesh"], ["istio-system/public"]]),
        stickiness=STICKINESS,
    ),
    some({"provider": st.just("GatewayAPI")}, stickiness=STICKINESS),
    some(
        {
            "provider": st.just("GatewayAPI"),
            "hosts": st.just(["agent.example.com", "*.example.com"]),
            "gateways": st.sampled_from([["public"], ["public", "infra/public"]]),
        },
        stickiness=STICKINESS,
    ),
)
SCALING = some(
    {"maxReplicas": st.integers(5, 50)},
    minReplicas=st.integers(1, 5),
    behavior=some(scaleUp=some(policies=st.just([]), tolerance=st.just("0.2"))),
)
LAYERS = some(
    replicas=st.integers(1, 20),
    resources=some({"requests": some({"cpu": CPUS}, memory=SIZES)}),
    autoscaling=SCALING,
)
SPECS = some(
    {
        "template": TEMPLATES,
        "database": some({"secretRef": some({"name": OBJECTS}, key=st.just("URL"))}),
        "traffic": TRAFFIC,
    },
    rollout=ROLLOUTS,
    replicas=st.integers(0, 50),
    suspend=st.booleans(),
    config=st.dictionaries(TEXT, JSON, max_size=3),
    llm=some(provider=st.sampled_from(["Auto", "Scripted"]), model=st.just("claude"), maxTokens=st.integers(1, 64000)),
    model=MODELS,
    service=some(type=st.sampled_from(["ClusterIP", "LoadBalancer"]), port=st.integers(1, 65535)),
    autoscaling=SCALING,
    topology=st.sampled_from(["Combined", "Layered"]),
    worker=LAYERS,
    tools=LAYERS,
    availability=st.one_of(some(maxUnavailable=PERCENT_OR_NUMBER), some(minAvailable=PERCENT_OR_NUMBER)),
    networkPolicy=some(
        enabled=st.booleans(),
        allowFrom=PEERS,
        allowFromNamespaces=st.sampled_from([[], ["istio-system"]]),
        allowEgress=st.lists(some(to=PEERS, ports=st.just([{"port": 443}])), max_size=2),
    ),
)


def read(name: str, spec: dict[str, Any]) -> SupportAgent | None:
    """The agent, or None where parts of the spec that are valid alone don't go together."""
    metadata = {"name": name, "namespace": "shop", "uid": "u-1"}
    head = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent"}
    spec = layered(spec) if spec.get("topology") == "Layered" else combined(spec)
    try:
        return parse({**head, "metadata": metadata, "spec": spec})
    except InvalidSupportAgentError as error:
        if {problem.path for problem in error.problems} <= UNMEASURED:
            return None
        raise


def combined(spec: dict[str, Any]) -> dict[str, Any]:
    """The same without layers."""
    return {name: value for name, value in spec.items() if name not in {"worker", "tools"}}


def layered(spec: dict[str, Any]) -> dict[str, Any]:
    """The same with the tools' key, or with another tool service, and without copies of messages."""
    name = "TOOLS_URL" if spec.get("replicas", 1) % 3 == 2 else "TOOLS_API_KEY"
    env = [*spec["template"].get("env", ()), {"name": name, "value": "http://tools.shop:80"}]
    rollout = spec.get("rollout") or {}
    steps = [one for one in rollout.get("steps") or () if "setMirror" not in one]
    rest = {**rollout, "steps": steps} if "steps" in rollout else rollout
    return {**spec, "template": {**spec["template"], "env": env}, "rollout": rest}


UNMEASURED = {"spec.template.resources.requests", "spec.worker.autoscaling", "spec.tools.autoscaling"}
"""Where an autoscaler has no request for CPU to measure against."""
AGENTS = st.builds(read, NAMES, SPECS).filter(lambda agent: agent is not None)
