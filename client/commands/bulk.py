"""``pbr bulk``: process a folder, a bucket or a manifest."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from client.bulk.cost import cost_usd
from client.bulk.report import write_report
from client.bulk.run import BulkRun, check_engine
from client.bulk.sheet import write_sheet
from client.bulk.source import Source
from client.bulk.state import RunState
from client.bulk.walk import walk
from client.commands.bulk_progress import BulkProgress, dollars, duration
from client.commands.console import ERR, print_warning, silenced
from client.commands.options import DEFAULT_OUT, JsonLines, Quiet, Region, StackName
from client.commands.process import checked_stack
from client.commands.processing_options import with_processing_options
from client.errors import BulkRunError, DiskFullError, UsageError, sdk_errors
from client.jobs import JobClient
from client.outputs import Destination, remove_partial_files
from client.stack import Stack
from core.errors import BackgroundRemoverError
from functions.contracts.bulk import MAX_INSTANCES


class Engine(StrEnum):
    """What segments the images of a run."""

    HOST = "host"
    BATCH_TRANSFORM = "batch-transform"


_INTERRUPTED: Final = 130  # exit code of a process that Ctrl-C ended
_MAX_CONCURRENCY: Final = 10_000


@with_processing_options
def process_bulk(
    options: dict[str, Any],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="Folder, s3://BUCKET/PREFIX, a .csv or .jsonl manifest, local or in S3, or the manifest.json of an S3 "
            "Inventory.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Directory for the results, in the folder structure of the images. Without it, results of images in "
            "S3 are not downloaded.",
            show_default=f"{DEFAULT_OUT} for a folder",
        ),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(help="Ending of the names of results, e.g. -cutout for a-cutout.png.", show_default="a.jpg.png"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Process all images, even if they have a result with the same options.")
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Process only these files, e.g. '*.jpg' or 'shoes/*'. Repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Skip these files and folders. Repeatable.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a CSV file with a row per image, and a contact sheet beside it."),
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML file with up to 10,000 results, those to review first."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=_MAX_CONCURRENCY, help="Maximum child executions at a time.", show_default="stack"),
    ] = None,
    as_json: JsonLines = False,
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="What segments the images: the host of each, or a SageMaker Batch Transform job for all of them.",
            show_default=Engine.HOST.value,
        ),
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_INSTANCES,
            help="Maximum instances of the transform job; one for each 500 images is enough.",
            show_default="stack",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Continue a run that was interrupted, or process again what failed."),
    ] = None,
    quiet: Quiet = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Remove the background of all images in a folder, a bucket or a manifest.

    Results are written as soon as they are available. After Ctrl-C, --resume continues the run. Starts an embedded
    cloud in the background if no stack is given and none is running.

    For example:

    [bold]pbr bulk photos/ --out cutouts/ --report report.csv[/bold]

    [bold]pbr bulk s3://my-photos/2026/ --stack pbr --format webp[/bold]

    [bold]pbr bulk --resume photos-20261130-091500-1f3a[/bold]
    """
    files = {"report": _absolute(report), "contact_sheet": _absolute(contact_sheet)}
    if resume is not None:
        given = {"out": out, "suffix": suffix, "include": include, "exclude": exclude, "concurrency": concurrency}
        given |= {"engine": engine, "instances": instances}
        _check_resumption(source, {**options, **given}, overwrite=overwrite)
        state = RunState.open(resume)
        name, found = resume, None
        settings = {**state.load("settings"), **{key: path for key, path in files.items() if path}}
    else:
        found, settings = _new(source, out, options)
        settings |= {"suffix": suffix, "overwrite": overwrite, "include": include or [], "exclude": exclude or []}
        settings |= {"limits": _limits(concurrency, engine, instances), **files}
        settings |= {"stack": stack, "region": region}
        _check_suffix(suffix)
        _check_folder(settings)
        name, state = found.new_run(), None
    settings["sheet"] = bool(settings["report"] or settings["contact_sheet"])
    with silenced(quiet=quiet):
        if settings["contact_sheet"] and not settings["out"]:
            print_warning(
                "The contact sheet will have no pictures, because results stay in S3. Download them with --out."
            )
        image = settings["background_image"]
        requested = {**settings["options"], **({"background_key": image} if image else {})}
        deployed = checked_stack(requested, stack or settings["stack"], region or settings["region"])
        if found is not None:
            found.check(deployed)
            check_engine(settings["limits"].get("engine"), deployed)
            if found.folder is None:
                settings["source"] = found.request(deployed, name)
        if image:
            key = JobClient(deployed).upload_background(Path(image).name, Path(image).read_bytes())
            settings["options"]["background_key"] = key
        if state is None:
            state = RunState.create(name, settings)
        state.save("settings", settings)
        _process(deployed, name, state, settings, resumed=resume is not None, as_json=as_json)


