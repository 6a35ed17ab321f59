"""``pbr down``: stop the embedded cloud."""

from client import local_cloud
from client.commands.console import OUT


def down() -> None:
    """Stop the embedded cloud. Its buckets and their content are deleted."""
    stopped = local_cloud.stop(local_cloud.state_directory())
    OUT.print(f"Stopped the cloud at {stopped.endpoint_url}." if stopped else "No embedded cloud is running.")
