"""Errors of the command line: one tree, turned into messages and exit codes in __main__ only.

Every part has its own branch below SupportfleetError (ClusterError here, for the local cluster; CacheError, PinsError …
beside what raises them).
"""


class SupportfleetError(Exception):
    """Something that went wrong, said in one sentence, with what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class ClusterError(SupportfleetError):
    """The local cluster can't do what was asked for."""


class NotRootError(ClusterError):
    """Namespaces, mounts and cgroups need root."""


class NoClusterError(ClusterError):
    """No cluster has this name."""


class UnknownComponentError(ClusterError):
    """The cluster has no part of this name."""


class AddressClashError(ClusterError):
    """The addresses a cluster needs are in use on this machine."""


class CommandError(ClusterError):
    """A program that the local cluster runs failed or took too long."""


class DaemonError(ClusterError):
    """A process of the cluster ended, or did not get ready in time."""


class KubernetesError(ClusterError):
    """The cluster's API server refused a request."""
