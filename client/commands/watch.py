"""``pbr watch``: process each image that is put into a folder."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from client.batch import process
from client.bulk.run import each
from client.bulk.state import target_of
from client.bulk.walk import Image
from client.commands.console import ERR, ERRORS, error_text, print_warning, silenced
from client.commands.options import DEFAULT_OUT, Quiet, Region, StackName
from client.commands.process import checked_stack
from client.commands.processing_options import with_processing_options
from client.commands.progress import PlainProgress
from client.errors import UsageError, sdk_errors
from client.jobs import JobClient
from client.outputs import Destination, ImageFile, remove_partial_files
from client.stack import Stack
from client.watch import Watcher, locked
from core.errors import BackgroundRemoverError

_INTERRUPTED: Final = 130  # exit code of a process that Ctrl-C ended


@with_processing_options
def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to watch.", show_default=False)],
    options: dict[str, Any],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Directory for the results.", show_default=DEFAULT_OUT),
    ] = Path(DEFAULT_OUT),
    settle: Annotated[
        float, typer.Option(min=0.1, help="Time in seconds without a change after which a file is complete.")
    ] = 2.0,
    interval: Annotated[float, typer.Option(min=0.1, help="Time in seconds between two scans of the folder.")] = 1.0,
    timeout: Annotated[float, typer.Option(help="Time limit for each image in seconds.")] = 900,
    quiet: Quiet = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Process each image that is put into a folder, until Ctrl-C.

    Images are processed when they are complete. Temporary files of browsers and rsync are ignored. Processed images
    move to DIR/done, or to DIR/failed with the reason in a .json file. After a restart, all images that are still in
    DIR are processed. Starts an embedded cloud in the background if no stack is given and none is running.

    For example: [bold]pbr watch inbox/ --out cutouts/[/bold]
    """
    if not folder.is_dir():
        raise UsageError("The directory does not exist", field="DIR", value=str(folder), remedy="Create it.")
    if out.resolve() == folder.resolve():
        remedy = "Use another directory. It may be inside of DIR."
        raise UsageError("Results would be processed, too", field="--out", value=str(out), remedy=remedy)
    destination = Destination(out, is_file=False)
    destination.check(2)
    background = options.pop("background_key", None)
    if background and not Path(background).is_file():
        remedy = "Pass the path of an image."
        raise UsageError("The file does not exist", field="--background-image", value=background, remedy=remedy)
    with silenced(quiet=quiet), locked(folder):
        requested = {**options, **({"background_key": background} if background else {})}
        deployed = checked_stack(requested, stack, region)
        watcher = Watcher(folder, [out], settle_s=settle)
        signal.signal(signal.SIGINT, _exit_at_once)
        ERR.print(f"Watching {folder} until Ctrl-C. Results: {out}")
        while True:
            if images := watcher.complete():
                _process_all(watcher, images, options, background, destination, timeout, (deployed, stack, region))
            time.sleep(interval)


def _process_all(
    watcher: Watcher,
    images: list[Image],
    options: dict[str, Any],
    background: str | None,
    destination: Destination,
    timeout_s: float,
    connection: tuple[Stack, str | None, str | None],
) -> None:
    """Process complete files and move them. Files stay if the stack is not available."""
    deployed, stack, region = connection
    try:
        if deployed.endpoint_url:  # an idle embedded cloud has stopped, perhaps
            deployed = checked_stack(options, stack, region)
        jobs = JobClient(deployed)  # a new one for each round: it remembers all executions since its first upload
        given = dict(options)
        if background:
            given["background_key"] = jobs.upload_background(Path(background).name, Path(background).read_bytes())
    except (BackgroundRemoverError, OSError, *sdk_errors()) as error:
        print_warning(f"{error_text(error)} Trying again in 30 s.")
        for image in images:
            watcher.postpone(image)
        return
    listener = PlainProgress(lambda _outcome: None, verbose=False)

    def one(image: Image) -> None:
        file = ImageFile(watcher.folder / image.path, image.path)
        error: Exception | None = None
        try:
            name = target_of(watcher.reserve(image), None)
            saved = destination.save(process(jobs, file, given, listener, timeout_s), name)
        except (BackgroundRemoverError, OSError, *sdk_errors()) as caught:
            error = caught
        moved = watcher.finish(image, error)
        if error is None and moved:
            ERR.print(f"done    {image.path}  {saved.path}")
        elif error is not None:
            ERRORS.print(f"{'failed' if moved else 'waiting'}  {image.path}  {error_text(error)}", style="red")

    each(one, images)


def _exit_at_once(*_: object) -> NoReturn:
    """Exit on Ctrl-C without waiting for threads, which cannot be interrupted."""
    remove_partial_files()
    ERR.print("Stopped. Images that are not finished stay in the folder.", style="yellow")
    os._exit(_INTERRUPTED)
