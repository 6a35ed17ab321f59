"""The command line ``pbr``."""

import os
import signal
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from botocore.exceptions import BotoCoreError, ClientError
from typer.core import TyperGroup

from client import dead_letters, embedded, history, keys, models, redrive, screen
from client.batch import STDIN, Picture, process, process_all
from client.errors import StackUnavailableError, UsageError
from client.jobs import Jobs
from client.stack import Stack, is_local
from core.errors import BackgroundRemoverError, InvalidOptionsError
from core.options import Host, Metadata, Options, Output, OutputFormat
from core.segmentation.registry import Model, check_name, names, with_custom
from core.types import Precision
from embedded_cloud.cloud import DEFAULT_REGION, EmbeddedCloud
from functions.contracts.api_key import KNOWN_FOR_S, MAX_RATE_PER_MINUTE, Scope
from functions.contracts.history import rows

OUT = screen.console()
"""What was asked for."""

SAY = screen.console(stderr=True)
"""What is told on the way: a pipe that takes a result does not get it."""

_COUNTED: Final = 1000
_INTERRUPTED: Final = 130  # what shells answer for a process that Ctrl-C ended


class _Commands(TyperGroup):
    """Tells errors as one line with their remedy; all else would be a defect of ours and keeps its trace."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # who read our output has seen enough
            raise
        except (UsageError, InvalidOptionsError) as error:
            _tell(screen.error_text(error))
            raise typer.Exit(2) from None
        except (BackgroundRemoverError, BotoCoreError, ClientError, OSError) as error:
            _tell(screen.error_text(error))
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Cut subjects out of photographs, on AWS or on an embedded cloud on this machine.",
    epilog=(
        "Which cloud: --stack (or PBR_STACK) names one on AWS; else AWS_ENDPOINT_URL; else the embedded cloud that "
        "runs; pbr process starts one in the background if there is none, and pbr down stops it.\n\n"
        "Exit codes: 0 all went well; 1 something failed, such as one of many pictures; 2 wrong use, nothing was done."
    ),
)

models_app = typer.Typer(invoke_without_command=True)
app.add_typer(models_app, name="models")

keys_app = typer.Typer(no_args_is_help=True, help="Keys of the HTTP API: who may use it, for what, and how much.")
app.add_typer(keys_app, name="keys")

StackName = Annotated[
    str | None, typer.Option("--stack", envvar="PBR_STACK", help="A stack on AWS.", show_default="embedded cloud")
]
Region = Annotated[
    str | None, typer.Option("--region", envvar="AWS_REGION", help="Its AWS region.", show_default="the SDK's")
]


AsJson = Annotated[bool, typer.Option("--json", help="All facts, for scripts.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


class Queue(StrEnum):
    """A dead-letter queue."""

    UPLOADS = "uploads"
    RECONCILE = "reconcile"
    SEGMENTATION = "segmentation"
    WEBHOOKS = "webhooks"


@app.command("process")
def process_files(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Pictures; - is standard input.", show_default=False)
    ],
    precision: Annotated[Precision | None, typer.Option(help="Work put into the edge.", show_default="high")] = None,
    format_: Annotated[
        OutputFormat | None,
        typer.Option(
            "--format", help="Of the result; jpeg is on white unless there is a background.", show_default="png"
        ),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(help="Of webp, avif, jpeg and zip, 1 to 100.", show_default="90")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help=f"One of: {', '.join(names())}, or the stack's own.", show_default="the stack's"),
    ] = None,
    background_color: Annotated[
        str | None,
        typer.Option(help="Put the subject on this colour, #rrggbb, or translucent #rrggbbaa.", show_default=False),
    ] = None,
    background_image: Annotated[
        Path | None, typer.Option(help="Put the subject on this picture.", show_default=False)
    ] = None,
    crop: Annotated[bool, typer.Option("--crop", help="Crop to the subject.")] = False,
    crop_margin: Annotated[
        str | None,
        typer.Option(help='Room around it: 0 to 1 of its longer side, or as CSS: "10% 20px".', show_default="0"),
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="Size of the subject in the result, 10% to 100%.", show_default="original")
    ] = None,
    position: Annotated[
        str | None,
        typer.Option(
            help='Where it lies: original, center, or "20% 100%".', show_default="original; with a scale center"
        ),
    ] = None,
    max_megapixels: Annotated[
        float | None, typer.Option(help="Scale the result down to at most so many.", show_default=False)
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(help='Look for a subject in this region only: "10% 0px 90% 800px".', show_default=False),
    ] = None,
    metadata: Annotated[
        Metadata | None, typer.Option(help="EXIF data that the result carries.", show_default="no_location")
    ] = None,
    mask_only: Annotated[bool, typer.Option("--mask-only", help="The alpha alone, as a grey picture.")] = False,
    host: Annotated[Host | None, typer.Option(help="Where segmentation runs.", show_default="the stack's")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Directory of the results; - is standard output, for one picture.", show_default="out"
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that each picture's execution may take.")] = 900,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Cut the subject out of pictures: NAME.png and NAME.json, all that is known of it, for each.

    Options go with the pictures, so they mean the same as on an upload by any other way.

    Standard input goes to standard output, unless that is a terminal or --out is given:
    [bold]pbr process - < photo.jpg > cut.png[/bold]
    """
    options = {
        "precision_level": precision,
        "format": format_,
        "quality": quality,
        "model": model,
        "background_color": background_color,
        "background_key": str(background_image) if background_image else None,
        "crop": crop or None,
        "crop_margin": crop_margin,
        "scale": scale,
        "position": position,
        "max_megapixels": max_megapixels,
        "roi": roi,
        "metadata": metadata,
        "output": Output.MASK if mask_only else None,
        "segmentation_host": host,
    }
    options = {name: value for name, value in options.items() if value is not None}
    Options.parse(options)
    if files.count(STDIN) > 1:
        raise UsageError("Standard input holds one picture", field="FILES", value="- -", remedy="Give - once.")
    to_stdout = out == STDIN or (out is None and files == [STDIN] and not sys.stdout.isatty())
    if to_stdout and len(files) > 1:
        raise UsageError(
            "Standard output takes one picture", field="--out", value="-", remedy="Give a directory, or one picture."
        )
    where = _find_stack(stack, region)
    _check_model(model, with_custom(where.parameters.get("CustomModels", "")) if where else models.registry())
    jobs = Jobs(where or _start_cloud())
    signal.signal(signal.SIGINT, _leave)
    if background_image:
        options["background_key"] = jobs.upload_background(background_image.name, background_image.read_bytes())
    pictures = [Picture(path) for path in files]
    context, shown = screen.progress(SAY)
    with context:
        if to_stdout:
            result = process(jobs, pictures[0], options, shown, timeout)
            sys.stdout.buffer.write(result.data)
            for warning in screen.warnings_of(result.sidecar):
                _warn(warning)
            return
        delivered = process_all(jobs, pictures, options, out or Path("out"), shown, timeout)
    if len(delivered) < len(pictures):
        raise typer.Exit(1)


