"""An S3 server over a folder, with the bucket for model artifacts."""

from collections.abc import Mapping, Sequence
from typing import Any

from supportfleet.local.embedded.addons.base import LOCAL_NAMESPACE, Addon, Port, external_service, namespace, secret
from supportfleet.local.embedded.addons.credentials import kept_in, path_in
from supportfleet.local.embedded.api import Manifest
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.daemons import Daemon

PORT = 9000
BUCKET = "models"
SECRET = "s3-credentials"  # noqa: S105 - a name


async def prepare(context: Context) -> None:
    """Start versitygw. A folder in its folder is a bucket."""
    folder = context.layout.folder / "s3"
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    known = kept_in(context.layout.folder)
    listen = f"{context.addresses.control}:{PORT}"
    command = (str(context.programs["versitygw"]), "--port", listen, "--quiet", "--health", "/health", "posix")
    environment = {"ROOT_ACCESS_KEY": known.s3_access_key, "ROOT_SECRET_KEY": known.s3_secret_key}
    daemon = Daemon("s3", (*command, str(folder)), context.layout.control_namespace, environment=environment)
    await context.daemons.ensure(daemon)


def manifests(context: Context) -> Sequence[Manifest]:
    """The Service, and how to sign in."""
    known = kept_in(context.layout.folder)
    values = {"AWS_ACCESS_KEY_ID": known.s3_access_key, "AWS_SECRET_ACCESS_KEY": known.s3_secret_key}
    return [
        namespace(LOCAL_NAMESPACE),
        *external_service(context, "s3", LOCAL_NAMESPACE, [Port("http", PORT)]),
        *(secret(SECRET, where, values) for where in (LOCAL_NAMESPACE, "default")),
    ]


def facts(context: Context) -> Mapping[str, Any]:
    """Where this machine reaches it."""
    endpoint = f"http://{context.addresses.control}:{PORT}"
    return {"s3": {"endpoint": endpoint, "bucket": BUCKET, "credentials": str(path_in(context.layout.folder))}}


ADDON = Addon("s3", manifests, prepare=prepare, facts=facts)
