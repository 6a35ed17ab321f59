"""``pbr status``: show the stack in use."""

from typing import Any, Final

from client import history, local_cloud
from client.commands.connect import connect
from client.commands.console import OUT
from client.commands.options import Region, StackName
from client.dead_letters import Queue
from client.stack import Stack

_MAX_COUNT: Final = 1000


def status(stack: StackName = None, region: Region = None) -> None:
    """Show the stack in use: its resources, and the number of executions and messages."""
    for name, value in _facts(connect(stack, region)).items():
        OUT.print(f"{name:<15} {value}")


def _facts(stack: Stack) -> dict[str, str]:
    cloud = local_cloud.running(local_cloud.state_directory())
    place = f"embedded at {stack.endpoint_url}" if stack.endpoint_url else f"AWS, {stack.region}"
    pid = f", process {cloud.pid}" if cloud and cloud.endpoint_url == stack.endpoint_url else ""
    waiting, received = stack.messages("QueueUrl")
    return {
        "stack": f"{stack.name}, {place}{pid}",
        **({"project": cloud.project} if pid and cloud else {}),
        "uploads": f"s3://{stack.outputs['UploadsBucket']}",
        "results": f"s3://{stack.outputs['ResultsBucket']}",
        "work": f"s3://{stack.outputs['WorkBucket']}",
        "state machine": stack.outputs["StateMachineArn"],
        "api": stack.outputs.get("ApiUrl", "none"),
        "model": stack.parameters.get("DefaultModel", "unknown"),
        "host": stack.parameters.get("SegmentationHost", "unknown"),
        "executions": ", ".join(
            f"{_count(stack, status)} {status.lower().replace('_', ' ')}"
            for status in ("RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")
        ),
        "worker queue": f"{waiting} waiting, {received} in progress",
        "dead letters": ", ".join(
            f"{stack.messages(queue.output)[0]} {queue}" for queue in Queue if queue.output in stack.outputs
        ),
    }


def _count(stack: Stack, status: Any) -> str:
    """Return the number of executions with a status, up to 1,000."""
    count = history.count(stack, status, _MAX_COUNT)
    return f"{count}+" if count == _MAX_COUNT else str(count)
