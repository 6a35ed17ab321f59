"""A small in-process version of ``make api-fuzz``."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from tests.api_fuzz import CONFIG, DOCUMENT
from tests.conftest import disc
from tests.fakes.api_in_memory import Api, api_in_memory

RUNNING: list[Api] = []


def application(environ: dict[str, object], start_response: object) -> Iterable[bytes]:
    """Forward to the running API: schemathesis needs the application before the fixture creates it."""
    return RUNNING[-1].gateway(environ, start_response)


def described() -> schemathesis.BaseSchema:
    config = SchemathesisConfig.from_path(CONFIG)
    config.projects.default.phases.coverage.enabled = False  # hundreds of requests for each route
    schema = schemathesis.openapi.from_path(DOCUMENT, config=config)
    schema.app = application
    return schema


SCHEMA = described()


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with api_in_memory(rate_per_minute=60_000, monthly_quota=1_000_000) as api:
        api.web.files = defaultdict(disc)
        RUNNING.append(api)
        yield api
        RUNNING.remove(api)


@SCHEMA.parametrize()
@settings(max_examples=6, derandomize=True, suppress_health_check=list(HealthCheck))
def test_responses_match_the_openapi_document(case: schemathesis.Case, api: Api) -> None:  # type: ignore[type-arg]
    case.call_and_validate(headers={"X-API-Key": api.key})


TYPES = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data", ""]
BODIES = {
    "empty": b"",
    "nothing": b"null",
    "list": b"[]",
    "zero": b"\x00",
    "deep": b"[" * 100_000,
    "deep objects": b'{"name":' * 100_000,
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "half a surrogate pair": b'{"name": "\\ud800"}',
    "no number": b'{"max_bytes": NaN}',
    "a number too long": b'{"max_bytes": ' + b"9" * 5000 + b"}",
    "escapes that are not UTF-8": b"name=%ff%fe",
}


@pytest.mark.parametrize("path", ["/process", "/jobs", "/v1.0/removebg"])
def test_malformed_bodies_never_cause_an_internal_error(api: Api, path: str) -> None:
    for (name, body), kind in itertools.product(BODIES.items(), TYPES):
        response = api.call("POST", path, data=body, headers={"Content-Type": kind})
        assert response.status_code < 500, (name, kind)
