"""The Istio DestinationRule of a revision: pods that can't be reached get no requests until they can.

When a node vanishes, its pods stay in their Service until Kubernetes notices, which takes most of a minute; until then
a share of the requests would wait for connections that nobody answers. Envoy notices after three.

Answers are another matter. A pod that answers 5xx isn't taken out: what it serves is what the analysis must see, and an
agent whose language model is down answers 5xx from every pod, so taking out would only crowd the others. Pods don't
share errors out unevenly for long either: their own readiness does that. There are no limits on connections or waiting
requests: the runtime has its own, which say so in its figures, while a request that Envoy refuses is in no pod's
figures. And nothing needs to end connections for the sake of weights: Envoy chooses for each request, on whichever
connection it came.

Istio takes outlier detection as a wish to keep requests within a zone too; that is turned off, so that a revision's
pods get even shares wherever they are. There are no settings for TLS, so that those of the mesh hold.
"""

from typing import Any, Final

from supportfleet_operator.api import ISTIO, SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata

CONNECT_TIMEOUT: Final = "2s"
"""Within a cluster a connection takes milliseconds, and Istio's own 10 s are more than customers wait for a reply."""

OUTLIER_DETECTION: Final = {
    "splitExternalLocalOriginErrors": True,
    "consecutiveLocalOriginFailures": 3,
    "consecutive5xxErrors": 0,
    "interval": "5s",
    "baseEjectionTime": "15s",
    "maxEjectionPercent": 50,
    # With most pods out of reach it is the proxy that is cut off, or the revision has one pod: then all are tried.
    "minHealthPercent": 50,
}


def destination_rule(agent: SupportAgent, revision: str) -> dict[str, Any] | None:
    """The DestinationRule; none without Istio."""
    if agent.spec.traffic.provider != ISTIO:
        return None
    own = names.of_revision(agent, revision)
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": metadata(agent, own, revision=revision),
        "spec": {
            "host": own,
            "trafficPolicy": {
                "connectionPool": {"tcp": {"connectTimeout": CONNECT_TIMEOUT}},
                "loadBalancer": {"localityLbSetting": {"enabled": False}},
                "outlierDetection": dict(OUTLIER_DETECTION),
            },
        },
    }
