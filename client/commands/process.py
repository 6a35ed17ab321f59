"""``pbr process``: remove the background of images."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from client import local_models
from client.batch import process, process_all
from client.commands.connect import ensure_weights, find_stack, start_local_cloud
from client.commands.console import ERR, print_warning, silenced
from client.commands.options import DEFAULT_OUT, JsonLines, Open, Quiet, Region, StackName, Verbose, out_option
from client.commands.processing_options import with_processing_options
from client.commands.progress import check_verbosity, conclude, progress, result_warnings
from client.errors import UsageError
from client.jobs import JobClient, Result
from client.outputs import STDIN, Destination, ImageFile, remove_partial_files
from client.stack import Stack
from core.options import Options, OutputFormat
from core.presets import BUILT_IN
from core.segmentation.registry import with_custom

_INTERRUPTED: Final = 130  # exit code of a process that Ctrl-C ended


@with_processing_options
def process_files(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Image files; - is standard input.", show_default=False)
    ],
    options: dict[str, Any],
    out: Annotated[
        str | None, out_option(" Its extension sets the format. - is standard output, for one image.")
    ] = None,
    as_json: JsonLines = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write NAME-before-after.png; --open opens it instead of the result.")
    ] = False,
    open_: Open = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    timeout: Annotated[float, typer.Option(min=1, help="Time limit for each image, in seconds.")] = 900,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Remove the background of images.

    For photo.jpg, it writes the result out/photo.jpg.png and its sidecar out/photo.jpg.png.json. Starts an embedded
    cloud in the background if no stack is given and none is running. It stops after 15 idle minutes; PBR_STOP_AFTER
    sets another time, e.g. 2h, or never.

    For example:

    [bold]pbr process photo.jpg[/bold]

    [bold]pbr process photo.jpg -o cutout.webp[/bold]

    [bold]pbr process *.jpg --format webp --crop --out cutouts/[/bold]

    [bold]pbr process *.jpg --preset white-square[/bold]

    [bold]pbr process - < photo.jpg > cutout.png[/bold]
    """
    images = _images(files)
    to_stdout = _writes_to_stdout(images, out)
    shown = {"--json": as_json, "--compare": compare, "--open": open_}
    check_verbosity(verbose=verbose, quiet=quiet)
    _check_output(shown, to_stdout=to_stdout)
    destination = Destination.parse(out or DEFAULT_OUT)
    if not to_stdout:
        _set_format(options, destination, compare=compare)
        destination.check(len(images), files)
    Options.parse_explicit(options)
    with silenced(quiet=quiet):
        jobs = _connect(images, options, stack, region)
        signal.signal(signal.SIGINT, _exit_at_once)
        if path := options.get("background_key"):
            options["background_key"] = jobs.upload_background(Path(path).name, Path(path).read_bytes())
        context, listener = progress(verbose=verbose, quiet=quiet, as_json=as_json)
        if to_stdout:
            with context:
                _write_to_stdout(process(jobs, images[0], options, listener, timeout))
            return
        started_at = time.monotonic()
        with context:
            outcomes = process_all(jobs, images, options, destination, listener, timeout, compare=compare)
        conclude(outcomes, time.monotonic() - started_at, open_=open_)


def _check_output(options: dict[str, bool], *, to_stdout: bool) -> None:
    """Check that options that need files are not used with standard output."""
    if to_stdout and (given := [name for name, is_set in options.items() if is_set]):
        raise UsageError(
            f"Standard output holds the image, so {given[0]} is not possible",
            field="--out",
            value="-",
            remedy="Pass a file or a directory with --out.",
        )


def checked_stack(options: dict[str, Any], name: str | None, region: str | None) -> Stack:
    """Return the stack, after a check of options, preset and model. Starts an embedded cloud if necessary."""
    deployed = find_stack(name, region)
    model = Options.parse(options, deployed.presets if deployed else BUILT_IN).model
    _check_model(model, deployed)
    ensure_weights(model, deployed)
    return deployed or start_local_cloud()


def _connect(images: list[ImageFile], options: dict[str, Any], stack: str | None, region: str | None) -> JobClient:
    """Return a client of the stack, after a check of preset, model and files. Starts an embedded cloud if necessary."""
    deployed = find_stack(stack, region)
    model = Options.parse(options, deployed.presets if deployed else BUILT_IN).model
    _check_model(model, deployed)
    _check_files(images, options.get("background_key"))
    ensure_weights(model, deployed)
    return JobClient(deployed or start_local_cloud())


def _check_files(images: list[ImageFile], background: str | None) -> None:
    """Check that there is work to do: at least one image, and the background.

    Raises:
        UsageError: if none of the images or not the background exists.
    """
    if not any(image.path == STDIN or image.path.exists() for image in images):
        raise UsageError(
            "The file does not exist", field="FILES", value=str(images[0].path), remedy="Pass the paths of images."
        )
    if background and not Path(background).is_file():
        raise UsageError(
            "The file does not exist",
            field="--background-image",
            value=background,
            remedy="Pass the path of an image.",
        )


def _write_to_stdout(result: Result) -> None:
    sys.stdout.buffer.write(result.data)
    for warning in result_warnings(result.sidecar):
        print_warning(warning)


def _images(files: list[Path]) -> list[ImageFile]:
    """Return the images.

    Raises:
        UsageError: if standard input would have several images, or a path is a directory.
    """
    if files.count(STDIN) > 1:
        raise UsageError("Standard input holds one image", field="FILES", value="- -", remedy="Give - once.")
    if folder := next((path for path in files if path.is_dir()), None):
        raise UsageError("This is a directory", field="FILES", value=str(folder), remedy=f"Use pbr bulk {folder}.")
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


def _set_format(options: dict[str, Any], destination: Destination, *, compare: bool) -> None:
    """Set the format that the destination implies.

    Raises:
        UsageError: if the format is a different one, or the results cannot be compared.
    """
    if format_ := destination.format(options.get("format")):
        options["format"] = format_
    if compare and format_ is OutputFormat.ZIP:
        raise UsageError(
            "A zip cannot be compared with its image",
            field="--compare",
            value="zip",
            remedy="Remove --compare, or use another format, e.g. png.",
        )


def _check_model(name: str | None, stack: Stack | None) -> None:
    custom = stack.parameters.get("CustomModels", "") if stack else None
    local_models.check_model(name, local_models.registry() if custom is None else with_custom(custom))


def _exit_at_once(*_: object) -> NoReturn:
    """Exit on Ctrl-C without waiting for threads, which cannot be interrupted."""
    remove_partial_files()
    ERR.show_cursor()
    ERR.print(
        "Interrupted. Images that were uploaded are still processed: list them with pbr history, and get their results "
        "with pbr fetch.",
        style="yellow",
    )
    os._exit(_INTERRUPTED)
