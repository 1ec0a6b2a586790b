"""The ConfigMap that tells running pods which model to load, where the model reloads hot.

It is the only ConfigMap that changes. It is written once the model Job has verified the artifact, and pods see it
within the kubelet's next round; it is shared by all revisions, since another model is none.
"""

import json
from dataclasses import asdict
from typing import Any

from supportfleet_operator.api import Artifact, SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata


def model_pointer(agent: SupportAgent, artifact: Artifact) -> dict[str, Any]:
    """The ConfigMap with model.json."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(agent, names.model_pointer(agent)),
        "data": {names.MODEL_FILE: json.dumps(asdict(artifact), indent=2) + "\n"},
    }
