"""The command line ``pbr``."""

import inspect
import re
from typing import Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from typer.core import TyperGroup

from client.commands import (
    demo,
    down,
    env,
    fetch,
    history,
    keys,
    models,
    process,
    redrive,
    replay_dlq,
    restart,
    status,
    up,
)
from client.commands.console import print_error
from client.errors import UsageError
from core.errors import BackgroundRemoverError, InvalidOptionsError


class _Commands(TyperGroup):
    """Prints expected errors as one line and sets the exit code. Unexpected errors keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output has closed it
            raise
        except (UsageError, InvalidOptionsError) as error:
            print_error(error)
            raise typer.Exit(2) from None
        except (BackgroundRemoverError, BotoCoreError, ClientError, OSError) as error:
            print_error(error)
            raise typer.Exit(1) from None


def _join_lines(commands: typer.Typer) -> None:
    """Join the lines of each paragraph of the help texts: Typer would keep the line breaks of the docstrings."""
    for command in commands.registered_commands:
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(command.callback) or "")


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Remove the background of images, on AWS or on an embedded cloud on this machine.",
    epilog=(
        "Stack: --stack or PBR_STACK selects a stack on AWS. Otherwise pbr uses AWS_ENDPOINT_URL, or else the embedded "
        "cloud of this project directory, that is, of the checkout that pbr is installed from.\n\n"
        "Exit codes: 0 success; 1 failure, even of one image among many; 2 invalid usage, nothing was done."
    ),
)
app.command("process")(process.process_files)
app.command("fetch")(fetch.fetch_results)
app.command("demo")(demo.demo)
app.command("up")(up.up)
app.command("down")(down.down)
app.command("restart")(restart.restart)
app.command("env")(env.env)
app.add_typer(models.app, name="models")
app.command("history")(history.show_history)
app.command("redrive")(redrive.redrive_executions)
app.command("replay-dlq")(replay_dlq.replay_dead_letters)
app.add_typer(keys.app, name="keys")
app.command("status")(status.status)
for commands in (app, keys.app, models.app):
    _join_lines(commands)

if __name__ == "__main__":
    app()
