from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError

from functions.runtime.reviews import Reviews
from tests.fakes.reviews_in_memory import Requests
from tests.fakes.s3_in_memory import refusal

DOCUMENT: dict[str, Any] = {
    "execution": {},
    "source": {"bucket": "uploads", "key": "a.png"},
    "options": {},
    "result": {},
    "image": {},
    "cache": {"key": "c1", "hit": False},
    "model": {"name": "u2netp"},
    "quality": {"score": 0.25, "review": True, "reasons": ["fragmented"]},
}


def test_a_doubtful_result_opens_a_review() -> None:
    table = Requests()
    Reviews("reviews", table).open(DOCUMENT)
    [request] = table.updates
    assert (request["TableName"], request["Key"]) == ("reviews", {"review_id": {"S": "c1"}})
    Reviews("reviews", table).open({**DOCUMENT, "quality": {"score": 0.9, "review": False}})
    assert len(table.updates) == 1


@pytest.mark.parametrize(
    "error", [refusal("ThrottlingException", 400), ConnectTimeoutError(endpoint_url="https://dynamodb")]
)
def test_a_review_that_cannot_be_written_is_counted_and_fails_no_job(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    Reviews("reviews", Requests(error)).open(DOCUMENT)
    assert '"Degraded"' in (printed := capsys.readouterr().out) and "OpenReview" in printed


def test_a_review_with_the_most_sources_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    table = Requests(refusal("ConditionalCheckFailedException", 400))
    Reviews("reviews", table).open(DOCUMENT)
    assert table.updates and '"Degraded"' not in capsys.readouterr().out
