"""Bringing a cluster up: what is started, in which order, and what waits for what.

Everything here can be run again: what is there and as it should be is left alone; what is missing, has ended or is to
be different is made or started. So an interrupted `up` is resumed, and a damaged cluster is healed, by `up`.
"""

import asyncio

from supportfleet.local.embedded import controlplane, files, logs, namespaces, nodes, teardown
from supportfleet.local.embedded.addons import ADDONS, Addon
from supportfleet.local.embedded.api import Api, connect
from supportfleet.local.embedded.context import Context, together
from supportfleet.local.embedded.daemons import Daemon

# What is started side by side has lanes of its own in the estimate of what is left.
LANE = "cluster"
API_SECONDS = 120
ADDON_SECONDS = 120


async def lay_ground(context: Context) -> None:
    """Folders, cgroups and namespaces: what everything runs in. From then on the cluster's addresses are taken."""
    with context.progress.step("network", expected=1, lane=LANE):
        _make_folders(context)
        await _make_network(context)


async def up(context: Context) -> None:
    """Have everything running and ready, on the ground that was laid."""
    pki = context.identities.control_plane()
    admin = context.identities.admin()
    serving = asyncio.Event()
    async with connect(context.identities.server, pki.authority.certificate, admin) as api:
        await together(
            context.daemons.ensure(logs.rotation(context.layout)),
            _start_control_plane(context, api, pki, serving),
            *(_start_addon(context, api, addon, serving) for addon in ADDONS if addon.wanted(context)),
            *(nodes.start(context, number) for number in context.node_numbers),
        )
        await _remove_surplus(context, api)
        if context.record.nodes:
            await nodes.wait_ready(context, api)
    context.daemons.require(context.daemons.names())


async def _remove_surplus(context: Context, api: Api) -> None:
    """Remove what the cluster is no longer to have."""
    await context.daemons.stop_unwanted()
    wanted = {context.layout.node(number).name for number in context.node_numbers}
    surplus = [number for number in context.layout.node_numbers() if number not in context.node_numbers]
    for number in surplus:
        scope = teardown.Scope.of_node(context.layout.node(number))
        await teardown.remove(scope, context.daemons.cgroups)
    for node in await nodes.listed(api):
        name = node["metadata"]["name"]
        if name not in wanted and name.startswith(context.layout.node_prefix):
            await api.delete(f"/api/v1/nodes/{name}")


def _make_folders(context: Context) -> None:
    """What the processes write into."""
    layout = context.layout
    for folder in (layout.folder, layout.logs, layout.audit_log.parent, layout.etc, layout.pki):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    layout.run.mkdir(parents=True, exist_ok=True, mode=0o755)
    layout.daemons.mkdir(exist_ok=True, mode=0o700)
    # `down` finds the folder from here, whichever state folder it is told.
    link = layout.run / "state"
    link.unlink(missing_ok=True)
    link.symlink_to(layout.folder)
    context.daemons.cgroups.make(layout.cgroup)


async def _make_network(context: Context) -> None:
    """Namespaces and what joins them."""
    await namespaces.ensure_control(context.layout, context.addresses, context.node_numbers)
    await together(*(namespaces.ensure_node(context.layout.node(n), context.addresses) for n in context.node_numbers))


async def _start_control_plane(context: Context, api: Api, pki: controlplane.Pki, serving: asyncio.Event) -> None:
    await _start_api(context, api, pki)
    serving.set()
    await _start_controllers(context, pki)


async def _start_api(context: Context, api: Api, pki: controlplane.Pki) -> None:
    layout, programs, daemons = context.layout, context.programs, context.daemons
    audit_policy = layout.etc / "audit-policy.yaml"
    files.write(audit_policy, files.to_yaml(dict(controlplane.AUDIT_POLICY)))
    with context.progress.step("API server", expected=8, lane=LANE):
        await daemons.ensure(controlplane.etcd(layout, programs["etcd"], fsync=not context.fast))
        apiserver = controlplane.apiserver(layout, context.addresses, programs["kube-apiserver"], pki, audit_policy)
        await daemons.ensure(apiserver)
        await daemons.wait(("etcd", apiserver.name), api.ready, "the API server", seconds=API_SECONDS)


async def _start_controllers(context: Context, pki: controlplane.Pki) -> None:
    identities, layout, programs = context.identities, context.layout, context.programs
    manager, scheduler = (
        identities.client(name, f"system:{name}") for name in ("kube-controller-manager", "kube-scheduler")
    )
    wanted: list[Daemon] = [
        controlplane.controller_manager(layout, programs["kube-controller-manager"], pki, manager),
        controlplane.scheduler(layout, programs["kube-scheduler"], scheduler),
    ]
    await together(*(context.daemons.ensure(daemon) for daemon in wanted))


async def _start_addon(context: Context, api: Api, addon: Addon, serving: asyncio.Event) -> None:
    await addon.prepare(context)
    await serving.wait()
    # What its processes may do is among the objects.
    for manifest in addon.manifests(context):
        await api.apply(manifest)
    daemons = addon.daemons(context)
    for daemon in daemons:
        await context.daemons.ensure(daemon)
    names = [daemon.name for daemon in daemons]
    await context.daemons.wait(names, lambda: addon.ready(context, api), addon.name, seconds=ADDON_SECONDS)
