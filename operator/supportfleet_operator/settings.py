"""How the operator is told what to do: flags, each with an environment variable, all checked before it starts."""

from __future__ import annotations

import argparse
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supportfleet_operator.errors import SettingsError

DEFAULT_NAMESPACE: Final = "supportfleet-system"
LEASE: Final = "supportfleet-operator"
NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LEVELS: Final = ("debug", "info", "warning", "error")
MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run of the operator."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty for all."""
    workers: int = 8
    kubeconfig: Path | None = None
    listen: tuple[str, int] = ("0.0.0.0", 8080)  # noqa: S104 - probes and Prometheus come from outside the pod
    qps: float = 200.0
    burst: float = 400.0
    log_level: str = "info"
    leader_election: bool = True
    lease_namespace: str = DEFAULT_NAMESPACE
    identity: str = "supportfleet-operator"


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line; defaults come from the environment."""
    top = argparse.ArgumentParser(prog="supportfleet-operator", description="Reconciles SupportAgent resources.")
    run = top.add_subparsers(dest="command", required=True).add_parser("run", help="run until told to stop")

    def option(flag: str, variable: str, default: str, text: str) -> None:
        run.add_argument(flag, default=environ.get(variable, default), help=f"{text} (${variable})")

    run.add_argument(
        *("-n", "--namespace"),
        action="append",
        dest="namespaces",
        metavar="NAMESPACE",
        help="serve this namespace only; may be repeated; all by default ($OPERATOR_NAMESPACES, comma-separated)",
    )
    run.set_defaults(from_environment=[one for one in environ.get("OPERATOR_NAMESPACES", "").split(",") if one])
    option("--workers", "OPERATOR_WORKERS", "8", "agents reconciled at the same time")
    option("--kubeconfig", "KUBECONFIG", "", "kubeconfig; the pod's service account by default")
    option("--listen", "OPERATOR_LISTEN", "0.0.0.0:8080", "address of /metrics, /healthz and /readyz")
    option("--api-qps", "OPERATOR_API_QPS", "200", "requests per second to the API server")
    option("--api-burst", "OPERATOR_API_BURST", "400", "requests that may come at once")
    option("--log-level", "LOG_LEVEL", "info", f"one of {', '.join(LEVELS)}")
    option("--lease-namespace", "OPERATOR_LEASE_NAMESPACE", own_namespace(), "namespace of the leader's Lease")
    run.add_argument(
        "--no-leader-election", action="store_true", help="lead at once; only for a single replica outside a cluster"
    )
    return top


def own_namespace() -> str:
    """The namespace of the pod, or the default one."""
    return NAMESPACE_FILE.read_text(encoding="utf-8").strip() if NAMESPACE_FILE.exists() else DEFAULT_NAMESPACE


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from the command line and the environment; everything that is wrong is said at once."""
    flags = parser(environ).parse_args(arguments)
    wrong: list[str] = []

    def number(flag: str, text: str, least: float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if value < least:
            wrong.append(f"{flag} must be a number of at least {least:g}, not {text!r}")
        return value

    workers = number("--workers", flags.workers, 1)
    qps = number("--api-qps", flags.api_qps, 1)
    burst = number("--api-burst", flags.api_burst, 1)
    host, _, port = str(flags.listen).rpartition(":")
    if not port.isdigit() or int(port) > MAX_PORT:
        wrong.append(f"--listen must be ADDRESS:PORT, not {flags.listen!r}")
    level = str(flags.log_level).lower()
    if level not in LEVELS:
        wrong.append(f"--log-level must be one of {', '.join(LEVELS)}, not {flags.log_level!r}")
    if wrong:
        raise SettingsError("; ".join(wrong))
    return Settings(
        namespaces=tuple(dict.fromkeys(flags.namespaces or flags.from_environment)),
        workers=int(workers),
        kubeconfig=Path(flags.kubeconfig) if flags.kubeconfig else None,
        listen=(host or "0.0.0.0", int(port)),  # noqa: S104 - as in Settings
        qps=qps,
        burst=burst,
        log_level=level,
        leader_election=not flags.no_leader_election,
        lease_namespace=flags.lease_namespace,
        identity=identity(environ),
    )


def identity(environ: Mapping[str, str]) -> str:
    """Who this replica is: its pod, whose name no other has, or something as unique outside a cluster."""
    return environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
