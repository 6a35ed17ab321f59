"""One embedded cloud for all tests of this package; moto has room for one per process."""

import json
from collections.abc import Iterator

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.faults import ErrorResponse, FaultEffect, InvocationFault, Request
from tests.integration.embedded_cloud.services.testbed import REFUSALS, STACK, Machines


class RequestedFaults:
    """Refuses requests with ``refuse me`` in their path or body, and ends invocations as the event's ``end`` says."""

    def request(self, request: Request) -> ErrorResponse | None:
        requested = "refuse me" in request.path or b"refuse me" in request.body
        return REFUSALS.get(request.service) if requested else None

    def invocation(self, _function: str, event: str) -> InvocationFault | None:
        payload = json.loads(event)
        end = payload.get("end") if isinstance(payload, dict) else None
        return InvocationFault(FaultEffect(end["as"]), end["answered"]) if end else None


@pytest.fixture(scope="package")
def cloud() -> Iterator[EmbeddedCloud]:
    """The stack of ``stack/template.yaml``."""
    mock_config, parameters = STACK / "MockConfigFile.json", {"Greeting": "good day"}
    with EmbeddedCloud(
        STACK / "template.yaml",
        parameters,
        mock_config=mock_config,
        faults=RequestedFaults(),
        alarm_interval_s=None,
    ) as running:
        yield running


@pytest.fixture(scope="package")
def machines(cloud: EmbeddedCloud) -> Machines:
    return Machines(cloud)