def _process(
    stack: Stack, name: str, state: RunState, settings: dict[str, Any], *, resumed: bool, as_json: bool
) -> None:
    """Process a run, and exit with 1 if an image failed.

    Raises:
        BulkRunError: the run failed as a whole, e.g. because there is no image below a prefix.
    """
    if not resumed:
        ERR.print(f"Run {name}. Ctrl-C interrupts it; pbr bulk --resume {name} continues it.")
    if settings["limits"].get("engine") == Engine.BATCH_TRANSFORM:
        ERR.print(
            "A transform job makes the masks that are missing, which takes minutes. Results follow when it has ended."
        )
    signal.signal(signal.SIGINT, _exit_at_once(name))
    started_at = time.monotonic()
    folder = settings.get("given_folder")
    progress = BulkProgress(
        state, lambda counts: cost_usd(stack, counts, state.seconds()), folder=folder, as_json=as_json
    )
    run = BulkRun(stack, name, state, progress)
    progress.counts = run.counts
    try:
        with progress:
            run.process(resumed=resumed)
    except DiskFullError:
        raise
    except (BackgroundRemoverError, OSError, *sdk_errors()):
        ERR.print(f"Continue with pbr bulk --resume {name}.", style="yellow")
        raise
    counts = state.counts()
    _write_files(state, settings, name)
    _print_summary(counts, time.monotonic() - started_at, state.load("costs"))
    for warning in run.warnings:
        ERR.print(warning, style="yellow")
    if missing := counts["failed"] + counts["not_done"]:
        them = "it" if missing == 1 else "them"
        ERR.print(f"Repeat {them} with pbr bulk --resume {name}.")
    if run.error:
        raise BulkRunError(run.error["message"], field="execution", value=run.execution, remedy=run.error["remedy"])
    if missing:
        raise typer.Exit(1)


def _new(text: str | None, out: str | None, options: dict[str, Any]) -> tuple[Source, dict[str, Any]]:
    """Return the source of a new run, and the settings that are checked together.

    Raises:
        UsageError: if the source or --out is invalid.
    """
    if text is None:
        raise UsageError(
            "There is nothing to process", field="SOURCE", value=None, remedy="Pass a SOURCE, or --resume RUN."
        )
    source = Source.parse(text)
    background = options.pop("background_key", None)
    if background and not Path(background).is_file():
        remedy = "Pass the path of an image."
        raise UsageError("The file does not exist", field="--background-image", value=background, remedy=remedy)
    settings: dict[str, Any] = {"options": options, "out": None}
    settings["background_image"] = str(Path(background).absolute()) if background else None
    if out is None and source.folder:
        out = DEFAULT_OUT
    if out == "-":
        remedy = "Pass a directory."
        raise UsageError("Results are not written to standard output", field="--out", value=out, remedy=remedy)
    if out is not None:
        destination = Destination.parse(out)
        destination.check(2)  # a directory
        settings["out"] = str(destination.path.absolute())
    if source.folder:
        settings |= {"folder": str(source.folder), "given_folder": text}
        if settings["out"] and Path(settings["out"]).resolve() == source.folder.resolve():
            raise UsageError(
                "Results would be mixed with the images, and processed by the next run",
                field="--out",
                value=out,
                remedy="Use another directory. It may be inside of SOURCE.",
            )
    return source, settings


