"""The command line: `supportfleet`, and `kubectl supportfleet`.

Every group of commands is imported when it is used, so that `--help` is quick and nothing is loaded in vain. This is
the only place that turns errors into messages and exit codes.
"""

import importlib
import sys

import click
from rich.console import Console

from supportfleet.errors import SupportfleetError

# Command -> where it is, and one line for --help (read without importing it).
COMMANDS = {
    "local": ("supportfleet.local.commands", "A real Kubernetes on this machine."),
    "demo": ("supportfleet.demo", "A cluster, the operator and an agent that answers."),
    "chat": ("supportfleet.chat", "Talk to an agent."),
}
INTERRUPTED_EXIT = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """The command itself; the attribute is called as the command is."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
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
    try:
        cli.main(arguments, prog_name="supportfleet", standalone_mode=False)
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
