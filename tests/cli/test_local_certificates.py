from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from supportfleet.local.embedded.certificates import Authority, Pair, Subject
from supportfleet.local.embedded.identities import Identities
from supportfleet.local.embedded.layout import Addresses, Layout

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SERVER = Subject("server", ("some:group",), ("server.test", IPv4Address("10.89.0.1")))


def read(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def test_a_certificate_says_what_was_asked_and_is_trusted(tmp_path: Path) -> None:
    """A server's certificate carries its subject and is verified by whoever trusts the authority."""
    authority = Authority(tmp_path, "ca", NOW)
    certificate = read(authority.issue("server", SERVER))
    assert Subject.of(certificate) == SERVER
    store = Store([x509.load_pem_x509_certificate(authority.pair.certificate.read_bytes())])
    verifier = PolicyBuilder().store(store).time(NOW).build_server_verifier(x509.DNSName("server.test"))
    assert verifier.verify(certificate, [])


def test_keys_are_private(tmp_path: Path) -> None:
    """Nobody else can read a key."""
    authority = Authority(tmp_path, "ca", NOW)
    pair = authority.issue("server", SERVER)
    assert {key.stat().st_mode & 0o777 for key in (pair.key, authority.pair.key)} == {0o600}


def test_a_good_certificate_is_kept(tmp_path: Path) -> None:
    """Asking again, also after a restart, gives the same certificate: nothing has to be restarted."""
    first = read(Authority(tmp_path, "ca", NOW).issue("server", SERVER))
    again = read(Authority(tmp_path, "ca", NOW + timedelta(days=300)).issue("server", SERVER))
    assert first == again


def test_a_certificate_is_renewed_before_it_expires(tmp_path: Path) -> None:
    """A cluster that is brought up after most of a year gets new certificates of the same authority."""
    first = read(Authority(tmp_path, "ca", NOW).issue("server", SERVER))
    later = read(Authority(tmp_path, "ca", NOW + timedelta(days=340)).issue("server", SERVER))
    assert later.not_valid_after_utc > first.not_valid_after_utc
    assert later.issuer == first.issuer


@pytest.mark.parametrize("subject", [Subject("other"), Subject("server", hosts=("server.test",))])
def test_a_changed_subject_is_another_certificate(tmp_path: Path, subject: Subject) -> None:
    """A certificate for other names is not passed off as the one that is asked for."""
    authority = Authority(tmp_path, "ca", NOW)
    authority.issue("server", subject)
    assert Subject.of(read(authority.issue("server", SERVER))) == SERVER


@pytest.mark.parametrize("damage", ["certificate", "key", "other key", "no key"])
def test_a_damaged_pair_is_replaced(tmp_path: Path, damage: str) -> None:
    """What an interrupted run left (half a file, a key of another certificate) does not stop the next."""
    authority = Authority(tmp_path, "ca", NOW)
    pair = authority.issue("server", SERVER)
    if damage == "certificate":
        pair.certificate.write_bytes(pair.certificate.read_bytes()[:100])
    elif damage == "key":
        pair.key.write_bytes(b"")
    elif damage == "other key":
        pair.key.write_bytes(authority.issue("other", Subject("other")).key.read_bytes())
    else:
        pair.key.unlink()
    renewed = authority.issue("server", SERVER)
    key = load_pem_private_key(renewed.key.read_bytes(), None)
    assert key.public_key() == read(renewed).public_key()


def test_another_authority_is_not_trusted(tmp_path: Path) -> None:
    """When the authority was made anew, what the old one issued is issued again."""
    Authority(tmp_path, "ca", NOW).issue("server", SERVER)
    for file in ("ca.crt", "ca.key"):
        (tmp_path / file).unlink()
    authority = Authority(tmp_path, "ca", NOW)
    renewed = read(authority.issue("server", SERVER))
    renewed.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pair.certificate.read_bytes()))


def test_everyone_is_who_rbac_expects(tmp_path: Path) -> None:
    """Kubelets are in system:nodes under their node's name; the API server answers to its Service and its address."""
    layout, addresses = Layout("demo", tmp_path), Addresses(0)
    identities = Identities(layout, addresses, NOW)
    identities.node(layout.node(1))
    kubelet = yaml.safe_load((layout.node(1).etc / "kubelet.kubeconfig").read_text())
    certificate = x509.load_pem_x509_certificate(
        base64.b64decode(kubelet["users"][0]["user"]["client-certificate-data"])
    )
    subject = Subject.of(certificate)
    assert (subject.name, subject.organizations) == ("system:node:demo-node1", ("system:nodes",))
    assert addresses.node(1) in subject.hosts
    served = Subject.of(read(identities.control_plane().apiserver)).hosts
    assert {"kubernetes.default.svc", addresses.control, addresses.api_service} <= set(served)


def test_the_kubeconfig_for_people_is_complete(tmp_path: Path) -> None:
    """The kubeconfig holds its certificates itself, so that it can be copied elsewhere, and nobody else reads it."""
    layout = Layout("demo", tmp_path)
    Identities(layout, Addresses(2), NOW).admin()
    config = yaml.safe_load(layout.kubeconfig.read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://10.89.2.1:6443"
    assert config["current-context"] == "supportfleet-demo"
    assert set(config["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
    assert layout.kubeconfig.stat().st_mode & 0o777 == 0o600
