"""``make smoke`` on a deployed stack."""

from dataclasses import replace

import pytest

from client import api_keys
from client.stack import Stack
from infrastructure import smoke
from tests.integration.api.test_forget import mentions


def test_both_ways_to_send_an_image_are_checked_and_nothing_is_left(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(stack.endpoint_url))
    smoke.main(["--stack", stack.name, "--region", stack.region])
    printed = capsys.readouterr().out
    assert [line.split(" (")[0] for line in printed.splitlines() if not line.startswith(" ")] == [
        "ok     image through S3",
        "ok     image through the API",
        "ok     doctor",
        "ok     deletion",
    ]
    assert "model classical" in printed
    check_that_nothing_is_left(stack)


def test_a_failed_check_fails_the_run_and_the_rest_is_still_checked_and_deleted(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    unreachable = replace(stack, outputs={**stack.outputs, "ApiUrl": "http://127.0.0.1:9"})
    assert not smoke.Smoke(unreachable).run()
    printed = capsys.readouterr().out
    assert "FAILED image through the API" in printed
    assert "ok     image through S3" in printed and "ok     deletion" in printed
    check_that_nothing_is_left(stack)


def check_that_nothing_is_left(stack: Stack) -> None:
    keys = [key for key in api_keys.list_keys(stack, smoke.now()) if key.record.name == smoke.KEY_NAME]
    assert keys and {key.status for key in keys} == {"revoked"}
    assert mentions(stack, smoke.FOLDER, *(f"api/{key.record.key_id}/" for key in keys)) == []
