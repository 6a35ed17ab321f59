"""``pbr up``: run an embedded cloud."""

import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from client import local_cloud, local_models
from client.commands.console import ERR, OUT
from client.commands.models.weights import model_source
from client.commands.options import parse_idle_limit
from client.commands.progress import DownloadProgress
from client.errors import UsageError
from client.fingerprint import Fingerprint
from client.local_cloud import APP, CloudOptions, DefaultModel, RunningCloud
from client.stack import NOMINAL_MEMORY_MB
from core.options import Host, read_presets
from core.segmentation.registry import BUNDLED, CLASSICAL
from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.deploy import parameter_names
from functions.runtime.weights import ModelSource, best_available, candidates

IMAGE_URI: Final = f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/{APP}:working-tree"
"""Image of the worker and the endpoint. It is never pulled: both run from the working tree."""

_CHECK_S: Final = 5.0

_SHOWN_OUTPUTS: Final = ("UploadsBucket", "ResultsBucket", "ApiUrl")

# The best model has 224 MB. An unreachable mirror fails within three seconds.
_MODEL_TIMEOUT_S: Final = 120.0

_MEMORY_MB: Final = dict.fromkeys(("SegmentMemory", "RefineMemory", "EncodeMemory"), str(NOMINAL_MEMORY_MB))


