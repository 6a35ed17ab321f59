"""The ZIP file of results: what is in it, and who can get it."""

import asyncio
import io
import threading
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from client.errors import StackUnavailableError
from client.stack import Stack
from tests.fakes import stack_in_memory
from tests.fakes.stack_in_memory import Buckets
from web import archives, pictures, users
from web.pictures import Picture
from web.removals import MOST, file_name

ANNA, BEN = {users.COOKIE: "anna"}, {users.COOKIE: "ben"}
FIRST, SECOND = Picture("results", "results/web/a/cup.jpg.png", "v1"), Picture("results", "results/web/b/cup.jpg.png")


def token(*entries: tuple[Picture, str]) -> str:
    return archives.token(entries, users.user_of({}, ANNA))


def post(buckets: Buckets, text: str, cookies: dict[str, str]) -> httpx.Response:
    stack = stack_in_memory.stack(buckets=buckets)
    return send(lambda: stack, {"token": text}, cookies)


def send(stack: Callable[[], Stack], form: dict[str, Any], cookies: dict[str, str]) -> httpx.Response:
    server = httpx.ASGITransport(Starlette(routes=[archives.route(stack)]))

    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(transport=server, base_url="http://page", cookies=cookies) as client:
            return await client.post(archives.PATH, data=form)

    return asyncio.run(answer())


@pytest.fixture
def buckets() -> Buckets:
    made = Buckets()
    made.objects["results", FIRST.key, "v1"] = bytes(range(256)) * 20_000
    made.objects["results", SECOND.key] = b"second"
    return made


def test_archive_has_the_exact_bytes_under_the_given_names(buckets: Buckets) -> None:
    answer = post(buckets, token((FIRST, "cup.png"), (SECOND, "größe.png")), ANNA)
    assert answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "cup.png": buckets.objects["results", FIRST.key, "v1"],
            "größe.png": b"second",
        }


def test_archive_comes_in_small_pieces(buckets: Buckets) -> None:
    pieces = list(archives.stream(buckets, [(FIRST, "cup.png")]))
    assert max(len(piece) for piece in pieces) < 1.1 * 2**20 < 5_120_000 < sum(len(piece) for piece in pieces)


def test_archive_lists_results_that_no_longer_exist(buckets: Buckets) -> None:
    del buckets.objects["results", FIRST.key, "v1"]
    answer = post(buckets, token((FIRST, "cup.png"), (SECOND, "b.png")), ANNA)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "b.png": b"second",
            "missing.txt": b"cup.png",
        }


def test_only_its_user_gets_an_archive(buckets: Buckets) -> None:
    text = token((FIRST, "cup.png"))
    assert [post(buckets, text, cookies).status_code for cookies in (BEN, {})] == [403, 403]
    assert post(buckets, "", ANNA).status_code == post(buckets, text[:-4] + "AAAA", ANNA).status_code == 403


def test_the_token_of_a_picture_gets_no_archive(buckets: Buckets) -> None:
    address = pictures.address(FIRST, users.user_of({}, ANNA))
    assert post(buckets, address.rpartition("/")[2], ANNA).status_code == 403


def test_long_bodies_are_rejected(buckets: Buckets) -> None:
    assert post(buckets, "a" * 2**22, ANNA).status_code == 413


def test_connecting_to_the_stack_does_not_block_the_server(buckets: Buckets) -> None:
    threads = []

    def stack() -> Stack:
        threads.append(threading.current_thread())
        return stack_in_memory.stack(buckets=buckets)

    assert send(stack, {"token": token((SECOND, "b.png"))}, ANNA).status_code == 200
    assert threads and threading.main_thread() not in threads


def test_the_most_results_with_the_longest_names_fit(buckets: Buckets) -> None:
    name = file_name("\U0001f642" * 200 + ".jpeg")
    folder = users.user_of({}, ANNA).folder
    entries = [
        (Picture("results", f"results/{folder}20260301T120000-{number:08}/{name}.png", "v" * 32), f"{number}{name}")
        for number in range(MOST)
    ]
    with zipfile.ZipFile(io.BytesIO(post(buckets, token(*entries), ANNA).content)) as archive:
        assert len(archive.read("missing.txt").splitlines()) == MOST


def test_a_stack_that_does_not_respond_is_a_clear_answer() -> None:
    def stack() -> Stack:
        raise StackUnavailableError("The stack does not respond", field="stack", value="pbr", remedy="Run pbr up.")

    answer = send(stack, {"token": token((SECOND, "b.png"))}, ANNA)
    assert answer.status_code == 422 and "Run pbr up." in answer.text


def test_the_first_of_several_tokens_counts(buckets: Buckets) -> None:
    text = token((SECOND, "b.png"))
    assert send(lambda: stack_in_memory.stack(buckets=buckets), {"token": [text, "other"]}, ANNA).status_code == 200
