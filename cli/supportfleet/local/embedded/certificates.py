"""The cluster's certificate authorities, and a certificate for each program that speaks to another.

Who a program is to the API server is the subject of its certificate: the name is the user, organisations are groups.
"""

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from supportfleet.local.embedded import files

AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(minutes=5)

MASTERS = "system:masters"
PUBLIC = 0o644


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    @property
    def files(self) -> tuple[Path, Path]:
        """Both."""
        return (self.certificate, self.key)

    @property
    def identity(self) -> dict[str, str]:
        """As a kubeconfig's user."""
        return {"client-certificate-data": base64_of(self.certificate), "client-key-data": base64_of(self.key)}


@dataclass(frozen=True)
class Subject:
    """What a certificate says."""

    name: str
    organizations: tuple[str, ...] = ()
    # Names and addresses it serves under; without any it is a client's only.
    hosts: tuple[str | IPv4Address, ...] = ()

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "Subject":
        """Read from a certificate."""
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        try:
            served = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            served = x509.SubjectAlternativeName([])
        return cls(
            str(names[0].value),
            tuple(str(organization.value) for organization in organizations),
            tuple(host.value for host in served),
        )

    @property
    def x509_name(self) -> x509.Name:
        """As a distinguished name."""
        organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in self.organizations]
        return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, self.name)])


class Authority:
    """A certificate authority in a folder, made when it is first asked for."""

    def __init__(self, folder: Path, name: str, now: datetime) -> None:
        self.name = name
        self.folder = folder
        self.now = now

    @property
    def pair(self) -> Pair:
        """The authority's own files."""
        self._own  # noqa: B018 - have them made
        return self._files

    def issue(self, label: str, subject: Subject, folder: Path | None = None) -> Pair:
        """A certificate for the subject: the one there is while it is valid and says the same, else a new one."""
        pair = Pair(*((folder or self.folder) / f"{label}.{kind}" for kind in ("crt", "key")))
        if not self._is_good(pair, subject):
            key = ec.generate_private_key(ec.SECP256R1())
            _store(pair, key, self._certificate(subject, key.public_key()))
        return pair

    @property
    def _files(self) -> Pair:
        return Pair(self.folder / f"{self.name}.crt", self.folder / f"{self.name}.key")

    @cached_property
    def _own(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """The authority's key and certificate."""
        found = _load(self._files)
        if found is None:
            key = ec.generate_private_key(ec.SECP256R1())
            found = (key, _self_signed(f"supportfleet {self.name}", key, self.now))
            _store(self._files, *found)
        return found

    def _is_good(self, pair: Pair, subject: Subject) -> bool:
        found = _load(pair)
        if found is None:
            return False
        certificate = found[1]
        try:
            certificate.verify_directly_issued_by(self._own[1])
        except (InvalidSignature, ValueError):
            return False
        return Subject.of(certificate) == subject and certificate.not_valid_after_utc > self.now + RENEW_BEFORE

    def _certificate(self, subject: Subject, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(subject.x509_name, self._own[1].subject, key, self.now, LIFETIME)
        # Strict verifiers (Python 3.13's default) want to be told which key has signed.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._own[0].public_key())
        builder = builder.add_extension(issuer, critical=False)
        if subject.hosts:
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
            hosts = [x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host) for host in subject.hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        return builder.sign(self._own[0], hashes.SHA256())


def signing_key(folder: Path, label: str) -> Pair:
    """A key pair that signs service account tokens. RSA: every consumer of such tokens can verify it."""
    pair = Pair(folder / f"{label}.pub", folder / f"{label}.key")
    if not (pair.certificate.exists() and pair.key.exists()):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        files.write(pair.key, _pem(key))
        files.write(pair.certificate, public, PUBLIC)
    return pair


def kubeconfig(server: str, authority: Path, identity: dict[str, str], *, cluster: str, user: str) -> str:
    """A kubeconfig with everything in it, so that it can be moved."""
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": cluster, "cluster": {"server": server, "certificate-authority-data": base64_of(authority)}}
        ],
        "users": [{"name": user, "user": identity}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    }
    return files.to_yaml(document)


def base64_of(path: Path) -> str:
    """A file's content in base64."""
    return base64.b64encode(path.read_bytes()).decode()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _self_signed(name: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    subject = Subject(name).x509_name
    return (
        _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load(pair: Pair) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
    """A key and the certificate for it; None where either is missing, damaged, or not of the other."""
    try:
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return key, certificate


def _store(pair: Pair, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    files.write(pair.key, _pem(key))
    files.write(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM), PUBLIC)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
