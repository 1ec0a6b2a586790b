"""``supportfleet plan`` and ``supportfleet set``: what a change would do, and the smallest ones themselves."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, Literal

import click

from supportfleet.errors import SupportfleetError
from supportfleet.rollouts.api import BAD_REQUEST, FIELD_MANAGER, INVALID, NOT_FOUND, Api, ApiError, Object, read_yaml
from supportfleet.rollouts.changes import image_change, kept, model_change, patch_text, warning
from supportfleet.rollouts.dryrun import dry_run
from supportfleet.rollouts.options import Target, agent_argument, run, target_options
from supportfleet.rollouts.plan import Change, Plan, differences, refused
from supportfleet.rollouts.plan import plan as planned
from supportfleet.rollouts.text import plan_text, shown
from supportfleet.rollouts.tree import console
from supportfleet.rollouts.watching import NoAgentError, Scope, agent_of, fact_of

UNTYPED: Final = "failed to create typed patch object"
CHANGES_EXIT: Final = 1
ERROR_EXIT: Final = 2
"""As ``kubectl diff`` does, 1 says that there is a difference, so an error has to be something else."""


@contextlib.contextmanager
def _errors_exit(code: int) -> Iterator[None]:
    try:
        yield
    except SupportfleetError as error:
        error.exit_code = code
        raise


@click.command()
@click.option(
    "-f", "--filename", "file", type=click.File(), required=True, help="The edited YAML; - for standard input."
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@target_options
def plan(file: IO[str], output: Literal["text", "json"], target: Target) -> None:
    """Say what an edited YAML would change, before it is applied. Nothing is changed.

    Exit code 0: nothing. 1: something. 2: it is refused, or can't be told.
    """
    with _errors_exit(ERROR_EXIT):
        plans = run(_plans(file, target))
    if output == "json":
        click.echo(json.dumps({"items": [one.to_json() for one in plans]}, indent=2))
    else:
        out = console()
        for one in plans:
            for line in plan_text(one):
                out.print(line)
    sys.exit(_exit_code(plans))


def _exit_code(plans: list[Plan]) -> int:
    verbs = {one.verb for one in plans}
    return ERROR_EXIT if "refused" in verbs else CHANGES_EXIT if verbs - {"none"} else 0


async def _plans(file: IO[str], target: Target) -> list[Plan]:
    name = getattr(file, "name", "standard input")
    objects = read_yaml(file.read(), name)
    agents = [one for one in objects if one.get("kind") == "SupportAgent"]
    if not agents:
        raise SupportfleetError(f"{name} has no SupportAgent in it")
    others = sorted({str(one.get("kind")) for one in objects} - {"SupportAgent"})
    notes = (f"only SupportAgents are looked at, and not {', '.join(others)}",) if others else ()
    async with target.api() as api:
        return [await _plan(api, target, one, notes) for one in agents]


async def _plan(api: Api, target: Target, wanted: Object, notes: tuple[str, ...]) -> Plan:
    scope = _scope(target, wanted)
    wanted = {**wanted, "metadata": {**wanted["metadata"], "namespace": scope.namespace}}
    try:
        before = await fact_of(api, scope)
    except NoAgentError:
        before = None
    try:
        after, more = await dry_run(api, scope, wanted, before.agent if before else None)
    except ApiError as error:
        if error.code == NOT_FOUND:  # the agent may be missing, but then it would be created: its kind or namespace is
            error.remedy = f"Is there a namespace {scope.namespace!r}?"
            raise
        if not _is_refusal(error):
            raise
        return refused(str(scope.name), str(scope.namespace), error.message, error.causes)
    return planned(before, after, (*notes, *more))


def _is_refusal(error: ApiError) -> bool:
    """Whether the object is at fault: it breaks a rule, or has fields that there are not.

    To server-side apply of an unknown field the API server answers with an error of its own.
    """
    return error.code in {BAD_REQUEST, INVALID} or UNTYPED in error.message


def _scope(target: Target, wanted: Object) -> Scope:
    meta = wanted.get("metadata") or {}
    name, namespace = meta.get("name"), meta.get("namespace")
    if not name:
        raise SupportfleetError("a SupportAgent has no metadata.name")
    if namespace and target.namespace and namespace != target.namespace:
        raise SupportfleetError(f"{name} is of namespace {namespace!r} in the file, and --namespace is another one")
    return target.scope(name, namespace)


@click.group("set")
def set_() -> None:
    """Change the image or the model of an agent: a new revision, rolled out as the agent says."""


patch_option = click.option(
    "--patch", is_flag=True, help="Print the change as YAML, for Git, and leave the cluster as it is."
)


@set_.command()
@agent_argument
@click.argument("image")
@patch_option
@target_options
def image(name: str, image: str, patch: bool, target: Target) -> None:  # noqa: FBT001 - click passes flags by name
    """Have the agent NAME run IMAGE."""
    run(_set(target, target.scope(name), ("template", "image"), lambda _: image_change(image), only_print=patch))


@set_.command()
@agent_argument
@click.argument("version", metavar="VERSION@DIGEST")
@patch_option
@target_options
def model(name: str, version: str, patch: bool, target: Target) -> None:  # noqa: FBT001 - click passes flags by name
    """Have the agent NAME run another version of its model; the digest is sha256: and 64 hexadecimal digits."""
    run(
        _set(
            target,
            target.scope(name),
            ("model", "version"),
            lambda agent: model_change(agent, version),
            only_print=patch,
        )
    )


async def _set(target: Target, scope: Scope, path: tuple[str, str], change: Any, *, only_print: bool) -> None:
    async with target.api() as api:
        agent = await agent_of(api, scope)
        spec: Mapping[str, Any] = change(agent)
        if only_print:
            click.echo(patch_text(agent, spec), nl=False)
            return
        if warned := warning(agent, ("spec", *path)):
            click.echo(f"warning: {warned}", err=True)
        await api.patch(scope.agent, {"spec": spec}, fieldManager=FIELD_MANAGER, fieldValidation="Strict")
    found = list(differences("spec", kept(agent, spec), spec))
    for one in found:
        click.echo(f"{scope.name}: {_said(one)}")
    click.echo(
        f"Follow it: supportfleet status {scope.name} -n {scope.namespace} --watch"
        if found
        else f"{scope.name}: it is so already"
    )


def _said(one: Change) -> str:
    return f"{one.path} {shown(one.before)} -> {shown(one.after)}"
