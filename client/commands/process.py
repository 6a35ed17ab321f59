"""``pbr process``: remove the background of images."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from client import local_models
from client.batch import STDIN, ImageFile, process, process_all
from client.commands.connect import ensure_weights, find_stack, start_local_cloud
from client.commands.console import ERR, print_warning
from client.commands.options import Region, StackName
from client.commands.processing_options import with_processing_options
from client.commands.progress import progress, result_warnings
from client.errors import UsageError
from client.jobs import JobClient
from client.stack import Stack
from core.options import Options
from core.segmentation.registry import with_custom

_INTERRUPTED: Final = 130  # exit code of a process that Ctrl-C ended


@with_processing_options
def process_files(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Image files; - is standard input.", show_default=False)
    ],
    options: dict[str, Any],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Directory for the results; - is standard output, for one image.", show_default="out"
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Time limit for each image, in seconds.")] = 900,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Remove the background of images.

    For photo.jpg, it writes the result photo.jpg.png and its sidecar photo.jpg.png.json. Starts an embedded cloud in
    the background if no stack is given and none is running.

    For example:

    [bold]pbr process photo.jpg[/bold]

    [bold]pbr process *.jpg --format webp --crop --out cutouts[/bold]

    [bold]pbr process - < photo.jpg > cutout.png[/bold]
    """
    Options.parse(options)
    to_stdout = _writes_to_stdout(files, out)
    deployed = find_stack(stack, region)
    _check_model(options.get("model"), deployed)
    ensure_weights(options.get("model"), deployed)
    jobs = JobClient(deployed or start_local_cloud())
    signal.signal(signal.SIGINT, _exit_at_once)
    if path := options.get("background_key"):
        options["background_key"] = jobs.upload_background(Path(path).name, Path(path).read_bytes())
    images = [ImageFile(path) for path in files]
    context, listener = progress(ERR)
    with context:
        if to_stdout:
            result = process(jobs, images[0], options, listener, timeout)
            sys.stdout.buffer.write(result.data)
            for warning in result_warnings(result.sidecar):
                print_warning(warning)
            return
        saved = process_all(jobs, images, options, out or Path("out"), listener, timeout)
    if len(saved) < len(images):
        raise typer.Exit(1)


def _writes_to_stdout(files: list[Path], out: Path | None) -> bool:
    """Return whether the result goes to standard output.

    Raises:
        UsageError: if standard input or standard output would have several images.
    """
    if files.count(STDIN) > 1:
        raise UsageError("Standard input holds one image", field="FILES", value="- -", remedy="Give - once.")
    to_stdout = out == STDIN or (out is None and files == [STDIN] and not sys.stdout.isatty())
    if to_stdout and len(files) > 1:
        raise UsageError(
            "Standard output takes one image", field="--out", value="-", remedy="Pass a directory, or only one image."
        )
    return to_stdout


def _check_model(name: str | None, stack: Stack | None) -> None:
    custom = stack.parameters.get("CustomModels", "") if stack else None
    local_models.check_model(name, local_models.registry() if custom is None else with_custom(custom))


def _exit_at_once(*_: object) -> NoReturn:
    """Exit on Ctrl-C without waiting for threads, which cannot be interrupted."""
    ERR.show_cursor()
    ERR.print("Interrupted. Images that were uploaded are still processed; see pbr history.", style="yellow")
    os._exit(_INTERRUPTED)
