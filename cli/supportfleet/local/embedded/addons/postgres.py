"""PostgreSQL, of the distribution, with one database."""

import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supportfleet.errors import ClusterError
from supportfleet.local.embedded import files
from supportfleet.local.embedded.addons.base import LOCAL_NAMESPACE, Addon, Port, external_service, namespace, secret
from supportfleet.local.embedded.addons.credentials import kept_in, path_in
from supportfleet.local.embedded.api import Manifest
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.daemons import Daemon
from supportfleet.local.embedded.host import mounts, run
from supportfleet.local.embedded.layout import CLUSTER_DOMAIN

NAME = "postgres"
PORT = 5432
USER = DATABASE = "supportfleet"
SECRET = "postgres-credentials"  # noqa: S105 - a name
INSTALLED = Path("/usr/lib/postgresql")
INITDB_SECONDS = 120

# PostgreSQL refuses to be root.
AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--")
SETTINGS = {
    "shared_buffers": "32MB",
    "max_connections": "200",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "dynamic_shared_memory_type": "posix",
}


def programs() -> Path:
    """Where the newest installed PostgreSQL has its programs."""
    found = [path for path in INSTALLED.glob("*/bin") if (path / "initdb").exists() and path.parent.name.isdecimal()]
    if not found:
        raise ClusterError("PostgreSQL is not installed", remedy="Run supportfleet local prepare.")
    return max(found, key=lambda path: int(path.parent.name))


async def prepare(context: Context) -> None:
    """Start PostgreSQL, with its data made first."""
    binaries = programs()
    place = await _reachable_folder(context)
    data = place / binaries.parent.name
    if context.daemons.find(NAME) is None:
        # What an interrupted run has left at work, or a killed server.
        await context.daemons.kill_children(NAME)
        # The number in this file may be another's by now.
        (data / "postmaster.pid").unlink(missing_ok=True)
    if not data.exists():
        with context.progress.step("PostgreSQL data", expected=3, lane=NAME):
            await _initialise(context, binaries, data)
    settings = {**SETTINGS, "listen_addresses": str(context.addresses.control), "port": str(PORT)}
    if context.fast:
        settings["fsync"] = "off"
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    command = (*AS_POSTGRES, str(binaries / "postgres"), "-D", str(data), *options)
    await context.daemons.ensure(
        # Asked by SIGTERM it would wait until every client has gone.
        Daemon(NAME, command, context.layout.control_namespace, ends_on=signal.SIGINT)
    )


async def _reachable_folder(context: Context) -> Path:
    """The folder of the data, at a path that the user postgres may walk: the state folder is in root's home."""
    source, target = context.layout.folder / "postgres", context.layout.run / "postgres"
    for folder in (source, target):
        folder.mkdir(exist_ok=True, mode=0o700)
    shutil.chown(source, "postgres", "postgres")
    if target not in {mount.path for mount in mounts()}:
        await run("mount", "--bind", source, target)
    return target


async def _initialise(context: Context, binaries: Path, data: Path) -> None:
    """Make the data beside its place, and put it there when it is whole."""
    unfinished = data.with_name(f"{data.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    locale = ("--locale=C.UTF-8", "--encoding=UTF8", "--auth=scram-sha-256", *(("--no-sync",) if context.fast else ()))
    password = unfinished.with_name("password")
    files.write(password, kept_in(context.layout.folder).postgres_password)
    shutil.chown(password, "postgres", "postgres")
    initdb = (binaries / "initdb", "-D", unfinished, *locale, "--username=postgres", f"--pwfile={password}")
    await context.daemons.run(NAME, *AS_POSTGRES, *initdb, seconds=INITDB_SECONDS)
    password.unlink()
    with (unfinished / "pg_hba.conf").open("a") as file:
        file.write("host all all 0.0.0.0/0 scram-sha-256\n")
    await context.daemons.run(
        *(NAME, *AS_POSTGRES, binaries / "postgres", "--single", "-D", unfinished, "postgres"),
        stdin=f"CREATE ROLE {USER} LOGIN PASSWORD '{kept_in(context.layout.folder).postgres_password}';\n"
        f"CREATE DATABASE {DATABASE} OWNER {USER};\n",
        seconds=INITDB_SECONDS,
    )
    unfinished.rename(data)


def manifests(context: Context) -> Sequence[Manifest]:
    """The Service, and how to sign in."""
    host = f"postgres.{LOCAL_NAMESPACE}.svc.{CLUSTER_DOMAIN}"
    url = f"postgresql://{USER}:{kept_in(context.layout.folder).postgres_password}@{host}:{PORT}/{DATABASE}"
    return [
        namespace(LOCAL_NAMESPACE),
        *external_service(context, "postgres", LOCAL_NAMESPACE, [Port("postgres", PORT)]),
        *(secret(SECRET, where, {"DATABASE_URL": url}) for where in (LOCAL_NAMESPACE, "default")),
    ]


def facts(context: Context) -> Mapping[str, Any]:
    """Where this machine reaches it."""
    where = {"host": str(context.addresses.control), "port": PORT, "database": DATABASE, "user": USER}
    return {"postgres": {**where, "credentials": str(path_in(context.layout.folder))}}


ADDON = Addon("postgres", manifests, prepare=prepare, facts=facts)
