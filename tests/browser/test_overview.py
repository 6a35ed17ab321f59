"""The page Overview after images that were computed, came from the cache, and failed."""

import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect

from client import overview
from client.errors import JobFailedError
from client.jobs import JobClient
from client.overview import Range
from client.stack import Stack
from tests.browser.conftest import PHONE, overflow_px, violations
from tests.conftest import disc


def process(jobs: JobClient, name: str, data: bytes) -> None:
    arn = jobs.execution_of(jobs.upload(name, data))
    list(jobs.follow(arn, timeout_s=60))
    with suppress(JobFailedError):
        jobs.result(arn)


def figures(stack: Stack) -> tuple[int, int, int]:
    past = overview.read(stack, Range.HOUR, datetime.now(UTC))
    return past.computed, past.cached, past.failed


@pytest.fixture
def three_outcomes(stack: Stack) -> tuple[int, int, int]:
    """Process three images, and return the numbers of outcomes in CloudWatch."""
    before, jobs, picture = figures(stack), JobClient(stack), disc(seed=180)
    for name, data in (("a.png", picture), ("again.png", picture), ("broken.png", b"not an image")):
        process(jobs, name, data)
    deadline = time.monotonic() + 10
    while sum(now := figures(stack)) < sum(before) + 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [after - earlier for after, earlier in zip(now, before, strict=True)] == [1, 1, 1]
    return now


def test_overview_shows_what_cloudwatch_has_and_warns_of_dead_letters(visit, stack, three_outcomes):
    computed, cached, failed = three_outcomes
    queue = stack.outputs["WebhooksDeadLetterQueueUrl"]
    stack.sqs.send_message(QueueUrl=queue, MessageBody="{}")
    try:
        page = visit("/overview", width=PHONE, scheme="dark", timezone_id="Asia/Tokyo")
        card = page.get_by_test_id("stMetric").filter(has_text="Images")
        expect(card).to_contain_text(str(sum(three_outcomes)), timeout=40_000)  # after a refresh at the latest
        expect(page.get_by_role("alert")).to_contain_text("pbr replay-dlq webhooks")
        expect(page.get_by_role("table", name="Failures by stage and error")).to_contain_text("UnsupportedFormatError")
        expect(page.get_by_role("table", name="Processing time of each stage")).to_contain_text("segment")

        page.get_by_role("radio", name="7 days").click()
        counts = f"{computed} computed, {cached} from the cache, {failed} failed"
        page.locator(f'[aria-label*="images per 6 hours"][aria-label*="{counts}"]').first.wait_for()
        assert "range=7+days" in page.url
        assert violations(page) == []
        assert overflow_px(page) == 0
    finally:
        stack.sqs.purge_queue(QueueUrl=queue)
