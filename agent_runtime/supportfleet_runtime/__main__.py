"""The command ``supportfleet-runtime``: one image, its roles by subcommand.

Only the subcommand that runs is imported, so that ``serve`` starts without the training libraries and ``sync-model``
without the server's. Exit codes: 0 done, 1 failed, 2 the configuration or the content is wrong, 3 something is out of
reach and worth another try.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final, NoReturn, Protocol, cast

from supportfleet_runtime.errors import ConfigurationError

WRONG: Final = 2
LOG_LEVELS: Final = frozenset({"debug", "info", "warning", "error"})


class Command(Protocol):
    """The module of a subcommand that another part brings."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its own arguments."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit code."""
        ...


OWN: Final = MappingProxyType(
    {
        "serve": "run gateway and worker in one process",
        "gateway": "take messages and hand out their answers, which workers give",
        "worker": "answer the messages that gateways take",
        "migrate": "bring the database's schema up to date",
    }
)
OTHERS: Final = MappingProxyType(
    {
        "api-key": ("supportfleet_runtime.api_key_command", "make an API key, and its hash to configure"),
        "train": ("supportfleet_runtime.nlu.train_command", "train an intent model from labelled texts"),
        "publish-model": ("supportfleet_runtime.models.publish_command", "upload a model, and print its digest"),
        "sync-model": ("supportfleet_runtime.models.sync_command", "fetch the configured model and verify it"),
        "channel": ("supportfleet_runtime.models.channel_command", "show or move the version that a channel points to"),
        "resolve-channel": ("supportfleet_runtime.models.resolve_command", "tell the version that a channel points to"),
        "tools": ("supportfleet_runtime.tools_command", "run the tool service"),
        "deadletters": (
            "supportfleet_runtime.deadletters_command",
            "list messages that were given up, or have them worked again",
        ),
        "erase": ("supportfleet_runtime.erase_command", "remove one customer's data"),
        "escalations": (
            "supportfleet_runtime.escalations_command",
            "list the calls for a person, take one, or end it",
        ),
        "effects": (
            "supportfleet_runtime.effects_command",
            "list what tools may have done or not, or say whether it was done",
        ),
        "checklist": ("supportfleet_runtime.checklist.command", "make the checks that precede a deployment"),
        "verify-model": ("supportfleet_runtime.models.verify_command", "check a model's folder against its manifest"),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="supportfleet-runtime", description="The runtime of a SupportAgent.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in OWN.items():
        commands.add_parser(name, help=summary, description=summary)
    chosen: Command | None = None
    for name, (path, summary) in OTHERS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if given[:1] == [name]:
            chosen = cast("Command", importlib.import_module(path))
            chosen.add_arguments(command)
    arguments = parser.parse_args(given)
    try:
        return _run_other(chosen, arguments) if chosen else _run_own(arguments.command)
    except ConfigurationError as error:
        lines = ["The configuration can't be used; nothing was started:", *(f"  - {it}" for it in error.problems)]
        sys.stderr.write("\n".join(lines) + "\n")
        return WRONG


def _run_other(command: Command, arguments: argparse.Namespace) -> int:
    from supportfleet_runtime.observability.logs import configure_logging  # noqa: PLC0415 - only for what runs
    from supportfleet_runtime.observability.masking import known_secrets  # noqa: PLC0415

    level = os.environ.get("LOG_LEVEL", "").lower()
    configure_logging(level if level in LOG_LEVELS else "info", secrets=known_secrets(os.environ))
    return command.run(arguments)


def _run_own(command: str) -> int:
    from supportfleet_runtime import config  # noqa: PLC0415 - only for what runs
    from supportfleet_runtime.observability.logs import configure_logging  # noqa: PLC0415

    configuration = config.load(os.environ)
    settings = configuration.settings
    configure_logging(
        settings.log_level, secrets=config.secrets(configuration), scope=settings.scope, pod=settings.pod_name
    )
    from supportfleet_runtime import serve  # noqa: PLC0415
    from supportfleet_runtime.roles import Role  # noqa: PLC0415

    return serve.run_migration(settings) if command == "migrate" else serve.run_server(configuration, Role(command))


def run() -> NoReturn:
    """The process: a subcommand, and its exit code.

    It ends without the interpreter's own end. The object store's client has threads that may still want the interpreter
    then, which aborts one process in forty after all was done (PyO3/pyo3-async-runtimes#40). A Job that did its work
    must not be told to have failed.
    """
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
