"""What a cluster has besides Kubernetes itself. Each is one module with one Addon."""

from supportfleet.local.embedded.addons import capacity, dns, istio, metrics, postgres, s3, volumes
from supportfleet.local.embedded.addons.base import Addon

ADDONS: tuple[Addon, ...] = (
    *(capacity.ADDON, dns.ADDON, s3.ADDON, postgres.ADDON, volumes.ADDON, metrics.ADDON),
    istio.ADDON,
)

__all__ = ["ADDONS", "Addon"]
