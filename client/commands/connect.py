"""The stack that a command uses: one on AWS, or the embedded cloud of this project directory."""

import os

from client import fingerprint, local_cloud, local_models
from client.commands.console import ERR, print_warning
from client.commands.models import weights
from client.commands.up import choose_model
from client.errors import StackUnavailableError
from client.fingerprint import WEIGHTS, summary
from client.local_cloud import CloudOptions, DefaultModel, RunningCloud
from client.stack import DEFAULT_NAME, DEFAULT_REGION, Stack, is_local


def connect(name: str | None, region: str | None) -> Stack:
    """Return the stack to use.

    Raises:
        StackUnavailableError: if the stack does not exist, or no embedded cloud is running.
    """
    found = find_stack(name, region)
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
    endpoint_url = os.environ.get("AWS_ENDPOINT_URL")
    if name or endpoint_url:
        is_embedded = is_local(endpoint_url) and "AWS_DEFAULT_REGION" not in os.environ
        region = region or (DEFAULT_REGION if is_embedded else None)
        return Stack.connect(name or DEFAULT_NAME, region=region, endpoint_url=endpoint_url)
    cloud = local_cloud.running(local_cloud.state_directory())
    if cloud is None:
        return None
    if changed := changes_since_start(cloud):
        print_warning(
            f"{summary(changed)} changed after the embedded cloud started. It may use the old or the new version. "
            "Run pbr restart."
        )
    return _connect(cloud)


def start_local_cloud() -> Stack:
    """Start an embedded cloud in the background and return its stack."""
    return _connect(start_in_background(CloudOptions(), choose_model(None)))


def start_in_background(options: CloudOptions, model: DefaultModel, region: str | None = None) -> RunningCloud:
    """Start an embedded cloud in the background, and print where it runs.

    Args:
        options: its options.
        model: default model if none is requested.
        region: AWS region; None for that of the environment.
    """
    with ERR.status("Starting an embedded cloud in the background ..."):
        cloud = local_cloud.start(local_cloud.state_directory(), options.arguments(model.name), region)
    ERR.print(f"Started an embedded cloud for {cloud.project} at {cloud.endpoint_url}, with {model.name}.")
    ERR.print("To stop it, run pbr down.")
    if model.hint:
        ERR.print(model.hint)
    if model.limited:
        print_warning(model.reason)
    return cloud


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
