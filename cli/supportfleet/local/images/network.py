"""How a build reaches the package index from here: the host's CA bundle, proxies, indexes and folders of wheels.

All of it reaches the build as secrets and mounts, never as build arguments: those would stay in the image's history,
and an index's address may carry a password.
"""

import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Where the Dockerfiles mount what they are given.
CA_CERTIFICATES = "/run/secrets/ca-certificates"
FIND_LINKS = "/run/find-links"

_SYSTEM_BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
_BUNDLE_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = frozenset({"all_proxy", "http_proxy", "https_proxy", "no_proxy"})
# What pip and uv are told of where packages come from; their other settings (targets, caches) are the build's own.
_INSTALLER = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|NO_INDEX|TRUSTED_HOST|TIMEOUT|DEFAULT_TIMEOUT|RETRIES|PROXY)"
    r"|UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|NO_INDEX|INDEX_STRATEGY|INSECURE_HOST|HTTP_\w+"
    r"|CONCURRENT_DOWNLOADS|INDEX_\w+_(USERNAME|PASSWORD))"
)
_INDEX_NAME = re.compile(r"^[\w.-]+=")


@dataclass(frozen=True)
class Network:
    """What a build must know of the network it runs in."""

    environment: Mapping[str, str]
    ca_certificates: Path | None
    wheel_folders: tuple[Path, ...]

    def script(self) -> str:
        """The secret `build-environment`: lines that the build's shell reads."""
        environment = dict(self.environment)
        if self.ca_certificates:
            environment |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT"), CA_CERTIFICATES)
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(environment.items()))

    def stage(self, given: Path, wheels: Path) -> None:
        """Write the secrets into one folder, and gather the wheels of the host's folders in another."""
        (given / "build-environment").write_text(self.script())
        if self.ca_certificates:
            shutil.copyfile(self.ca_certificates, given / "ca-certificates")
        for source in reversed(self.wheel_folders):  # the first folder wins, as it does for pip
            for wheel in source.glob("*.whl"):
                shutil.copyfile(wheel, wheels / wheel.name)


def of(environ: Mapping[str, str], *, system_bundles: Iterable[Path] = _SYSTEM_BUNDLES) -> Network:
    """The network settings in an environment."""
    environment = {
        name: value
        for name, value in environ.items()
        if value and (name.lower() in _PROXIES or _INSTALLER.fullmatch(name))
    }
    folders, addresses = _find_links(environ)
    if folders:
        addresses.append(FIND_LINKS)
    if addresses:
        environment |= {"PIP_FIND_LINKS": " ".join(addresses), "UV_FIND_LINKS": ",".join(addresses)}
    given = (Path(environ[name]) for name in _BUNDLE_VARIABLES if environ.get(name))
    bundle = next((path for path in (*given, *system_bundles) if path.is_file()), None)
    return Network(_same_indexes(environment), bundle, folders)


def _same_indexes(environment: Mapping[str, str]) -> dict[str, str]:
    """Let pip and uv use the same indexes, though each reads variables of its own and users often set one kind."""
    same = dict(environment)
    if index := same.get("UV_DEFAULT_INDEX") or same.get("UV_INDEX_URL"):
        same.setdefault("PIP_INDEX_URL", _INDEX_NAME.sub("", index))
    elif index := same.get("PIP_INDEX_URL"):
        same["UV_DEFAULT_INDEX"] = index
    extra = same.get("PIP_EXTRA_INDEX_URL")
    if extra and not same.keys() & {"UV_INDEX", "UV_EXTRA_INDEX_URL"}:
        same["UV_EXTRA_INDEX_URL"] = extra
        # Take any index that has the pinned version, as pip does; a file with another hash is refused all the same.
        same.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return same


def _find_links(environ: Mapping[str, str]) -> tuple[tuple[Path, ...], list[str]]:
    """The existing folders, and the addresses, that pip or uv are told to look for wheels in."""
    links = [*environ.get("PIP_FIND_LINKS", "").split(), *filter(None, environ.get("UV_FIND_LINKS", "").split(","))]
    addresses = [link for link in dict.fromkeys(links) if "://" in link]
    paths = (Path(link).expanduser() for link in dict.fromkeys(links) if "://" not in link)
    return tuple(path for path in paths if path.is_dir()), addresses
