"""``pbr replay-dlq``: process the messages of the dead-letter queues."""

from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from client import dead_letters
from client.commands.connect import connect
from client.commands.console import ERR, OUT, print_table
from client.commands.options import AsJson, DryRun, Region, StackName
from client.dead_letters import DeadLetter, Queue

_DELETE_KEPT: Final = (
    "No command of pbr deletes messages that are not of this stack. To delete one, see "
    "docs/how-to/redrive-failures.md#delete-a-kept-message"
)
_STYLES: Final = {"replayed": "green", "deleted": "green", "rejected": "red", "kept": "yellow"}


def replay_dead_letters(
    queue: Annotated[
        Queue | None, typer.Argument(metavar="QUEUE", help="Queue to read.", show_default="all queues")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of messages per queue.", show_default="all")
    ] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete messages that need no action.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Deliver the messages of the dead-letter queues again.

    Events and webhooks are delivered once more. For jobs of the worker, the outcome of their execution is shown. A
    message is deleted once its delivery is confirmed, or with --purge if it needs no action.

    For example: [bold]pbr replay-dlq webhooks --dry-run[/bold]
    """
    deployed = connect(stack, region)
    letters = [
        letter
        for one in ([queue] if queue else Queue)
        for letter in dead_letters.replay(deployed, one, limit=limit, dry_run=dry_run, purge=purge)
    ]
    if as_json:
        OUT.print_json(data=[letter.to_json() for letter in letters])
    else:
        print_letters(letters)
    if any(letter.status == "rejected" for letter in letters):
        raise typer.Exit(1)


def print_letters(letters: Sequence[DeadLetter]) -> None:
    """Print one message per row; then, if some are not of the stack, how to delete them."""
    if not letters:
        OUT.print("There are no messages.")
        return
    print_table(_letters_table(letters))
    if any(letter.status == "kept" and letter.key is None for letter in letters):
        ERR.print(_DELETE_KEPT)


def _letters_table(letters: Sequence[DeadLetter]) -> Table:
    """Return a table with one message per row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("queue", no_wrap=True)
    table.add_column("image or job", no_wrap=True)
    table.add_column("error")
    table.add_column("status")
    table.add_column("reason")
    for letter in letters:
        status = Text(letter.status, style=_STYLES.get(letter.status, ""))
        key = Text(letter.key or letter.message_id)
        table.add_row(letter.queue, key, Text(letter.error), status, Text(letter.reason))
    return table