def _check_resumption(source: str | None, given: dict[str, Any], *, overwrite: bool) -> None:
    """Check that nothing is given that the run was started with."""
    names = [name for name, value in given.items() if value not in (None, [])]
    if source is not None or names or overwrite:
        name = "SOURCE" if source is not None else f"--{(names or ['overwrite'])[0].replace('_', '-')}"
        raise UsageError(
            "A run continues with the source and the options that it was started with",
            field=name,
            value=source,
            remedy=f"Remove {name}, or start another run without --resume.",
        )


def _limits(concurrency: int | None, engine: Engine | None, instances: int | None) -> dict[str, Any]:
    """Return the fields of the run's input that are set.

    Raises:
        UsageError: if there is a number of instances, but no transform job.
    """
    if instances and engine is not Engine.BATCH_TRANSFORM:
        raise UsageError(
            "Only a transform job has instances",
            field="--instances",
            value=instances,
            remedy="Add --engine batch-transform, or set --concurrency.",
        )
    given = {"max_concurrency": concurrency, "engine": engine.value if engine else None, "instances": instances}
    return {name: value for name, value in given.items() if value is not None}


def _check_suffix(suffix: str | None) -> None:
    if suffix is not None and ("/" in suffix or not suffix.isprintable()):
        raise UsageError(
            "The suffix is not part of a file name", field="--suffix", value=suffix, remedy="Use e.g. -cutout."
        )


def _check_folder(settings: dict[str, Any]) -> None:
    """Check that the folder has something to process, before an embedded cloud starts."""
    if folder := settings.get("folder"):
        skip = [settings["out"]] if settings["out"] else []
        if next(walk(folder, settings["include"], settings["exclude"], skip), None) is None:
            raise UsageError(
                "The folder contains no image",
                field="SOURCE",
                value=folder,
                remedy="Pass another folder, or the names of the images with --include.",
            )


def _write_files(state: RunState, settings: dict[str, Any], name: str) -> None:
    """Write the report and the contact sheet.

    Raises:
        BulkRunError: one of them cannot be written.
    """
    report, sheet = settings["report"], settings["contact_sheet"]
    sheet = sheet or (report and str(Path(report).with_suffix(".html")))
    try:
        if report:
            write_report(state, Path(report))
            ERR.print(f"Report: {report}")
        if sheet:
            write_sheet(state, Path(sheet), f"Results of {name}")
            ERR.print(f"Contact sheet: {sheet}")
    except OSError as error:
        raise BulkRunError(
            f"The run has ended, but a file cannot be written: {error.strerror}",
            field="--report" if report else "--contact-sheet",
            value=error.filename,
            remedy=f"Write it elsewhere with pbr bulk --resume {name} --report FILE, which also repeats what failed.",
        ) from None


def _print_summary(counts: Counter[str], seconds: float, costs: dict[str, float] | None) -> None:
    parts = [f"{counts['done']} done", f"{counts['cached']} cached"]
    parts += [f"{counts['kept']} kept"] if counts["kept"] else []
    parts += [f"{counts['review']} to review", f"{counts['failed']} failed"]
    parts += [f"{counts['not_done']} not done"] if counts["not_done"] else []
    parts += [duration(seconds)]
    if costs:
        parts.append(f"{dollars(sum(costs.values()))} at list prices of AWS")
    ERR.print(", ".join(parts), style="bold")


def _absolute(path: Path | None) -> str | None:
    return str(path.absolute()) if path else None


def _exit_at_once(name: str) -> Callable[..., NoReturn]:
    """Return a handler that exits on Ctrl-C without waiting for threads, which cannot be interrupted."""

    def handle(*_: object) -> NoReturn:
        remove_partial_files()
        ERR.show_cursor()
        ERR.print(
            "Interrupted. Images that were uploaded are still processed if the execution has started. Continue with "
            f"pbr bulk --resume {name}.",
            style="yellow",
        )
        os._exit(_INTERRUPTED)

    return handle
