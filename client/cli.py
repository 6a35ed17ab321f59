"""The command line ``pbr``. The module of a command is imported when the command is used: all of them take seconds."""

try:
    import inspect
    import platform
    import re
    from importlib import import_module
    from typing import Annotated, Any, Final

    import typer
    from typer.core import TyperCommand, TyperGroup

    from client.errors import UsageError, sdk_errors
    from core.errors import BackgroundRemoverError, InvalidOptionsError, reason
except KeyboardInterrupt:  # Ctrl-C while it starts; Typer handles it later
    raise SystemExit(130) from None

_COMMANDS: Final = {
    "process": ("client.commands.process:process_files", "Remove the background of images."),
    "bulk": (
        "client.commands.bulk:process_bulk",
        "Remove the background of all images in a folder, a bucket or a manifest.",
    ),
    "watch": ("client.commands.watch:watch", "Process each image that is put into a folder, until Ctrl-C."),
    "fetch": ("client.commands.fetch:fetch_results", "Download the results of executions."),
    "demo": ("client.commands.demo:demo", "Process one photo on a temporary embedded cloud, and show each stage."),
    "ui": ("client.commands.ui:ui", "Serve the web page on this machine, until Ctrl-C."),
    "up": ("client.commands.up:up", "Run an embedded cloud on this machine, until Ctrl-C."),
    "down": (
        "client.commands.down:down",
        "Stop the embedded cloud of this project directory. Its buckets and their content are deleted.",
    ),
    "restart": (
        "client.commands.restart:restart",
        "Stop the embedded cloud and start it again in the background, with the same options and ports.",
    ),
    "env": (
        "client.commands.env:env",
        "Print the environment variables that point AWS tools to the running embedded cloud.",
    ),
    "history": ("client.commands.history:show_history", "List the latest executions, or the events of one execution."),
    "logs": ("client.commands.logs:show_logs", "Show the log lines of an execution in the order of time."),
    "cost": (
        "client.commands.cost:show_cost",
        "Estimate what a stack costs a month, or what one execution cost, at list prices.",
    ),
    "redrive": ("client.commands.redrive:redrive_executions", "Retry failed executions."),
    "replay-dlq": (
        "client.commands.replay_dlq:replay_dead_letters",
        "Deliver the messages of the dead-letter queues again.",
    ),
    "forget": (
        "client.commands.forget:forget",
        "Delete sources permanently, with their results and all that was derived from them.",
    ),
    "status": (
        "client.commands.status:status",
        "Show the stack in use: its resources, and the number of executions and messages.",
    ),
    "doctor": (
        "client.commands.doctor:check_stack",
        "Check a stack, and say what to do about each problem.",
    ),
    "models": (
        "client.commands.models:app",
        "List segmentation models: license, input size, memory, and where their weights are.",
    ),
    "presets": (
        "client.commands.presets:list_presets",
        "List presets, which are named sets of options: the built-in ones, and those of the stack in use.",
    ),
    "keys": ("client.commands.keys:app", "Manage the API keys of a stack."),
}
"""Each command: the function or the group of commands, and the first line of its help."""


class LazyCommand(TyperCommand):
    """A command by its name and the first line of its help.

    Args:
        name: of the command.
        target: function or Typer app, as ``module:attribute``.
        short_help: first line of the help.
    """

    def __init__(self, name: str, target: str, short_help: str) -> None:
        super().__init__(name, help=short_help)
        self._target = target

    def load(self) -> Any:
        """Import the command's module and return the command."""
        module, _, attribute = self._target.partition(":")
        found = getattr(import_module(module), attribute)
        parent = typer.Typer(rich_markup_mode=app.rich_markup_mode)
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=self.name)
            _join_lines(found)
        else:
            parent.command(self.name)(found)
            _join_lines(parent)
        return typer.main.get_group(parent).commands[self.name or ""]


class _Commands(TyperGroup):
    """Loads the command that is used.

    Prints expected errors as one line and sets the exit code. Unexpected errors keep their traceback.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: LazyCommand(name, *command) for name, command in _COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = reason(error.message)
            raise
        except (BrokenPipeError, typer.Exit, typer.Abort, typer.TyperException):  # Typer's own, or a closed output
            raise
        except (UsageError, InvalidOptionsError) as error:
            raise _exit(error, 2) from None
        except (BackgroundRemoverError, OSError) as error:
            raise _exit(error, 1) from None
        except sdk_errors() as error:
            raise _exit(error, 1) from None


def _exit(error: Exception, status: int) -> typer.Exit:
    from client.commands.console import print_error

    print_error(error)
    return typer.Exit(status)


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
        "cloud of the project directory, which is the clone that pbr is installed from.\n\n"
        "Exit codes: 0 success; 1 failure, even of one image among many; 2 invalid usage, nothing was done."
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version
        from pathlib import Path

        directory = Path(__file__).resolve().parent.parent
        typer.echo(
            f"pbr {version('precision-background-remover')} from {directory} (Python {platform.python_version()})"
        )
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_print_version,
            is_eager=True,
            help="Print the version, and where it is installed.",
        ),
    ] = False,
) -> None:
    """Declare the options of ``pbr`` itself."""


if __name__ == "__main__":
    app()
