"""The running cloud, as the patches see it: what moto is made to call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.lambda_runtime import LambdaRuntime
from local.processes import Endpoint, Log, Service


@dataclass
class Host:
    """Everything of one running cloud that lives outside of moto."""

    endpoint_url: str
    region: str
    code: Path
    environment: Mapping[str, str]
    mock_config: Path | None
    open_log: Callable[[str, str], Log]
    functions: LambdaRuntime
    services: dict[str, Service] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)

    def close(self) -> None:
        """End every process: first those that drain, then those that serve them."""
        for service in self.services.values():
            service.scale(0)
        for endpoint in self.endpoints.values():
            endpoint.close()
        self.functions.close()


_running: Host | None = None


def run(host: Host | None) -> None:
    """Make ``host`` the running cloud; None: there is none."""
    global _running
    _running = host


def running() -> Host:
    """Return the running cloud.

    Raises:
        RuntimeError: there is none.
    """
    if _running is None:
        raise RuntimeError("No embedded cloud is running")
    return _running
