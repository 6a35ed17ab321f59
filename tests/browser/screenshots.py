"""Make the pictures of the web page in docs/images from the running page: ``make screenshots``.

The photos are those of scikit-image: astronaut (NASA, public domain), chelsea and coffee (CC0).
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import skimage
from PIL import Image
from playwright.sync_api import Browser, Page

from client.jobs import JobClient
from client.stack import Stack
from tests.browser import served
from tests.conftest import ROOT

_PHOTOS: Final = Path(skimage.__file__).parent / "data"
_IMAGES: Final = ROOT / "docs/images"
_QUALITY: Final = 85
_SETTLED_MS: Final = 2500  # charts and graphs draw themselves after the text is there


def main() -> None:
    """Make all pictures."""
    with (
        served.embedded_cloud({}) as cloud,
        served.served(cloud.environment) as url,
        served.chromium() as browser,
    ):
        _prepare(Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url))
        with _page(browser, width=1280, scheme="light") as page:
            _remove(page, url)
            _save(page, "web-remove")
            page.goto(f"{url}/executions?match=shop/astronaut.png")
            page.get_by_role("button", name="astronaut.png").click()
            page.get_by_role("heading", name="Path").wait_for()
            _save(page, "web-execution")
            page.goto(f"{url}/review")
            page.get_by_role("button", name="Accept").wait_for()
            _save(page, "web-review")
            page.goto(f"{url}/overview")
            page.get_by_text("Cost per image").wait_for()
            _save(page, "web-overview")
        with _page(browser, width=390, scheme="dark") as page:
            _remove(page, url)
            _save(page, "web-remove-phone")


def _prepare(stack: Stack) -> None:
    """Process photos as a bucket has them: good ones, doubtful ones, one from the cache and a damaged one."""
    _process(stack, "shop/astronaut.png")
    _process(stack, "shop/coffee.png")
    _process(stack, "studio/coffee.png")
    for name in ("chelsea.png", "astronaut.png", "coffee.png"):
        _process(stack, f"classical/{name}", {"model": "classical", "precision_level": "draft"})
    _process(stack, "shop/damaged.png", data=(_PHOTOS / "coffee.png").read_bytes()[:20_000])


def _process(stack: Stack, name: str, options: Mapping[str, Any] | None = None, data: bytes | None = None) -> None:
    jobs = JobClient(stack)
    content = data or (_PHOTOS / Path(name).name).read_bytes()
    for _ in jobs.follow(jobs.execution_of(jobs.upload(name, content, options))):
        pass


@contextmanager
def _page(browser: Browser, *, width: int, scheme: Any) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    yield context.new_page()
    context.close()


def _remove(page: Page, url: str) -> None:
    page.goto(url)
    page.locator("input[type=file]").first.set_input_files(_PHOTOS / "coffee.png")
    page.get_by_role("slider").first.wait_for(timeout=60_000)


def _save(page: Page, name: str) -> None:
    page.wait_for_timeout(_SETTLED_MS)
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").save(_IMAGES / f"{name}.webp", "WEBP", quality=_QUALITY, method=6)


if __name__ == "__main__":
    main()