def up(
    port: Annotated[int, typer.Option(help="Port of the AWS endpoint on localhost; 0 for any free port.")] = 5555,
    api_port: Annotated[int, typer.Option(help="Port of the HTTP API on localhost; 0 for any free port.")] = 8080,
    model: Annotated[str | None, typer.Option(help="Default model.", show_default="best available model")] = None,
    host: Annotated[
        Host, typer.Option(help="Where segmentation runs by default. Each upload can set another host.")
    ] = Host.LAMBDA,
    parameter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Template parameter. Repeat for several.", show_default=False),
    ] = None,
    stop_after: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Stop if there is no request and no running execution for this time, e.g. 30m; never for no limit.",
        ),
    ] = "never",
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Print all outputs of the stack, and the template resources and properties that the cloud ignores.",
        ),
    ] = False,
    chosen_model: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run an embedded cloud on this machine, until Ctrl-C.

    It deploys template.yaml and serves any AWS SDK or CLI. Each project directory has its own cloud. Weights are read
    from PBR_MODEL_DIR, or else downloaded from PBR_MODEL_MIRROR or rembg's release. If that takes more than two minutes
    or is interrupted with Ctrl-C, u2netp is the default model.

    For example: [bold]pbr up --model u2net --parameter CacheDays=1[/bold]
    """
    local_models.check_model(model, local_models.registry())
    fingerprint = local_models.fingerprint()  # before the code is imported that may change
    overrides = parse_parameters(parameter or [])
    limit = parse_idle_limit(stop_after, "--stop-after")
    stop = threading.Event()
    with local_cloud.registered(local_cloud.state_directory()) as register:
        for option, wanted in (("--port", port), ("--api-port", api_port)):
            local_cloud.check_port(option, wanted)
        # Until here, Ctrl-C skips a download. The process that starts a cloud in the background has chosen the model.
        default = best_here(chosen_model) if chosen_model else choose_model(model)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: stop.set())
        parameters = {**stack_parameters(default, host, all_hosts=True), **overrides}
        with EmbeddedCloud(local_cloud.template(), parameters, port=port, api_port=api_port) as cloud:
            cloud.start_functions()
            options = CloudOptions(port, api_port, model, host.value, parameter or [], stop_after)
            register(_state(cloud, default, options, fingerprint))
            _print_introduction(cloud, default, verbose=verbose)
            if wait_for_end(stop, cloud.idle_s, limit.total_seconds() if limit else None):
                ERR.print(f"{datetime.now():%Y-%m-%d %H:%M:%S} No request and no execution for {stop_after}.")
            register(None)
            ERR.print("Stopping ...")


def wait_for_end(stop: threading.Event, idle_s: Callable[[], float], limit_s: float | None) -> bool:
    """Wait until a cloud should stop. Return whether it was idle for too long.

    Args:
        stop: is set when it is stopped.
        idle_s: returns how long it has been idle.
        limit_s: limit of that; None for no limit.
    """
    if limit_s is None:
        stop.wait()
        return False
    while (left := limit_s - idle_s()) > 0:
        if stop.wait(min(left, _CHECK_S)):
            return False
    return True


def _state(cloud: EmbeddedCloud, model: DefaultModel, options: CloudOptions, fingerprint: Fingerprint) -> RunningCloud:
    return RunningCloud(
        cloud.endpoint_url,
        cloud.region,
        cloud.stack_name,
        os.getpid(),
        model,
        project=str(local_cloud.ROOT),
        api_url=cloud.outputs["ApiUrl"],
        options=options,
        outputs=cloud.outputs,
        environment=cloud.environment,
        fingerprint=fingerprint,
    )


def choose_model(name: str | None, source: ModelSource | None = None) -> DefaultModel:
    """Return the default model of a cloud: the named one, or for None or ``auto`` the best available one.

    Downloads its weights if necessary, with a progress bar. Ctrl-C skips the download.

    Args:
        name: of the model; None and ``auto`` choose one.
        source: where the weights are, or are downloaded from; None for the environment's.
    """
    if name not in (None, "auto"):
        return DefaultModel(name, "requested", limited=False)
    source = source or model_source(_MODEL_TIMEOUT_S)
    try:
        with DownloadProgress(ERR) as listener:
            found = best_available(source, listener.moved)
    except KeyboardInterrupt:
        found = best_available(source, download=False)
        ERR.print(f"Download skipped, {found} is used. The next download continues where this one stopped.")
    if found == CLASSICAL:
        return DefaultModel(
            found,
            "no network weights are available, so the built-in classical segmenter is used and quality is limited; "
            "run make setup, or set PBR_MODEL_DIR or PBR_MODEL_MIRROR",
            limited=True,
        )
    if found == BUNDLED:
        return DefaultModel(found, "included", limited=False, hint=_better_model(source))
    return DefaultModel(found, f"best available free model, {source.find(found)}", limited=False)


def best_here(name: str) -> DefaultModel:
    """Return the default model that was chosen as the best available one."""
    return DefaultModel(name, "best available", limited=name == CLASSICAL)


def _better_model(source: ModelSource) -> str:
    """Return how to get a better model than the bundled one; an empty text if this machine can run none."""
    better = next((model for model in candidates(source) if source.find(model.name) is None), None)
    if better is None:
        return ""
    return f"For better cut-outs: pbr models fetch {better.name} ({better.bytes / 1e6:.0f} MB)"


def stack_parameters(model: DefaultModel, host: Host, *, all_hosts: bool) -> dict[str, str]:
    """Return the template parameters of an embedded cloud.

    Args:
        model: default model.
        host: default host of segmentation; auto for the template's default.
        all_hosts: deploy the ECS worker and the SageMaker endpoint, whatever the default host is.
    """
    directories = os.pathsep.join(str(directory) for directory in local_models.directories())
    values = {
        "DefaultModel": model.name,
        "ModelDirectory": directories,
        "BulkConcurrency": str(os.cpu_count() or 1),
        **_MEMORY_MB,
    }
    if mirror := os.environ.get("PBR_MODEL_MIRROR"):
        values["ModelMirror"] = mirror
    if custom := os.environ.get("PBR_CUSTOM_MODELS"):
        values["CustomModels"] = custom
    if host is not Host.AUTO:
        values["SegmentationHost"] = host.value
    if all_hosts:
        values |= {
            "WorkerImageUri": IMAGE_URI,
            "WorkerSubnets": "subnet-embedded",
            "WorkerSecurityGroups": "sg-embedded",
            "SageMakerImageUri": IMAGE_URI,
        }
    return values


def parse_parameters(pairs: Iterable[str]) -> dict[str, str]:
    """Return template parameters from texts ``NAME=VALUE``.

    Raises:
        UsageError: if a text has no value, or the template has no such parameter.
        InvalidOptionsError: if the presets are invalid.
    """
    known, values = parameter_names(local_cloud.template()), {}
    for text in pairs:
        name, is_pair, value = text.partition("=")
        if not is_pair or name not in known:
            raise UsageError(
                "Invalid template parameter",
                field="--parameter",
                value=text,
                remedy=f"Use NAME=VALUE. The parameters are: {', '.join(known)}.",
            )
        values[name] = value
    read_presets(values.get("Presets", ""))
    return values


def _print_introduction(cloud: EmbeddedCloud, model: DefaultModel, *, verbose: bool) -> None:
    """Print the cloud's addresses, its limits, and commands to try."""
    OUT.print(f"The embedded cloud of {local_cloud.ROOT} is running at {cloud.endpoint_url}. Press Ctrl-C to stop it.")
    OUT.print(f"Default model: {model.name} ({model.reason})")
    if model.hint:
        OUT.print(model.hint)
    for name in cloud.outputs if verbose else _SHOWN_OUTPUTS:
        OUT.print(f"{name}: {cloud.outputs[name]}")
    ignored = cloud.skipped_by_reason()
    if verbose:
        for (kind, reason), names in ignored.items():
            OUT.print(f"Ignored: {kind} ({', '.join(names)}): {reason}")
    else:
        kinds = len({kind for kind, _ in ignored})
        OUT.print(f"Ignored: {kinds} resource types and properties of the template. --verbose lists them.")
    pbr = _command()
    OUT.print(
        "\nIn another terminal:\n\n"
        f'eval "$({pbr} env)"\n'
        'aws s3 cp photo.jpg "s3://$PBR_UPLOADS/photos/photo.jpg" --metadata pbr-format=png\n'
        'aws s3api wait object-exists --bucket "$PBR_RESULTS" --key results/photos/photo.jpg.png\n'
        'aws s3 cp "s3://$PBR_RESULTS/results/photos/photo.jpg.png" .\n'
        f"KEY=$({pbr} keys create laptop)\n"
        'curl -f -H "X-API-Key: $KEY" -F file=@photo.jpg -o cutout.png "$PBR_API_URL/api/remove"'
    )


def _command() -> str:
    """Return the command that runs pbr in any directory."""
    path = Path(sys.argv[0]).absolute()
    if path.name != "pbr":
        return "pbr"
    return "pbr" if shutil.which("pbr") == str(path) else shlex.quote(str(path))
