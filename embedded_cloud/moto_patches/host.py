"""State of the running cloud that the patches use."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.handlers import handle_copy_source_param

from embedded_cloud.activity import Activity
from embedded_cloud.callers import access_key
from embedded_cloud.gateway import Gateway, Server
from embedded_cloud.lambda_runtime import LambdaRuntime
from embedded_cloud.policies import Grant, Permissions
from embedded_cloud.processes import Endpoint, Log, Service
from embedded_cloud.transform import Transform

TASK_S = 1000.0  # above the 900 s limit of a Lambda function


@dataclass
class Host:
    """State of a running cloud outside moto."""

    sdk: Mapping[str, str]
    environment: Mapping[str, str]
    code: Path
    mock_config: Path | None
    open_log: Callable[[str, str], Log]
    functions: LambdaRuntime
    skipped: list[tuple[str, str, str]]
    retry_pace: float
    address: str
    api_port: int
    activity: Activity
    apis: dict[str, tuple[Gateway, Server]] = field(default_factory=dict)  # by URL
    services: dict[str, Service] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    transforms: dict[str, Transform] = field(default_factory=dict)
    permissions: dict[str, tuple[list[Any], Permissions]] = field(default_factory=dict)  # by role, with its policies
    published: Counter[str] = field(default_factory=Counter)  # configuration versions, by profile
    used_grants: set[tuple[str, Grant]] = field(default_factory=set)  # with the role
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)

    def client(self, service: str, role_arn: str = "") -> Any:
        """Return the boto3 client of a service, shared between threads. It acts with the role, if one is given."""
        with self._lock:
            if (service, role_arn) not in self._clients:
                self._clients[service, role_arn] = self._make_client(service, role_arn)
            return self._clients[service, role_arn]

    def environment_of(self, role_arn: str) -> dict[str, str]:
        """Return the base environment of processes that act with a role."""
        return {**self.environment, "AWS_ACCESS_KEY_ID": access_key(role_arn)}

    def _make_client(self, service: str, role_arn: str) -> Any:
        config = Config(
            parameter_validation=False,
            inject_host_prefix=False,
            max_pool_connections=100,
            read_timeout=TASK_S,
            proxies={},  # of the environment: they cannot reach localhost
            retries={"total_max_attempts": 1},
        )
        client = self._session.client(
            service,
            endpoint_url=self.sdk["AWS_ENDPOINT_URL"],
            aws_access_key_id=access_key(role_arn),
            aws_secret_access_key=self.sdk["AWS_SECRET_ACCESS_KEY"],
            config=config,
        )
        # A state machine passes CopySource URL-encoded, as the API expects; boto3 would encode it again.
        client.meta.events.unregister("before-parameter-build.s3.CopyObject", handle_copy_source_param)
        return client

    @cached_property
    def _session(self) -> Any:
        return Session(region_name=self.sdk["AWS_REGION"])

    def serve(self, api: Gateway) -> str:
        """Serve an HTTP API and return its URL. The first one gets ``api_port``, others any free port."""
        server = Server(self.activity.watch(api), self.address, 0 if self.apis else self.api_port)
        url = f"http://localhost:{server.port}"
        self.apis[url] = api, server
        return url

    def stop_serving(self, url: str) -> None:
        """Stop the HTTP API with this URL."""
        api, server = self.apis.pop(url)
        server.close()
        api.close()

    def wait(self, seconds: float) -> bool:
        """Wait before a retry, scaled by ``retry_pace``. Return whether the cloud is still running."""
        return not self._closed.wait(seconds * self.retry_pace)

    def close(self) -> None:
        """End every process: first workers, then the endpoints and functions that they may call."""
        self._closed.set()
        for url in list(self.apis):
            self.stop_serving(url)
        for service in self.services.values():
            service.close()
        for transform in self.transforms.values():
            transform.stop()
        for endpoint in self.endpoints.values():
            endpoint.close()
        self.functions.close()


_running: Host | None = None


def start(host: Host) -> None:
    """Make ``host`` the running cloud.

    Raises:
        RuntimeError: another cloud is running in this process.
    """
    global _running
    if _running is not None:
        raise RuntimeError("Another embedded cloud is running in this process. Close it first.")
    _running = host


def stop() -> None:
    """Forget the running cloud."""
    global _running
    _running = None


def running() -> Host:
    """Return the running cloud.

    Raises:
        RuntimeError: no cloud is running.
    """
    if _running is None:
        raise RuntimeError("No embedded cloud is running")
    return _running