@app.command()
def demo(
    image: Annotated[
        Path | None, typer.Argument(help="A photograph.", show_default="one that comes with scikit-image")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the results.")] = Path("out"),
) -> None:
    """Take one photograph through the whole pipeline and show what happens, on a cloud of its own that ends with it."""
    from client.demo import run

    run(image, out, OUT)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port on localhost; 0: any free one.")] = 5555,
    api_port: Annotated[int, typer.Option(help="Port of the HTTP API; 0: any free one.")] = 8080,
    model: Annotated[
        str | None, typer.Option(help="Default model.", show_default="the best whose weights can be had")
    ] = None,
    host: Annotated[Host, typer.Option(help="Default host of segmentation; uploads can ask for any.")] = Host.LAMBDA,
    parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the template; as often as needed.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List each thing that has no effect here.")] = False,
) -> None:
    """Run an embedded cloud: template.yaml deployed on this machine, for any AWS SDK or CLI. Ctrl-C stops it.

    Weights are looked for in PBR_MODEL_DIR, then fetched from PBR_MODEL_MIRROR or from rembg's releases.
    """
    _check_model(model, models.registry())
    given = embedded.parse_parameters(parameter or [])
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    with embedded.registered(embedded.state_directory()) as enter:
        chosen = embedded.choose_model(model)
        parameters = {**embedded.parameters(chosen, host, all_hosts=True), **given}
        with EmbeddedCloud(embedded.template(), parameters, port=port, api_port=api_port) as cloud:
            enter(embedded.Cloud(cloud.endpoint_url, cloud.region, cloud.stack_name, os.getpid(), chosen))
            _introduce(cloud, chosen, verbose=verbose)
            stop.wait()
            SAY.print("Stopping ...")


