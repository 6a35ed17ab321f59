"""``pbr down``: stop the embedded cloud."""

from typing import Annotated

import typer

from client import local_cloud
from client.commands.console import OUT, print_error
from client.errors import EmbeddedCloudError


def down(
    every: Annotated[bool, typer.Option("--all", help="Stop the clouds of all project directories.")] = False,
) -> None:
    """Stop the embedded cloud of this project directory. Its buckets and their content are deleted."""
    failed, stopped = False, 0
    for directory in local_cloud.directories() if every else [local_cloud.state_directory()]:
        try:
            cloud = local_cloud.stop(directory)
        except (EmbeddedCloudError, OSError) as error:
            print_error(error)
            failed = True
            continue
        if cloud:
            stopped += 1
            OUT.print(f"Stopped the cloud of {cloud.project} at {cloud.endpoint_url}.")
    if not stopped and not failed:
        OUT.print("No embedded cloud is running." if every else _none_here())
    if failed:
        raise typer.Exit(1)


def _none_here() -> str:
    others = len(local_cloud.all_running())
    more = f" Other project directories: {others} (pbr down --all stops them)." if others else ""
    return f"No embedded cloud is running for {local_cloud.ROOT}.{more}"
