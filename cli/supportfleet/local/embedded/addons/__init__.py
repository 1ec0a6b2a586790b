"""What a cluster has besides Kubernetes itself. Each is one module with one Addon."""

from supportfleet.local.embedded.addons.base import Addon

ADDONS: tuple[Addon, ...] = ()

__all__ = ["ADDONS", "Addon"]
