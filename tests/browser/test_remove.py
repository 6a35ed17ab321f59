"""The page Remove: from a file to the result, with mouse and keyboard."""

import io
import re
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from client.stack import Stack
from tests.browser.conftest import PHONE, overflow_px, violations
from tests.conftest import disc

JPEG_CUT_SHORT = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
expect.set_options(timeout=30_000)

RESULT = '[data-testid="stBidiComponentIsolated"] .root:not(.loading)'


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    payload = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
    page.locator('[data-testid="stFileUploader"] input[type="file"]').first.set_input_files(payload)


def show_result(page: Page) -> None:
    page.locator(RESULT).wait_for()


def downloaded(page: Page, role: str, name: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.get_by_role(role, name=name).click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def sidecars(stack: Stack, name: str) -> list[dict[str, Any]]:
    """Return the sidecars of results of uploads with this name."""
    listed = stack.s3.list_objects_v2(Bucket=stack.outputs["ResultsBucket"], Prefix="results/web/")
    keys = [
        one["Key"] for one in listed.get("Contents", []) if one["Key"].endswith(".json") and f"/{name}." in one["Key"]
    ]
    return [stack.document(key) or {} for key in keys]


def stored(stack: Stack, name: str) -> bytes:
    [sidecar] = sidecars(stack, name)
    target = sidecar["result"]
    return stack.s3.get_object(Bucket=target["bucket"], Key=target["key"], VersionId=target["version_id"])[
        "Body"
    ].read()


@pytest.fixture
def images_url(tmp_path) -> Iterator[str]:
    """The address of a server with the image ``linked.png``."""
    (tmp_path / "linked.png").write_bytes(disc(seed=1804))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_image_is_processed_compared_and_downloaded(visit, stack):
    page = visit()
    drop(page, ("disc.png", disc(seed=1801)))
    expect(page.get_by_role("list", name="Stages")).to_contain_text("Find the subject")
    show_result(page)

    slider = page.get_by_role("slider", name="Position of the divider")
    slider.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_value("99")
    expect(page.locator(".layer.before")).to_have_css("clip-path", "inset(0px 1% 0px 0px)")

    name, data = downloaded(page, "link", "Download PNG")
    saved = stored(stack, "disc.png")
    assert name == "disc.png"
    pixels, expected = (np.asarray(Image.open(io.BytesIO(one))) for one in (data, saved))
    assert pixels.shape[2] == 4
    assert np.array_equal(pixels, expected)

    page.get_by_role("link", name="Open the execution").click()
    page.wait_for_url(re.compile(r"/executions\?execution=[0-9a-f-]{36}"))


def test_alpha_and_edge_are_shown_and_moved_by_keyboard(visit):
    page = visit(width=PHONE, scheme="dark")
    drop(page, ("wide.png", disc(width=1200, height=900, seed=1802)))
    show_result(page)
    assert violations(page) == []
    assert overflow_px(page) == 0

    page.get_by_role("radio", name="Alpha").check()
    shown = np.asarray(Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("RGB"))
    height, width, _ = shown.shape
    assert shown[height // 2, width // 2].min() > 240 and shown[5, width // 2].max() < 15

    page.get_by_role("radio", name="100 %").check()
    image, stage = page.locator(".after img"), page.get_by_role("group", name="Enlarged picture")
    assert image.bounding_box()["width"] == 1200
    before = image.bounding_box()["x"]
    stage.focus()
    page.keyboard.press("ArrowLeft" if before < stage.bounding_box()["x"] - 48 else "ArrowRight")
    assert abs(image.bounding_box()["x"] - before) == pytest.approx(48, abs=1)


def test_batch_with_failures_is_a_gallery_and_a_zip(visit, stack):
    page = visit()
    drop(
        page,
        ("one.png", disc(seed=1811)),
        ("notes.txt", b"These are notes."),
        ("one.png", disc(seed=1812)),
        ("cut.jpg", JPEG_CUT_SHORT),
    )
    expect(page.get_by_text("4 images: 2 done")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("2 failed").first).to_be_visible()

    options = page.get_by_role("listbox", name="Images").get_by_role("option")
    options.nth(1).click()
    expect(page.get_by_text("The content is text, not an image in a supported format").first).to_be_visible()
    expect(page.get_by_text("Save it as JPEG, PNG").first).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(options.nth(3)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_text("CorruptImageError").first).to_be_visible()

    name, data = downloaded(page, "button", "Download all as ZIP")
    assert name == "cutouts.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["one.png", "one-2.png"]
        in_zip = {archive.read(one) for one in archive.namelist()}
    targets = [sidecar["result"] for sidecar in sidecars(stack, "one.png")]
    in_s3 = {
        stack.s3.get_object(Bucket=one["bucket"], Key=one["key"], VersionId=one["version_id"])["Body"].read()
        for one in targets
    }
    assert in_zip == in_s3 and len(in_s3) == 2

    page.get_by_role("button", name="Clear all").click()
    expect(page.get_by_text("Drop photos here")).to_be_visible()


def test_a_reload_finds_the_images_again(visit):
    page = visit()
    drop(page, ("first.png", disc(seed=1814)), ("second.png", disc(seed=1815)))
    expect(page.get_by_role("option")).to_have_count(2)
    expect(page.get_by_role("option").first.locator("img")).to_have_attribute("loading", "lazy")
    page.reload()
    expect(page.get_by_role("option", name="second.png: done")).to_be_visible(timeout=60_000)


def test_changed_settings_apply_to_an_uploaded_image(visit, stack):
    page = visit()
    drop(page, ("again.png", disc(seed=1803)))
    show_result(page)
    page.get_by_text("Crop to the subject").click()
    page.get_by_role("button", name="Apply to this image").click()
    expect(page.locator(RESULT)).to_have_attribute("data-pair", "")
    assert page.get_by_role("slider", name="Position of the divider").count() == 0
    cropped = [sidecar for sidecar in sidecars(stack, "again.png") if sidecar["options"]["crop"]]
    assert len(cropped) == 1 and cropped[0]["image"]["width"] < 320


def test_a_background_image_fills_the_result(visit, stack):
    page = visit()
    page.get_by_test_id("stButtonGroup").get_by_role("radio", name="Image").click()
    background = {"name": "sea.png", "mimeType": "image/png", "buffer": disc(seed=1805)}
    # The drop zone takes files, too: wait for the uploader of the settings, which the choice above brings.
    uploader = page.get_by_test_id("stFileUploader").filter(has_text="Background image")
    uploader.locator('input[type="file"]').set_input_files(background)
    expect(page.get_by_text("Choose an image. Until then")).to_be_hidden()
    drop(page, ("seaside.png", disc(seed=1806)))
    show_result(page)
    [sidecar] = sidecars(stack, "seaside.png")
    assert sidecar["options"]["background_key"].startswith("backgrounds/")


def test_url_and_pasted_image_are_processed(visit, images_url):
    page = visit()
    page.get_by_label("Image URL").fill(f"{images_url}/linked.png")
    page.keyboard.press("Enter")
    show_result(page)
    page.evaluate(
        """data => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(data)], "pasted.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
        }""",
        list(disc(seed=1805)),
    )
    expect(page.get_by_role("option", name="pasted.png: done")).to_be_visible(timeout=60_000)
    page.get_by_label("Image URL").fill("https://10.0.0.1/private.png")
    page.keyboard.press("Enter")
    expect(page.get_by_text("UrlRefusedError").first).to_be_visible()


def test_no_session_shows_the_images_of_another_one(visit):
    mine, other = visit(), visit()
    drop(mine, ("mine.png", disc(seed=1806)))
    show_result(mine)
    other.reload()
    other.get_by_text("Drop photos here").wait_for()
    assert other.get_by_text("mine.png").count() == 0
    for address in mine.evaluate(
        """() => [...document.querySelectorAll('[data-testid="stBidiComponentIsolated"]')]
            .flatMap((one) => [...one.shadowRoot.querySelectorAll('img[src], a[href]')])
            .map((one) => one.src || one.href)"""
    ):
        assert mine.request.get(address).status == 200
        assert other.request.get(address).status == 403
