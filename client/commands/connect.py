"""The stack that a command uses: one on AWS, or the embedded cloud of this project directory."""

import os
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from client import fingerprint, local_cloud, local_models
from client.commands.console import ERR, print_warning
from client.commands.models import weights
from client.commands.options import parse_idle_limit
from client.commands.progress import TransferProgress
from client.errors import StackUnavailableError, UsageError
from client.fingerprint import WEIGHTS, summary
from client.local_cloud import CloudOptions, DefaultModel, RunningCloud
from client.stack import DEFAULT_NAME, DEFAULT_REGION, Stack, is_local
from core.segmentation.registry import CLASSICAL

STOP_AFTER: Final = "PBR_STOP_AFTER"
"""Variable with the idle time after which a cloud stops that ``pbr process`` has started."""

_STOP_AFTER: Final = "15m"


def connect(name: str | None, region: str | None) -> Stack:
    """Return the stack to use.

    Raises:
        StackUnavailableError: if the stack does not exist, or no embedded cloud is ready.
    """
    found = find_stack(name, region)
    if found is None and local_cloud.is_busy(local_cloud.state_directory()):
        raise StackUnavailableError(
            "The embedded cloud is starting or stopping",
            field="project",
            value=str(local_cloud.ROOT),
            remedy="Try again in a few seconds.",
        )
    if found is None:
        raise StackUnavailableError(
            "No embedded cloud is running",
            field="--stack",
            value=None,
            remedy="Start one with pbr up or pbr process, or pass the name of a stack on AWS with --stack.",
        )
    return found


def find_stack(name: str | None, region: str | None) -> Stack | None:
    """Return the stack to use, or None if that is an embedded cloud and none is running.

    Args:
        name: name of a stack on AWS; None for the one at AWS_ENDPOINT_URL, or else the running embedded cloud.
        region: AWS region; None for the default.

    Raises:
        StackUnavailableError: if the stack does not exist.
    """
    endpoint_url = _endpoint_url()
    if name or endpoint_url:
        is_embedded = is_local(endpoint_url) and not os.environ.get("AWS_DEFAULT_REGION")
        region = region or (DEFAULT_REGION if is_embedded else None)
        return Stack.connect(name or DEFAULT_NAME, region=region, endpoint_url=endpoint_url)
    directory = local_cloud.state_directory()
    cloud = local_cloud.running(directory)
    if cloud is None:
        return None
    if changed := changes_since_start(cloud):
        print_warning(
            f"{summary(changed)} changed after the embedded cloud started. The cloud may use the old or the new "
            "version. Run pbr restart."
        )
    try:
        return _connect(cloud)
    except StackUnavailableError:
        if local_cloud.running(directory) == cloud:
            raise
        return None  # it has stopped in the meantime


def _endpoint_url() -> str | None:
    """Return AWS_ENDPOINT_URL.

    Raises:
        UsageError: if it is not an address.
    """
    value = os.environ.get("AWS_ENDPOINT_URL")
    if not value:
        return None
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # e.g. a port that is not a number
        valid = False
    if not valid:
        raise UsageError(
            "Invalid endpoint",
            field="AWS_ENDPOINT_URL",
            value=value,
            remedy="Use an address such as http://localhost:5555, or unset it.",
        )
    return value


def ensure_weights(model: str | None, stack: Stack | None) -> None:
    """Download the weights of a requested model if an embedded cloud needs them and they are not on this machine.

    The functions would download them, too, but without progress, and with retries that take a minute.

    Args:
        model: name of the model; None and ``auto`` are those of the stack.
        stack: the stack; None for an embedded cloud that is about to start.

    Raises:
        WeightsUnavailableError: they cannot be downloaded.
    """
    source = None if model in (None, "auto", CLASSICAL) else weights.source_of(stack)
    if model and source:
        with TransferProgress(ERR) as listener:
            weights.obtain(source.registry[model], source, listener)


def start_local_cloud() -> Stack:
    """Start an embedded cloud in the background and return its stack."""
    from client.commands.up import choose_model  # and with it what starts a cloud

    return _connect(start_in_background(background_options(), choose_model(None)))


def background_options() -> CloudOptions:
    """Return the options of a cloud that a command starts.

    Raises:
        UsageError: if PBR_STOP_AFTER is invalid.
    """
    stop_after = os.environ.get(STOP_AFTER) or _STOP_AFTER
    parse_idle_limit(stop_after, STOP_AFTER)
    return CloudOptions(stop_after=stop_after)


def start_in_background(options: CloudOptions, model: DefaultModel, region: str | None = None) -> RunningCloud:
    """Start an embedded cloud in the background, and print where it runs.

    If another command starts one at the same time, that one is used.

    Args:
        options: its options.
        model: default model if none is requested.
        region: AWS region; None for that of the environment.
    """
    with ERR.status("Starting an embedded cloud in the background ..."):
        cloud, started = local_cloud.start(local_cloud.state_directory(), options.arguments(model.name), region)
    if not started:
        ERR.print(
            f"Using the embedded cloud that another command started for {cloud.project} at {cloud.endpoint_url}, with "
            f"{cloud.model.name}."
        )
        return cloud
    ERR.print(f"Started an embedded cloud for {cloud.project} at {cloud.endpoint_url}, with {model.name}.")
    limit = parse_idle_limit(options.stop_after, "--stop-after")
    ERR.print(f"It stops after {_idle_time(limit)}, or with pbr down." if limit else "To stop it, run pbr down.")
    if model.hint:
        ERR.print(model.hint)
    if model.limited:
        print_warning(model.reason)
    return cloud


def _idle_time(limit: timedelta) -> str:
    """Return a limit as text, e.g. ``15 idle minutes``."""
    total_s = int(limit.total_seconds())
    units = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
    unit = next(name for name, seconds in units.items() if total_s % seconds == 0)
    count = total_s // units[unit]
    return f"{count} idle {unit}{'' if count == 1 else 's'}"


def changes_since_start(cloud: RunningCloud) -> list[str]:
    """Return what has changed since the cloud started. More weights only matter if its default model would change."""
    changed = fingerprint.changes(cloud.fingerprint, local_models.fingerprint())
    added = [name for name in changed if name.startswith(WEIGHTS) and name not in cloud.fingerprint]
    if added:
        best = None if cloud.options.model else weights.best_on_disk(weights.model_source())
        changed = [name for name in changed if name not in added or name == f"{WEIGHTS}{best}"]
    return changed


def _connect(cloud: RunningCloud) -> Stack:
    return Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)
