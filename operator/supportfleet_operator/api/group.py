"""What the API is called: the one place that spells its group, version and names."""

from typing import Final

GROUP: Final = "supportfleet.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "supportfleet.dev/v1alpha1"
KIND: Final = "SupportAgent"
LIST_KIND: Final = "SupportAgentList"
PLURAL: Final = "supportagents"
SINGULAR: Final = "supportagent"
SHORT_NAMES: Final = ("supa",)
CATEGORIES: Final = ("all",)
CRD_NAME: Final = f"{PLURAL}.{GROUP}"
