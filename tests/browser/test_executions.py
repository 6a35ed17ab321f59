"""The page Executions: find a failed image, see what each stage saw, retry it."""

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from client.executions.search import arn_of
from client.jobs import JobClient, Upload
from client.stack import Stack
from tests.browser.conftest import DESKTOP, PHONE, overflow_px, violations
from tests.fakes.scenes import disc

TOKEN = "AQCEAAAAKgAAAAMAAAAAAAAAAf"  # begins as a task token does
expect.set_options(timeout=30_000)
PICTURES = ["Source", "Mask", "Alpha", "Difference", "Result"]


def photograph() -> bytes:
    scene = disc()
    picture = scene.foreground * scene.alpha[..., None] + 40 * (1 - scene.alpha[..., None])
    encoded = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def put(stack: Stack, key: str, data: bytes) -> Upload:
    metadata = {"pbr-model": "classical", "pbr-precision-level": "draft"}
    answer = stack.s3.put_object(Bucket=stack.outputs["UploadsBucket"], Key=key, Body=data, Metadata=metadata)
    at = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return Upload(key, answer["VersionId"], at)


@dataclass(frozen=True)
class Names:
    """Names of executions that have ended."""

    good: str
    truncated: str
    text: str
    other_user: str


@pytest.fixture(scope="module")
def names(stack: Stack) -> Iterator[Names]:
    jobs, good = JobClient(stack), photograph()

    def run(key: str, data: bytes) -> str:
        execution = jobs.execution_of(put(stack, key, data))
        for _ in jobs.follow(execution):
            pass
        return execution.rpartition(":")[2]

    uploads = [
        ("photos/good.png", good),
        ("photos/truncated.png", good[: len(good) // 2]),
        ("photos/text.jpg", b"hello"),
        (f"web/{'0' * 32}/private.png", good + b"\0"),
    ]
    with ThreadPoolExecutor() as pool:
        yield Names(*pool.map(lambda upload: run(*upload), uploads))


def open_execution(visit, name: str, **options) -> Page:
    page = visit(f"/executions?execution={name}", **options)
    page.locator("svg .node").first.wait_for()
    return page


def test_a_failed_image_is_found_by_filters_and_explained(visit, names):
    page = visit("/executions")
    expect(page.get_by_role("button", name="good.png")).to_be_visible()
    page.get_by_role("radio", name="Failed").click()
    page.get_by_role("textbox", name="Error").fill("corrupt")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="text.jpg")).to_be_hidden()
    expect(page).to_have_url(re.compile("status=failed&error=corrupt"))
    page.get_by_role("button", name="truncated.png").click()
    expect(page.get_by_role("heading", level=1, name="truncated.png")).to_be_visible()
    expect(page).to_have_url(re.compile(f"status=failed&error=corrupt&execution={names.truncated}"))
    alert = page.get_by_role("alert").first
    expect(alert).to_contain_text("save it again")
    expect(page.get_by_text("Failed in the state Validate.")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", level=1, name="Executions")).to_be_visible()
    expect(page.get_by_role("button", name="truncated.png")).to_be_visible()
    expect(page.get_by_role("button", name="text.jpg")).to_be_hidden()
    expect(page.get_by_role("textbox", name="Error")).to_have_value("corrupt")


def test_an_address_without_results_says_so(visit, names):
    page = visit("/executions?status=succeeded&match=text.jpg")
    expect(page.get_by_text("No execution matches these filters.")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.get_by_role("button", name="text.jpg")).to_be_visible()


def test_an_address_with_an_unknown_filter_or_execution_names_it(visit):
    page = visit("/executions?execution=gone")
    expect(page.get_by_role("alert").first).to_contain_text("no execution with this name")


def test_graph_and_pictures_show_what_each_stage_did(visit, names):
    page = open_execution(visit, names.good)
    graph = page.locator("svg", has=page.locator(".node")).first
    for state in ("Validate", "SegmentOnLambda", "Refine", "Encode", "Done"):
        expect(graph).to_contain_text(state)
    assert "SegmentOnEcs" not in graph.text_content()
    page.get_by_text("All states").click()
    expect(page.locator("svg", has=page.locator(".node")).first).to_contain_text("SegmentOnEcs")
    figures = page.locator(".stages figure")
    expect(figures).to_have_count(len(PICTURES))
    for title, figure in zip(PICTURES, figures.all(), strict=True):
        expect(figure).to_contain_text(title)
        figure.locator("img").scroll_into_view_if_needed()
        page.wait_for_function("image => image.naturalWidth > 0", arg=figure.locator("img").element_handle())


def test_input_and_output_of_the_step_that_failed_are_shown(visit, names):
    page = open_execution(visit, names.truncated)
    data = page.get_by_test_id("stJson")
    expect(data).to_contain_text("detail-type")
    page.get_by_role("radio", name="Sent").click()
    expect(data).to_contain_text("ValidateFunction")
    page.get_by_role("radio", name="Output").click()
    expect(data).to_contain_text("CorruptImageError")


def test_a_file_that_is_no_image_is_described_instead_of_shown(visit, names):
    page = open_execution(visit, names.text)
    expect(page.locator(".stages")).to_contain_text("The content is text")
    expect(page.locator(".stages img")).to_have_count(0)


def test_name_pictures_and_data_of_another_users_image_are_not_shown(visit, names):
    page = visit("/executions")
    expect(page.get_by_role("button", name="good.png")).to_be_visible()
    page.get_by_role("button", name="Image of another user").click()
    expect(page.get_by_role("heading", level=1, name="Image of another user")).to_be_visible()
    page.locator("svg .node").first.wait_for()
    page.get_by_text("Events (").click()
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    expect(page.get_by_text("Only that user can see its name")).to_be_visible()
    expect(page.locator(".stages")).to_have_count(0)
    expect(page.get_by_test_id("stJson")).to_have_count(0)
    assert "private" not in page.content() and "0" * 32 not in page.content()
    page = visit("/executions?match=private.png")
    expect(page.get_by_text("No execution matches these filters.")).to_be_visible()


def test_task_tokens_are_never_shown(visit, stack, cloud):
    given = {"token": TOKEN, "MessageBody": {"token": TOKEN, "job": 1}}
    stack.stepfunctions.start_execution(
        stateMachineArn=stack.outputs["StateMachineArn"], name="with-a-token", input=json.dumps(given)
    )
    for _ in JobClient(stack).follow(arn_of(stack, "with-a-token")):
        pass
    page = open_execution(visit, "with-a-token")
    page.get_by_text("MessageBody").first.wait_for()
    expect(page.get_by_text("(redacted)").first).to_be_visible()
    assert TOKEN not in page.content()


def test_a_running_execution_is_followed_to_its_end(visit, stack):
    jobs = JobClient(stack)
    execution = jobs.execution_of(put(stack, "photos/live.png", photograph() + b"\1")).rpartition(":")[2]
    page = visit(f"/executions?execution={execution}")
    expect(page.get_by_text("Succeeded").first).to_be_visible(timeout=30_000)
    expect(page.locator(".stages figure")).to_have_count(len(PICTURES))


def test_a_failed_execution_is_redriven(visit, names):
    page = open_execution(visit, names.truncated)
    page.get_by_role("button", name="Redrive").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"{names.truncated}-retry-1")
    dialog.get_by_role("button", name="Redrive").click()
    expect(page).to_have_url(re.compile(f"execution={names.truncated}-retry-1"))
    expect(page.get_by_text("Failed in the state Validate.")).to_be_visible(timeout=30_000)
    expect(dialog).to_be_hidden()


