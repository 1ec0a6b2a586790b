"""The command line: `supportfleet`, and `kubectl supportfleet`.

Every group of commands is imported when it is used, so that `--help` is quick and nothing is loaded in vain. This is
the only place that turns errors into messages and exit codes.
"""

import importlib
import sys
from pathlib import Path

import click
from rich.console import Console

from supportfleet.errors import SupportfleetError

ACTIONS = "supportfleet.rollouts.action_commands"
CHANGES = "supportfleet.rollouts.change_commands"
STATUS = "supportfleet.rollouts.status_commands"
# Command -> where it is, and one line for --help (read without importing it).
COMMANDS = {
    "abort": (f"{ACTIONS}:abort", "Roll the canary back."),
    "chat": ("supportfleet.chat:chat", "Talk to an agent."),
    "demo": ("supportfleet.demo:demo", "A cluster, the operator and an agent that answers."),
    "history": (f"{STATUS}:history", "The revisions of an agent."),
    "local": ("supportfleet.local.commands:local", "A real Kubernetes on this machine."),
    "pause": (f"{ACTIONS}:pause", "Hold a rollout where it is."),
    "plan": (f"{CHANGES}:plan", "What an edited YAML would change, before it is applied."),
    "promote": (f"{ACTIONS}:promote", "Give the canary all of the traffic."),
    "resume": (f"{ACTIONS}:resume", "Go on after a pause."),
    "retry": (f"{ACTIONS}:retry", "Try a revision again that was rolled back."),
    "set": (f"{CHANGES}:set_", "Change an agent's image or model."),
    "status": (f"{STATUS}:status", "Revisions, weights, steps and figures, as they change."),
    "undo": (f"{ACTIONS}:undo", "Go back to the revision before."),
}
PLUGIN = "kubectl-supportfleet"
INTERRUPTED_EXIT = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """The command itself."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="supportfleet")
def cli() -> None:
    """Fleets of customer-support agents on Kubernetes."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error is a message and an exit code, never a traceback."""
    name = "kubectl supportfleet" if Path(sys.argv[0]).stem == PLUGIN else "supportfleet"
    try:
        cli.main(arguments, prog_name=name, standalone_mode=False)
    except SupportfleetError as error:
        _complain(error.message, error.remedy)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted", "Run it again: it goes on from here.")
        sys.exit(INTERRUPTED_EXIT)


def _complain(message: str, remedy: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/]", end=" ")
    console.print(message, markup=False)
    if remedy:
        console.print(remedy, markup=False)


if __name__ == "__main__":
    main()
