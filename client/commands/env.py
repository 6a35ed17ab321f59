"""``pbr env``: print the environment variables of the running cloud."""

import json
import shlex
from typing import Final

from client import local_cloud
from client.commands.console import OUT
from client.commands.options import AsJson
from client.errors import StackUnavailableError
from client.local_cloud import RunningCloud

_OUTPUTS: Final = {
    "PBR_UPLOADS": "UploadsBucket",
    "PBR_RESULTS": "ResultsBucket",
    "PBR_WORK": "WorkBucket",
    "PBR_STATE_MACHINE_ARN": "StateMachineArn",
    "PBR_STATE_MACHINE_ALIAS": "StateMachineAlias",
    "PBR_QUEUE_URL": "QueueUrl",
    "PBR_API_URL": "ApiUrl",
}


def env(as_json: AsJson = False) -> None:
    """Print the environment variables that point AWS tools to the running embedded cloud.

    PBR_UPLOADS and PBR_RESULTS are names of buckets; PBR_API_URL is the address of the HTTP API.

    For example: [bold]eval "$(pbr env)"[/bold]
    """
    cloud = local_cloud.running(directory := local_cloud.state_directory())
    if cloud is None:
        busy = local_cloud.is_busy(directory)
        raise StackUnavailableError(
            "The embedded cloud is starting or stopping" if busy else "No embedded cloud is running",
            field="project",
            value=str(local_cloud.ROOT),
            remedy="Try again in a few seconds." if busy else "Start one with pbr up or pbr restart.",
        )
    values = variables(cloud)
    if as_json:
        OUT.out(json.dumps(values, indent=2))
        return
    for name, value in values.items():
        OUT.out(f"export {name}={shlex.quote(value)}")


def variables(cloud: RunningCloud) -> dict[str, str]:
    """Return environment variables for AWS SDKs and tools, and the outputs of the stack that commands often need."""
    outputs = {name: cloud.outputs[output] for name, output in _OUTPUTS.items() if output in cloud.outputs}
    return {**cloud.environment, **outputs}