def test_a_stopped_execution_continues_where_it_was_stopped(visit, stack):
    arn = JobClient(stack).execution_of(put(stack, "photos/stopped.png", photograph() + b"\0\0"))
    stack.stepfunctions.stop_execution(executionArn=arn)
    page = open_execution(visit, arn.rpartition(":")[2])
    page.get_by_role("button", name="Redrive").click()
    page.get_by_role("dialog").get_by_role("button", name="Redrive").click()
    expect(page.get_by_text("redriven 1 x")).to_be_visible()
    expect(page.get_by_text("Succeeded").first).to_be_visible()


def test_pictures_that_no_longer_exist_are_named(visit, stack):
    upload = put(stack, "photos/deleted.png", photograph() + b"\0\0\0")
    jobs = JobClient(stack)
    arn = jobs.execution_of(upload)
    for _ in jobs.follow(arn):
        pass
    sidecar = stack.document("results/photos/deleted.png.png.json") or {}
    stack.s3.delete_object(Bucket=stack.outputs["UploadsBucket"], Key=upload.key, VersionId=upload.version_id)
    for name in ("mask.png", "alpha.png"):
        key = f"work/{sidecar['cache']['key']}/{name}"
        stack.s3.delete_object(Bucket=stack.outputs["WorkBucket"], Key=key)
    page = open_execution(visit, arn.rpartition(":")[2])
    expect(page.get_by_text("no longer there")).to_have_count(3)


@pytest.mark.parametrize(("which", "width", "scheme"), [("good", PHONE, "dark"), ("truncated", DESKTOP, "light")])
def test_an_execution_is_accessible_and_fits_the_window(visit, names, which, width, scheme):
    page = open_execution(visit, getattr(names, which), width=width, scheme=scheme)
    page.wait_for_load_state("networkidle")
    assert violations(page) == []
    assert overflow_px(page) == 0
