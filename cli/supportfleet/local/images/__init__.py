"""Images without a registry: the project's own, and the two that every embedded cluster needs.

========  ======================================================================================
operator  ``Dockerfile.operator``: the operator
agent     ``Dockerfile.agent``: the runtime of every agent pod
base      Debian with Python, a shell and coreutils: what those two stand on, and helper pods run
pause     a static program that holds a pod's namespaces open: containerd's sandbox image
========  ======================================================================================

Each becomes a ``docker save`` archive in the cache, for a node or kind to import. `builds` says when one is made anew;
`sources` what it is made of; `engines` and `debian` make it.
"""

from supportfleet.local.images.builds import NAMES, PACKAGES, archive_of, build, reference
from supportfleet.local.images.sources import ImageError

__all__ = ["NAMES", "PACKAGES", "ImageError", "archive_of", "build", "reference"]