@app.command()
def down() -> None:
    """Stop the embedded cloud. All that lies in its buckets is gone with it."""
    stopped = embedded.stop(embedded.state_directory())
    OUT.print(f"Stopped the cloud at {stopped.endpoint_url}." if stopped else "No embedded cloud runs.")


@models_app.callback()
def list_models(
    context: typer.Context,
    verify: Annotated[bool, typer.Option("--verify", help="Check the SHA-256 of what is here.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the segmentation models: licence, what each one takes, and where its weights are or would come from.

    Weights are looked for in PBR_MODEL_DIR, then fetched from PBR_MODEL_MIRROR or from rembg's releases. Models of your
    own are described in PBR_CUSTOM_MODELS.
    """
    if context.invoked_subcommand:
        return
    where = models.source()
    entries = models.entries(where, verify=verify)
    if as_json:
        OUT.print_json(data=[entry.facts() for entry in entries])
        return
    OUT.print(screen.models_table(entries), soft_wrap=False)
    for line in screen.about_models(entries, where.base):
        OUT.print(line)


@models_app.command("fetch")
def fetch_models(
    chosen: Annotated[list[str] | None, typer.Argument(metavar="NAMES", help="Models.", show_default=False)] = None,
    all_free: Annotated[bool, typer.Option("--all-free", help="All that are free for commercial use.")] = False,
    to: Annotated[
        str | None,
        typer.Option(
            help="A directory, or s3://bucket/prefix for a stack's ModelBucket.",
            show_default="PBR_MODEL_DIR, or the user's cache",
        ),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Base URL that serves the files: https://, s3:// or file://.",
            show_default="PBR_MODEL_MIRROR, or rembg's releases",
        ),
    ] = None,
) -> None:
    """Have the weights of models here, verified. What is here already is verified too.

    With a bucket, they go there from here: [bold]pbr models fetch birefnet-general --to s3://my-models[/bold]
    """
    bucket = to if to and to.startswith("s3://") else None
    where = models.source(directory=Path(to) if to and not bucket else None, mirror=mirror)
    wanted = models.chosen(chosen or [], where, all_free=all_free)
    with screen.Transfers(SAY) as shown:
        complete = models.fetch(wanted, where, shown, bucket=bucket)
    if not complete:
        raise typer.Exit(1)


@app.command("history")
def show_history(
    execution: Annotated[
        str | None, typer.Argument(help="An execution: ARN, name, or the start of its name.", show_default=False)
    ] = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="Show what went into each state and came out.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=_COUNTED, help="How many executions to list.")] = 20,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """List the latest executions, or the events of one."""
    where = _stack(stack, region)
    if execution is None:
        OUT.print(screen.executions_table(history.recent(where, limit)), soft_wrap=False)
        return
    events = history.events_of(where, history.find(where, execution), with_data=inputs)
    table = rows(events)
    OUT.print(screen.events_table(table), soft_wrap=False)
    if inputs:
        screen.print_data(OUT, table)


@app.command("redrive")
def redrive_executions(
    executions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXECUTIONS",
            help="Executions: ARN, name, the start of a name, or the key of an upload that has a report.",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that ended without success since --since.")] = False,
    since: Annotated[str | None, typer.Option(help="How long ago, as 30m, 1h or 2d.", show_default="1h")] = None,
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for how they end.")] = False,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Bring failed executions back to life: where they stopped if Step Functions can, else as new ones.

    A new execution has the same input, and a name made of the old one's, so that none is started twice. What would
    fail again or is not needed is skipped, unless it is named: the upload's own faults, uploads that have their result,
    or were replaced or deleted since.
    """
    if bool(executions) == failed:
        raise UsageError(
            "Which executions is not clear", field="EXECUTIONS", value=None, remedy="Name some, or give --failed."
        )
    if since and not failed:
        raise UsageError("Only --failed asks since when", field="--since", value=since, remedy="Give --failed with it.")
    ago = redrive.duration(since or "1h", "--since")
    where = _stack(stack, region)
    if executions:
        arns = [redrive.find(where, execution) for execution in executions]
    else:
        arns = redrive.failed_since(where, datetime.now(UTC) - ago)
    recoveries = redrive.plan(where, arns, named=not failed)
    if not dry_run:
        recoveries = list(redrive.carry_out(where, recoveries))
        if wait:
            recoveries = list(redrive.follow(where, recoveries))
    if as_json:
        OUT.print_json(data=[recovery.facts() for recovery in recoveries])
    elif recoveries:
        OUT.print(screen.recoveries_table(recoveries, followed=wait and not dry_run), soft_wrap=False)
    else:
        OUT.print("No execution has failed in that time.")
    if any(recovery.how == "refused" or recovery.failed_again for recovery in recoveries):
        raise typer.Exit(1)


@app.command("replay-dlq")
def replay_dead_letters(
    queue: Annotated[Queue | None, typer.Argument(help="Which one.", show_default="all")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many messages of each.", show_default="all")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete what there is nothing to be done for.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Deliver again what could not be delivered, events and webhooks, and explain jobs that no worker answered.

    A message is deleted once its delivery is confirmed; what needs none any more, with --purge.
    """
    where = _stack(stack, region)
    letters = [
        letter
        for one in ([queue] if queue else Queue)
        for letter in dead_letters.go_through(where, one.value, limit=limit, dry_run=dry_run, purge=purge)
    ]
    if as_json:
        OUT.print_json(data=[letter.facts() for letter in letters])
    elif letters:
        OUT.print(screen.letters_table(letters), soft_wrap=False)
    else:
        OUT.print("There are no messages.")
    if any(letter.fate == "refused" for letter in letters):
        raise typer.Exit(1)


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.", show_default=False)],
    scopes: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help="What it may be used for; again for more.", show_default="process, read"),
    ] = None,
    rate: Annotated[
        int | None, typer.Option(min=1, max=MAX_RATE_PER_MINUTE, help="Requests a minute.", show_default="the stack's")
    ] = None,
    quota: Annotated[int | None, typer.Option(min=0, help="Pictures a month.", show_default="the stack's")] = None,
    expires: Annotated[
        str | None, typer.Option(help="How long it is good, as 12h or 90d.", show_default="no end")
    ] = None,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Make a key. It is shown this once, alone on standard output.

    So a script can take it: [bold]KEY=$(pbr keys create laptop)[/bold]
    """
    lifetime = redrive.duration(expires, "--expires") if expires else None
    issued = keys.create(
        _stack(stack, region),
        name,
        scopes or [Scope.PROCESS, Scope.READ],
        rate_per_minute=rate,
        monthly_quota=quota,
        lifetime=lifetime,
        now=_this_second(),
    )
    _print_issued(issued, as_json=as_json)


@keys_app.command("list")
def list_keys(as_json: AsJson = False, stack: StackName = None, region: Region = None) -> None:
    """List the keys: what they may do, and what they have done this month."""
    entries = keys.entries(_stack(stack, region), datetime.now(UTC))
    if as_json:
        OUT.print_json(data=[entry.facts() for entry in entries])
    elif entries:
        OUT.print(screen.keys_table(entries), soft_wrap=False)
    else:
        OUT.print("There are no keys. Make one with pbr keys create.")


KeyId = Annotated[str, typer.Argument(metavar="ID", help="Its id, or the key itself.", show_default=False)]


@keys_app.command("rotate")
def rotate_key(
    key: KeyId,
    grace: Annotated[str, typer.Option(help="How long it still opens with its secret of today; 0m: no more.")] = "24h",
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Give a key another secret, and show it as create does. Its id, its limits and its jobs stay."""
    period = redrive.duration(grace, "--grace")
    _print_issued(keys.rotate(_stack(stack, region), key, period, _this_second()), as_json=as_json)


@keys_app.command("revoke")
def revoke_key(key: KeyId, stack: StackName = None, region: Region = None) -> None:
    """End a key for good."""
    record = keys.revoke(_stack(stack, region), key, _this_second())
    OUT.print(f"Revoked {record.key_id}, {record.name}. Where it was just used it is let in for up to {KNOWN_FOR_S} s.")


@keys_app.command("webhook-secret")
def show_webhook_secret(
    caller: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A key's id, the key itself, or for a caller with AWS credentials the ARN that "
            "aws sts get-caller-identity has.",
            show_default=False,
        ),
    ],
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Show what a caller's webhooks are signed with."""
    OUT.print(keys.webhook_secret(_stack(stack, region), caller))


def _print_issued(issued: keys.Issued, *, as_json: bool) -> None:
    """Print a key, and nothing else where a script may take it."""
    if as_json:
        OUT.print_json(data=issued.facts())
        return
    OUT.print(issued.key.reveal())
    for line in screen.about_key(issued):
        SAY.print(line)


def _this_second() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@app.command()
def status(stack: StackName = None, region: Region = None) -> None:
    """Show which cloud is in use, what it consists of, and what it is doing."""
    where = _stack(stack, region)
    cloud = embedded.running(embedded.state_directory())
    kind = f"embedded at {where.endpoint_url}" if where.endpoint_url else f"AWS, {where.region}"
    pid = f", process {cloud.pid}" if cloud and cloud.endpoint_url == where.endpoint_url else ""
    waiting, in_work = where.messages("QueueUrl")
    facts = {
        "cloud": f"{where.name}, {kind}{pid}",
        "uploads": f"s3://{where.outputs['UploadsBucket']}",
        "results": f"s3://{where.outputs['ResultsBucket']}",
        "work": f"s3://{where.outputs['WorkBucket']}",
        "state machine": where.outputs["StateMachineArn"],
        "api": where.outputs.get("ApiUrl", "none"),
        "model": where.parameters.get("DefaultModel", "unknown"),
        "host": where.parameters.get("SegmentationHost", "unknown"),
        "executions": ", ".join(
            f"{_count(where, status)} {status.lower().replace('_', ' ')}"
            for status in ("RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")
        ),
        "worker's queue": f"{waiting} waiting, {in_work} in work",
        "dead letters": ", ".join(
            f"{where.messages(output)[0]} {queue}"
            for queue in Queue
            if (output := f"{queue.title()}DeadLetterQueueUrl") in where.outputs
        ),
    }
    for name, fact in facts.items():
        OUT.print(f"{name:<15} {fact}")


def _leave(*_: object) -> None:
    """End at once on Ctrl-C: threads that wait for pictures cannot be interrupted."""
    SAY.show_cursor()
    SAY.print("Stopped. What is uploaded is processed all the same: see pbr history.", style="yellow")
    os._exit(_INTERRUPTED)


def _check_model(name: str | None, registry: Mapping[str, Model]) -> None:
    if name not in (None, "auto"):
        check_name(name, registry)


def _stack(name: str | None, region: str | None) -> Stack:
    """Return the stack that is meant.

    Raises:
        StackUnavailableError: there is none.
    """
    found = _find_stack(name, region)
    if found is None:
        raise StackUnavailableError(
            "No embedded cloud runs",
            field="--stack",
            value=None,
            remedy="Start one with pbr up or pbr process, or name a stack on AWS.",
        )
    return found


def _find_stack(name: str | None, region: str | None) -> Stack | None:
    """Return the stack that is meant; None if that is an embedded cloud, and none runs.

    Args:
        name: of a stack on AWS; None for an embedded cloud.
        region: of AWS.

    Raises:
        StackUnavailableError: there is no stack of that name.
    """
    endpoint_url = os.environ.get("AWS_ENDPOINT_URL")
    if name or endpoint_url:
        region = region or (
            DEFAULT_REGION if is_local(endpoint_url) and "AWS_DEFAULT_REGION" not in os.environ else None
        )
        return Stack.connect(name or EmbeddedCloud.stack_name, region=region, endpoint_url=endpoint_url)
    cloud = embedded.running(embedded.state_directory())
    return _connect(cloud) if cloud else None


def _start_cloud() -> Stack:
    """Start an embedded cloud in the background."""
    with SAY.status("Starting an embedded cloud in the background ..."):
        cloud = embedded.start(embedded.state_directory())
    SAY.print(f"Started an embedded cloud at {cloud.endpoint_url}; pbr down stops it.")
    if cloud.model.limited:
        _warn(cloud.model.why)
    return _connect(cloud)


def _connect(cloud: embedded.Cloud) -> Stack:
    return Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)


def _introduce(cloud: EmbeddedCloud, model: embedded.Model, *, verbose: bool) -> None:
    """Tell what a cloud is, how to use it, and what it does not do."""
    OUT.print(f"# The embedded cloud is up at {cloud.endpoint_url}. Ctrl-C stops it.")
    OUT.print(f"# Default model: {model.name} ({model.why})")
    for name, value in cloud.outputs.items():
        OUT.print(f"# {name}: {value}")
    kinds = cloud.skipped_by_reason()
    if verbose:
        for (what, why), names in kinds.items():
            OUT.print(f"# Without effect here: {what} ({', '.join(names)}): {why}")
    else:
        OUT.print(f"# Without effect here: {', '.join(sorted({what for what, _ in kinds}))} (reasons: --verbose)")
    for name, value in cloud.environment.items():
        OUT.print(f"export {name}={value}")
    uploads, results = cloud.outputs["UploadsBucket"], cloud.outputs["ResultsBucket"]
    OUT.print(
        f"aws s3 cp photo.jpg s3://{uploads}/photos/photo.jpg --metadata pbr-format=png\n"
        f"aws s3 cp s3://{results}/results/photos/photo.png .\n"
        "KEY=$(pbr keys create laptop)\n"
        f'curl -H "X-API-Key: $KEY" -F image=@photo.jpg {cloud.outputs["ApiUrl"]}/process'
    )


def _count(stack: Stack, status: Any) -> str:
    """Count executions, as far as it is worth the calls."""
    pages = stack.stepfunctions.get_paginator("list_executions").paginate(
        stateMachineArn=stack.outputs["StateMachineArn"],
        statusFilter=status,
        PaginationConfig={"MaxItems": _COUNTED, "PageSize": _COUNTED},
    )
    count = sum(len(page["executions"]) for page in pages)
    return f"{count}+" if count == _COUNTED else str(count)


def _tell(error: str) -> None:
    SAY.print(f"error: {error}", style="red")


def _warn(what: str) -> None:
    SAY.print(f"warning: {what}", style="yellow")


if __name__ == "__main__":
    app()
