from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.queue.settings import (
    QueueType,
    broker_name,
    kafka_address,
    queue_address,
    queue_problems,
    sqs_address,
)

RIGHT = [
    ("sql", None),
    ("redis", "redis://h:6379/0"),
    ("redis", "rediss://user:secret@h/1"),
    ("redis", "unix:///run/redis.sock"),
    ("rabbitmq", "amqp://user:secret@h:5672/vhost"),
    ("rabbitmq", "amqps://h"),
    ("kafka", "kafka://a:9092,b:9092"),
    ("kafka", "kafka+ssl://user:secret@a:9093?sasl=PLAIN&partitions=3&replicas=2"),
    ("sqs", "sqs://eu-central-1"),
    ("sqs", "sqs://us-east-1?endpoint=http://127.0.0.1:9324"),
]
WRONG = [
    ("sql", "redis://h"),
    ("redis", None),
    ("redis", ""),
    ("redis", "amqp://h:secret@x"),
    ("redis", "redis://"),
    ("redis", "redis://h:secret/0"),
    ("redis", "redis://[secret/0"),
    ("rabbitmq", "amqp://secret\u2100@h"),
    ("rabbitmq", "http://h:secret@x"),
    ("kafka", "kafka://secret"),
    ("kafka", "kafka://a:9092,secret"),
    ("kafka", "kafka://u:secret@a:9092?sasl=GSSAPI"),
    ("kafka", "kafka://a:9092?partitions=0"),
    ("kafka", "kafka://a:9092?partitions=secret"),
    ("kafka", "kafka://a:9092?replicas=10"),
    ("kafka", "kafka://a:9092?acks=secret"),
    ("sqs", "sqs://"),
    ("sqs", "sqs://eu-central-1/secret"),
    ("sqs", "sqs://eu-central-1?endpoint=secret"),
]


@pytest.mark.parametrize(("kind", "url"), RIGHT)
def test_right_addresses_are_taken(kind: str, url: str | None) -> None:
    """What the documentation shows is accepted, and an address is not shown where its object is."""
    assert list(queue_problems(kind, url)) == []
    address = queue_address(kind, url)
    assert address.type is QueueType(kind)
    assert "secret" not in repr(address)


@pytest.mark.parametrize(("kind", "url"), WRONG)
def test_wrong_addresses_are_told_with_a_remedy(kind: str, url: str | None) -> None:
    """What can't be used is a problem of QUEUE_URL that says what to set, and repeats nothing of the address."""
    (problem,) = queue_problems(kind, url)
    assert problem.name == "QUEUE_URL"
    assert problem.remedy
    assert "secret" not in str(problem)


def test_a_kafka_address_says_how_to_log_in() -> None:
    """User, password (percent-encoded), mechanism and transport become the client's settings."""
    address = kafka_address("kafka+ssl://us%40er:p%3Aw@a:9093,b:9093?sasl=SCRAM-SHA-256&partitions=24")
    assert address.servers == "a:9093,b:9093"
    assert address.security == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "us@er",
        "sasl_plain_password": "p:w",
    }
    assert (address.partitions, address.replicas) == (24, None)
    assert "p:w" not in repr(address)


def test_an_sqs_address_is_amazons_unless_told() -> None:
    """Only a parameter makes the endpoint another than Amazon's."""
    assert sqs_address("sqs://eu-central-1").endpoint is None
    assert sqs_address("sqs://eu-central-1?endpoint=https://x").endpoint == "https://x"


@given(st.text(min_size=1, max_size=200))
def test_every_broker_takes_a_name(queue: str) -> None:
    """Whatever a queue is called, its name in a broker has the characters and the length that all of them allow."""
    name = broker_name(queue)
    assert set(name) <= set(string.ascii_letters + string.digits + "-")
    assert 10 < len(name) <= 76


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_two_queues_have_two_names(one: str, other: str) -> None:
    """Queues whose names differ in anything differ in the broker."""
    assert (broker_name(one) == broker_name(other)) == (one == other)


@given(st.sampled_from(list(QueueType)), st.text(max_size=60))
def test_no_address_is_a_crash(kind: QueueType, url: str) -> None:
    """Any text is an address or a problem."""
    assert len(list(queue_problems(kind.value, url))) <= 1
