"""``pbr presets``: list named sets of options."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from client.commands.connect import find_stack
from client.commands.console import OUT, print_table
from client.commands.options import AsJson, Region, StackName
from core.presets import BUILT_IN, Preset


def list_presets(as_json: AsJson = False, stack: StackName = None, region: Region = None) -> None:
    """List presets, which are named sets of options: the built-in ones, and those of the stack in use.

    A stack has presets of its own in its parameter Presets. If no embedded cloud is running and no stack is given, it
    lists the built-in ones.

    For example: [bold]pbr process photo.jpg --preset white-square[/bold]
    """
    deployed = find_stack(stack, region)
    presets = deployed.presets if deployed else BUILT_IN
    if as_json:
        OUT.print_json(data={name: {"source": source(name, presets), "options": presets[name]} for name in presets})
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("preset", no_wrap=True)
    table.add_column("source", no_wrap=True)
    table.add_column("options")
    for name, options in presets.items():
        shown = ", ".join(f"{option}={value}" for option, value in options.items())
        table.add_row(Text(name), Text(source(name, presets)), Text(shown))
    print_table(table)


def source(name: str, presets: Mapping[str, Preset]) -> str:
    """Return where a preset comes from."""
    if name not in BUILT_IN:
        return "stack"
    return "built in" if presets[name] == BUILT_IN[name] else "stack, replaces a built-in one"
