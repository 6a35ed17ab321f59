"""The page Review: decisions and retries by keyboard, and their exports."""

import csv
import json
import time

import pytest
from PIL import Image
from skimage import data as photographs

from client.bulk.source import Source
from client.jobs import JobClient
from client.reviews import Reviews
from tests.browser.conftest import DESKTOP, PHONE, overflow_px, violations
from tests.conftest import file_of

LOADED = """alt => [...document.querySelectorAll('*')].map(one => one.shadowRoot?.querySelector('img.result'))
    .some(one => one && one.alt !== alt && one.complete && one.naturalWidth && !one.matches('.loading, .missing'))"""


@pytest.fixture(scope="module")
def reviews(stack):
    """Five doubtful cut-outs, and the reviews of the stack."""
    coins = photographs.coins()
    jobs = JobClient(stack)
    uploads = []
    for number, picture in enumerate((coins, coins[:, ::-1], coins[::-1], coins[::-1, ::-1], coins.T)):
        data = file_of(Image.fromarray(picture).convert("RGB"), "PNG")
        options = {"model": "classical", "precision_level": "draft"}
        uploads.append(jobs.upload(f"coins-{number}.png", data, options))
    for upload in uploads:
        sidecar = jobs.result(_end(jobs, upload)).sidecar
        assert sidecar["quality"]["review"], "choose other pictures"
    return Reviews(stack)


def _end(jobs, upload):
    arn = jobs.execution_of(upload)
    for _ in jobs.follow(arn):
        pass
    return arn


def shown(page):
    """The text of the current cut-out."""
    return page.locator("img.result").get_attribute("alt")


def press(page, key):
    """Press a key, wait until another cut-out is visible, and return the seconds that this took."""
    before, started = shown(page), time.monotonic()
    page.keyboard.press(key)
    page.wait_for_function(LOADED, arg=before)
    return time.monotonic() - started


def opened(visit, **options):
    page = visit("/review", **options)
    page.wait_for_function(LOADED, arg="")
    return page


@pytest.mark.parametrize(("width", "scheme"), [(DESKTOP, "dark"), (PHONE, "light")])
def test_a_review_is_accessible_and_fits_the_window(reviews, visit, width, scheme):
    page = opened(visit, width=width, scheme=scheme)
    assert violations(page) == []
    assert overflow_px(page) == 0


def test_cut_outs_are_decided_by_keyboard_and_exported(reviews, visit, stack, tmp_path):
    count = reviews.count("open")
    assert count >= 5
    page = opened(visit)
    first, second = reviews.page("open").reviews[:2]
    assert first.key in shown(page)
    press(page, "x")
    page.get_by_text(f"1 of {count} decided").wait_for()
    press(page, "a")
    press(page, "u")
    assert second.key in shown(page)
    press(page, "ArrowRight")
    press(page, "ArrowLeft")
    assert press(page, "a") < 2, "0.2 s on an idle machine"
    page.get_by_text(f"2 of {count} decided").wait_for()
    decided = {review.id: review.decision for review in reviews.all("decided")}
    assert (decided[first.id].verdict, decided[second.id].verdict) == ("reject", "accept")
    assert decided[first.id].by == "local"

    page.get_by_role("radio", name="Decisions").click()
    page.get_by_role("heading", name="Export").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Decisions as CSV").click()
    download.value.save_as(tmp_path / "decisions.csv")
    rows = {row["cut_out"]: row for row in csv.DictReader((tmp_path / "decisions.csv").open())}
    assert rows[first.id]["decision"] == "reject" and rows[first.id]["key"] == first.key
    with page.expect_download() as download:
        page.get_by_role("button", name="Rejected as manifest").click()
    download.value.save_as(manifest := tmp_path / "rejected.jsonl")
    assert first.key in [json.loads(line)["key"] for line in manifest.read_text().splitlines()]
    Source.parse(str(manifest)).check(stack)


def test_a_key_pressed_twice_decides_about_one_cut_out(reviews, visit):
    count = reviews.count("decided")
    page = opened(visit)
    before = shown(page)
    page.keyboard.press("a")
    page.wait_for_timeout(30)
    page.keyboard.press("a")
    page.wait_for_function(LOADED, arg=before)
    page.get_by_text("1 of").wait_for()
    page.wait_for_timeout(1000)  # for a second decision
    assert reviews.count("decided") == count + 1
    page.keyboard.press("u")
    page.get_by_text("0 of").wait_for()


def test_the_second_of_two_people_is_told_of_the_first_decision(reviews, visit):
    one, other = opened(visit), opened(visit)
    key = shown(one)
    assert shown(other) == key
    press(one, "a")
    press(other, "x")
    other.get_by_text("local has accepted this cut-out").wait_for()


def test_a_retry_brings_another_cut_out_for_a_decision(reviews, visit):
    coins = next(review for review in reviews.all("open") if "coins" in review.key)
    page = opened(visit)
    while coins.key not in shown(page):
        press(page, "ArrowRight")
    page.keyboard.press("t")
    page.get_by_text("The retry of").wait_for()
    again = next(review for review in reviews.all("open") if review.key == coins.key)
    assert again.is_retry and again.precision == "ultra_high"
    [closed] = [review for review in reviews.all("decided") if review.id == coins.id]
    assert closed.decision.verdict == "retry"
