"""``pbr restart``: stop the embedded cloud and start it again."""

import os
from dataclasses import replace
from urllib.parse import urlsplit

from client import local_cloud, local_models
from client.commands.connect import STOP_AFTER, background_options, start_in_background
from client.commands.console import ERR
from client.commands.up import choose_model
from client.errors import EmbeddedCloudError


def restart() -> None:
    """Stop the embedded cloud and start it again in the background, with the same options and ports.

    Its buckets and their content are deleted. It then uses the current code, weights and environment
    variables. If no cloud is running, one is started.
    """
    directory = local_cloud.state_directory()
    cloud = local_cloud.running(directory)
    options = background_options()
    if cloud:
        options = replace(cloud.options, stop_after=os.environ.get(STOP_AFTER) or cloud.options.stop_after)
    local_models.check_model(options.model, local_models.registry())
    model = choose_model(options.model)  # may download weights; the old cloud runs until then
    if cloud is None:
        ERR.print("No embedded cloud is running, so one is started.")
        start_in_background(options, model)
        return
    with ERR.status("Stopping the embedded cloud ..."):
        local_cloud.stop(directory)
    ERR.print(f"Stopped the cloud at {cloud.endpoint_url}. Its buckets and their content are deleted.")
    port, api_port = _free(cloud.endpoint_url, options.port), _free(cloud.api_url, options.api_port)
    start_in_background(replace(options, port=port, api_port=api_port), model, cloud.region)


def _free(url: str, requested: int) -> int:
    """Return the port of the old cloud, so that its address stays valid; 0 if any may be used and it is taken."""
    port = requested or urlsplit(url).port or 0
    try:
        local_cloud.check_port("--port", port)
    except EmbeddedCloudError:
        return requested
    return port
