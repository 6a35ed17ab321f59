"""Files that do not fit into memory are rejected before their content is read."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from web import uploads
from web.uploads import UploadLimit


class Page:
    """A page that keeps at most 100 bytes of a session and 150 of all; ``held`` has what it keeps."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.waiting = asyncio.Event()
        app = Starlette(routes=[Route("/_stcore/upload_file/{session}/{file}", self._keep, methods=["PUT", "DELETE"])])
        self._server = httpx.ASGITransport(UploadLimit(app, lambda: self.held, 100, 150))

    async def _keep(self, request: Request) -> Response:
        await self.waiting.wait()
        session = request.path_params["session"]
        self.held[session] = self.held.get(session, 0) + len(await request.body())
        return Response(status_code=204)

    async def put(self, session: str, size: int, method: str = "PUT", content: Any = None) -> int:
        async with httpx.AsyncClient(transport=self._server, base_url="http://page") as client:
            body = content or bytes(size)
            return (await client.request(method, f"/_stcore/upload_file/{session}/1", content=body)).status_code


@pytest.fixture
def page() -> Page:
    made = Page()
    made.waiting.set()
    return made


def test_a_session_has_a_limit(page: Page) -> None:
    statuses = [asyncio.run(page.put("limited", size)) for size in (60, 41, 41, 40)]
    assert statuses == [204, 413, 413, 204] and page.held == {"limited": 100}
    assert (uploads.rejected("limited"), uploads.rejected("limited")) == (2, 0)


def test_all_sessions_together_have_a_limit(page: Page) -> None:
    assert [asyncio.run(page.put(session, 60)) for session in ("a", "b", "c")] == [204, 204, 413]
    page.held.pop("a")
    assert asyncio.run(page.put("c", 60)) == 204


def test_files_that_arrive_at_the_same_time_count() -> None:
    async def both() -> list[int]:
        page = Page()
        first = asyncio.create_task(page.put("a", 60))
        await asyncio.sleep(0.05)
        second = await page.put("a", 60)
        page.waiting.set()
        await first
        page.held.clear()
        return [second, await first, await page.put("a", 60)]

    assert asyncio.run(both()) == [413, 204, 204]


def test_a_file_without_a_length_is_rejected(page: Page) -> None:
    async def pieces() -> Any:
        yield bytes(60)

    assert asyncio.run(page.put("a", 0, content=pieces())) == 411 and page.held == {}


def test_files_can_be_removed_from_a_full_session(page: Page) -> None:
    page.held["a"] = 100
    assert asyncio.run(page.put("a", 0, "DELETE")) == 204
