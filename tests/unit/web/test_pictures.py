"""Addresses of pictures: only their user can open them, and get the object in S3 or a copy that browsers show."""

import asyncio
import io
import threading
import time
import zipfile

import httpx
import pytest
from botocore.exceptions import EndpointConnectionError
from PIL import Image
from starlette.applications import Starlette

from tests.conftest import disc, file_of
from tests.fakes import stack_in_memory
from tests.fakes.stack_in_memory import Buckets
from web import pictures, users
from web.pictures import Picture

ANNA, BEN = {users.COOKIE: "anna"}, {users.COOKIE: "ben"}
UPLOAD = Picture("uploads", "web/1/photo.png", "v1")
RESULT = Picture("results", "results/photo.zip")


class Browser:
    """A browser with cookies, for the route of the pictures in these buckets."""

    def __init__(self, buckets, cookies, stack=None):
        in_memory = stack_in_memory.stack(buckets=buckets)
        self._server = httpx.ASGITransport(Starlette(routes=[pictures.route(stack or (lambda: in_memory))]))
        self._cookies = cookies

    def get(self, path):
        return asyncio.run(self._get(path))

    async def _get(self, path):
        async with httpx.AsyncClient(transport=self._server, base_url="http://page", cookies=self._cookies) as client:
            return await client.get(path)


@pytest.fixture
def buckets():
    return Buckets()


@pytest.fixture
def browser(buckets):
    return Browser(buckets, ANNA)


def address(picture=UPLOAD, **options):
    return pictures.address(picture, users.user_of({}, ANNA), **options)


def shown(answer):
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_picture_is_the_object_itself_if_browsers_show_its_format(browser, buckets):
    buckets.objects["uploads", UPLOAD.key, "v1"] = disc()
    answer = browser.get(address())
    assert answer.content == disc()
    assert answer.headers["Content-Type"] == "image/png"
    assert int(answer.headers["Content-Length"]) == len(disc())


def test_no_browser_executes_or_shares_an_answer(browser, buckets):
    buckets.objects["uploads", UPLOAD.key, "v1"] = disc()
    headers = browser.get(address()).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"].startswith("private")


@pytest.mark.parametrize("cookies", [BEN, {}])
def test_another_user_cannot_open_a_picture(buckets, cookies):
    buckets.objects["uploads", UPLOAD.key, "v1"] = disc()
    answer = Browser(buckets, cookies).get(address())
    assert answer.status_code == 403
    assert b"PNG" not in answer.content


def test_changed_address_is_rejected(browser, buckets):
    buckets.objects["uploads", UPLOAD.key, "v1"] = disc()
    start, _, signature = address().rpartition(".")
    assert browser.get(f"{start}.{signature[::-1]}").status_code == 403


def test_address_expires_within_two_hours(browser, buckets, monkeypatch):
    buckets.objects["uploads", UPLOAD.key, "v1"] = disc()
    earlier = time.time() - 2 * 3600
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: earlier)
        old = address()
    assert browser.get(old).status_code == 403


def test_address_stays_the_same_so_that_browsers_cache_the_picture():
    assert address() == address()


def test_file_is_downloaded_under_its_name(browser, buckets):
    buckets.objects["uploads", UPLOAD.key, "v1"] = disc()
    answer = browser.get(address(kind="file", name='größe "1".png'))
    assert answer.content == disc()
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%221%22.png"
    assert answer.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("pillow_name", ["HEIF", "TIFF"])
def test_upload_that_browsers_do_not_show_becomes_webp(browser, buckets, pillow_name):
    photo = Image.open(io.BytesIO(disc())).convert("RGB")
    buckets.objects["uploads", UPLOAD.key, "v1"] = file_of(photo, pillow_name)
    picture = shown(browser.get(address()))
    assert (picture.format, picture.size) == ("WEBP", photo.size)


def test_thumbnail_has_256_px(browser, buckets):
    buckets.objects["uploads", UPLOAD.key, "v1"] = disc(width=640, height=320)
    assert shown(browser.get(address(kind="thumbnail"))).size == (256, 128)


def test_zip_result_is_shown_with_its_transparency(browser, buckets):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("color.jpg", file_of(Image.new("RGB", (64, 32), "red"), "JPEG"))
        file.writestr("alpha.png", file_of(Image.new("L", (64, 32), 0), "PNG"))
    buckets.objects[RESULT.bucket, RESULT.key] = archive.getvalue()
    picture = shown(browser.get(address(RESULT)))
    assert (picture.mode, picture.size) == ("RGBA", (64, 32))
    assert picture.getpixel((5, 5))[3] == 0


@pytest.mark.parametrize("content", [b"<svg onload='alert(1)'/>", b"<html>", b""])
def test_content_that_is_no_picture_is_not_sent(browser, buckets, content):
    buckets.objects["uploads", UPLOAD.key, "v1"] = content
    answer = browser.get(address())
    assert answer.status_code == 422
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_deleted_picture_is_reported(browser):
    answer = browser.get(address())
    assert (answer.status_code, answer.text) == (404, "The picture no longer exists.")


@pytest.mark.parametrize("kind", ["view", "thumbnail", "file"])
def test_connecting_to_the_stack_does_not_block_the_server(buckets, kind):
    buckets.objects["uploads", UPLOAD.key, "v1"] = disc()
    threads = []

    def stack():
        threads.append(threading.current_thread())
        return stack_in_memory.stack(buckets=buckets)

    assert Browser(buckets, ANNA, stack).get(address(kind=kind)).status_code == 200
    assert threads and threading.main_thread() not in threads


def test_few_pictures_are_converted_at_a_time_and_others_do_not_wait(buckets):
    buckets.objects["uploads", UPLOAD.key, "v1"] = disc()
    lock, go, converting = threading.Lock(), threading.Event(), []

    class Slow(Buckets):
        def get_object(self, **request):
            if threading.current_thread().name.startswith("converter"):
                with lock:
                    converting.append(request["Key"])
                assert go.wait(10)
            return buckets.get_object(**request)

    stack = stack_in_memory.stack(buckets=Slow())
    browser = Browser(buckets, ANNA, lambda: stack)

    async def all_answers():
        thumbnails = [asyncio.create_task(browser._get(address(kind="thumbnail"))) for _ in range(50)]
        while len(converting) < 2:
            await asyncio.sleep(0.01)
        view = await asyncio.wait_for(browser._get(address()), 5)
        at_a_time = len(converting)
        go.set()
        return view, at_a_time, await asyncio.gather(*thumbnails)

    view, at_a_time, answers = asyncio.run(all_answers())
    assert view.content == disc() and at_a_time == 2
    assert {answer.status_code for answer in answers} == {200}


def test_s3_that_does_not_respond_is_a_clear_answer(buckets):
    def stack():
        raise EndpointConnectionError(endpoint_url="https://s3")

    answer = Browser(buckets, ANNA, stack).get(address())
    assert (answer.status_code, answer.text) == (503, "S3 does not respond. Try again later.")
