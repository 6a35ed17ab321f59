"""``pbr process``: remove the background of images."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from client import local_models
from client.batch import process, process_all
from client.commands.connect import find_stack, start_local_cloud
from client.commands.console import ERR, print_warning
from client.commands.options import DEFAULT_OUT, Out, Region, StackName
from client.commands.processing_options import with_processing_options
from client.commands.progress import progress, result_warnings
from client.errors import UsageError
from client.jobs import JobClient
from client.outputs import STDIN, Destination, ImageFile, remove_partial_files
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
    out: Out = None,
    timeout: Annotated[float, typer.Option(help="Time limit for each image, in seconds.")] = 900,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Remove the background of images.

    For photo.jpg, it writes the result out/photo.jpg.png and its sidecar out/photo.jpg.png.json. Starts an embedded
    cloud in the background if no stack is given and none is running.

    For example:

    [bold]pbr process photo.jpg[/bold]

    [bold]pbr process photo.jpg -o cutout.webp[/bold]

    [bold]pbr process *.jpg --format webp --crop --out cutouts/[/bold]

    [bold]pbr process - < photo.jpg > cutout.png[/bold]
    """
    images = _images(files)
    to_stdout = _writes_to_stdout(images, out)
    destination = Destination.parse(out or DEFAULT_OUT)
    if not to_stdout:
        _set_format(options, destination)
        destination.check(len(images), files)
    Options.parse(options)
    deployed = find_stack(stack, region)
    _check_model(options.get("model"), deployed)
    jobs = JobClient(deployed or start_local_cloud())
    signal.signal(signal.SIGINT, _exit_at_once)
    if path := options.get("background_key"):
        options["background_key"] = jobs.upload_background(Path(path).name, Path(path).read_bytes())
    context, listener = progress(ERR)
    with context:
        if to_stdout:
            result = process(jobs, images[0], options, listener, timeout)
            sys.stdout.buffer.write(result.data)
            for warning in result_warnings(result.sidecar):
                print_warning(warning)
            return
        outcomes = process_all(jobs, images, options, destination, listener, timeout)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def _images(files: list[Path]) -> list[ImageFile]:
    """Return the images.

    Raises:
        UsageError: if standard input would have several images.
    """
    if files.count(STDIN) > 1:
        raise UsageError("Standard input holds one image", field="FILES", value="- -", remedy="Give - once.")
    return ImageFile.of(files)


def _writes_to_stdout(images: list[ImageFile], out: str | None) -> bool:
    """Return whether the result goes to standard output.

    Raises:
        UsageError: if standard output would have several images.
    """
    from_stdin = [image.path for image in images] == [STDIN]
    to_stdout = out == "-" or (out is None and from_stdin and not sys.stdout.isatty())
    if to_stdout and len(images) > 1:
        raise UsageError(
            "Standard output takes one image", field="--out", value="-", remedy="Pass a directory, or only one image."
        )
    return to_stdout


def _set_format(options: dict[str, Any], destination: Destination) -> None:
    if format_ := destination.format(options.get("format")):
        options["format"] = format_


def _check_model(name: str | None, stack: Stack | None) -> None:
    custom = stack.parameters.get("CustomModels", "") if stack else None
    local_models.check_model(name, local_models.registry() if custom is None else with_custom(custom))


def _exit_at_once(*_: object) -> NoReturn:
    """Exit on Ctrl-C without waiting for threads, which cannot be interrupted."""
    remove_partial_files()
    ERR.show_cursor()
    ERR.print("Interrupted. Images that were uploaded are still processed; see pbr history.", style="yellow")
    os._exit(_INTERRUPTED)
