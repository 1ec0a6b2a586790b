"""QUEUE_TYPE and QUEUE_URL: which broker, and where.

Pure: nothing is opened. No message repeats an address, which may hold a password.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from supportfleet_runtime.errors import Problem

PARTITIONS: Final = 12
MOST_PARTITIONS: Final = 1000
SASL: Final = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
PARAMETERS: Final = MappingProxyType(
    {"kafka": frozenset({"sasl", "partitions", "replicas"}), "sqs": frozenset({"endpoint"})}
)


class QueueType(StrEnum):
    """What carries tasks to workers."""

    SQL = "sql"
    REDIS = "redis"
    RABBITMQ = "rabbitmq"
    KAFKA = "kafka"
    SQS = "sqs"


SCHEMES: Final[Mapping[QueueType, tuple[str, ...]]] = MappingProxyType(
    {
        QueueType.REDIS: ("redis", "rediss", "unix"),
        QueueType.RABBITMQ: ("amqp", "amqps"),
        QueueType.KAFKA: ("kafka", "kafka+ssl"),
        QueueType.SQS: ("sqs",),
    }
)
EXAMPLES: Final[Mapping[QueueType, str]] = MappingProxyType(
    {
        QueueType.REDIS: "redis://HOST:6379/0",
        QueueType.RABBITMQ: "amqp://USER:PASSWORD@HOST:5672/VHOST",
        QueueType.KAFKA: "kafka://HOST:9092,HOST:9092",
        QueueType.SQS: "sqs://REGION",
    }
)


@dataclass(frozen=True)
class QueueAddress:
    """A broker's kind and its address, which may hold a password."""

    type: QueueType
    url: str = field(default="", repr=False)


@dataclass(frozen=True)
class KafkaAddress:
    """What a ``kafka://`` address says. ``security`` is in aiokafka's words."""

    servers: str
    security: Mapping[str, str] = field(repr=False)
    partitions: int
    replicas: int | None


@dataclass(frozen=True)
class SqsAddress:
    """What an ``sqs://`` address says. Without an endpoint it is Amazon's own."""

    region: str
    endpoint: str | None


def queue_address(kind: str, url: str | None) -> QueueAddress:
    """Understand QUEUE_TYPE and QUEUE_URL; a ``ValueError`` says what is wrong without repeating it."""
    chosen = QueueType(kind)
    if chosen is QueueType.SQL:
        if url:
            raise ValueError("with QUEUE_TYPE=sql the queue is where DATABASE_URL says")
        return QueueAddress(chosen)
    if not url:
        raise ValueError(f"QUEUE_TYPE={kind} needs it and it is not set")
    parts = _split(url)
    if parts.scheme not in SCHEMES[chosen]:
        raise ValueError(f"QUEUE_TYPE={kind} takes an address that begins with {' or '.join(SCHEMES[chosen])}://")
    if chosen is QueueType.KAFKA:
        kafka_address(url)
    elif chosen is QueueType.SQS:
        sqs_address(url)
    elif parts.scheme != "unix" and not parts.hostname:
        raise ValueError("it names no host")
    return QueueAddress(chosen, url.strip())


def queue_problems(kind: str, url: str | None) -> Iterator[Problem]:
    """What is wrong with QUEUE_URL, as configuration is told."""
    try:
        queue_address(kind, url)
    except ValueError as error:
        chosen = QueueType(kind)
        remedy = f"set it to {EXAMPLES[chosen]}" if chosen in EXAMPLES else "unset it, or set QUEUE_TYPE"
        yield Problem("QUEUE_URL", str(error), remedy)


def kafka_address(url: str) -> KafkaAddress:
    """``kafka[+ssl]://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][?sasl=…&partitions=…&replicas=…]``."""
    parts = _split(url)
    login, _, servers = parts.netloc.rpartition("@")
    if not re.fullmatch(r"[^\s,:@]+:\d{1,5}(,[^\s,:@]+:\d{1,5})*", servers):
        raise ValueError("a Kafka address names one or more HOST:PORT, separated by commas")
    given = _parameters(parts, "kafka")
    transport = "SSL" if parts.scheme == "kafka+ssl" else "PLAINTEXT"
    security = {"security_protocol": transport}
    if login:
        mechanism = given.get("sasl", "SCRAM-SHA-512")
        if mechanism not in SASL:
            raise ValueError(f"its parameter sasl is none of {', '.join(sorted(SASL))}")
        user, _, password = login.partition(":")
        security = {
            "security_protocol": f"SASL_{transport}",
            "sasl_mechanism": mechanism,
            "sasl_plain_username": unquote(user),
            "sasl_plain_password": unquote(password),
        }
    partitions = _number(given.get("partitions", str(PARTITIONS)), "partitions", MOST_PARTITIONS)
    replicas = _number(given["replicas"], "replicas", 9) if "replicas" in given else None
    return KafkaAddress(servers, security, partitions, replicas)


def sqs_address(url: str) -> SqsAddress:
    """``sqs://REGION[?endpoint=https://…]``."""
    parts = _split(url)
    if not re.fullmatch(r"[a-z0-9-]{1,32}", parts.netloc) or parts.path not in {"", "/"}:
        raise ValueError("an SQS address is sqs:// and a region")
    endpoint = _parameters(parts, "sqs").get("endpoint")
    if endpoint is not None and not re.match(r"https?://[^\s/]+", endpoint):
        raise ValueError("its parameter endpoint is no http:// or https:// address")
    return SqsAddress(parts.netloc, endpoint)


def broker_name(queue: str, limit: int = 76) -> str:
    """A queue's name as every broker takes it: letters, digits and hyphens. Two queues never get the same."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", queue).strip("-")
    mark = hashlib.sha256(queue.encode()).hexdigest()[:8]
    start = f"supportfleet-{plain}"[: limit - len(mark) - 1]
    return f"{start}-{mark}"


def _split(url: str) -> SplitResult:
    """The parts of an address. What ``urllib`` says of a wrong one would quote it."""
    try:
        parts = urlsplit(url.strip())
        if "," not in parts.netloc:  # Kafka's lists of servers are looked at elsewhere
            _ = parts.port
    except ValueError:
        raise ValueError("it is no address, or its port is none") from None
    return parts


def _parameters(parts: SplitResult, kind: str) -> dict[str, str]:
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = given.keys() - PARAMETERS[kind]
    if unknown:
        raise ValueError(f"it takes no parameter but {', '.join(sorted(PARAMETERS[kind]))}")
    return given


def _number(given: str, name: str, most: int) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(most)) and 1 <= int(given) <= most):
        raise ValueError(f"its parameter {name} is no whole number from 1 to {most}")
    return int(given)
