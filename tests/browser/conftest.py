"""The web page in headless Chromium, on an embedded cloud."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request

from client.stack import Stack
from embedded_cloud.cloud import EmbeddedCloud
from tests.browser import served
from tests.conftest import ROOT

AXE = ROOT / "node_modules/axe-core/axe.min.js"
SEVERE = {"serious", "critical"}
DESKTOP, PHONE = 1280, 390

PARAMETERS = {
    "UrlSchemes": "http,https",  # tests fetch images from a server on this machine
    "UrlNetworks": "127.0.0.0/8",
    "WorkerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",  # the page shows its queue
    "WebImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",  # for the role of the page
    "WebDomain": "cutouts.example.com",
    "WebCertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/1",
    "WebVpc": "vpc-1",
    "WebSubnets": "subnet-1,subnet-2",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests are slow, and need Chromium."""
    here = Path(__file__).parent
    missing = pytest.mark.skip(reason="no Chromium: install the package chromium, or run .ci/run")
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)
            if not served.chromium_path():
                item.add_marker(missing)


@pytest.fixture(scope="package")
def cloud() -> Iterator[EmbeddedCloud]:
    with served.embedded_cloud(PARAMETERS) as cloud:
        yield cloud


@pytest.fixture(scope="package")
def stack(cloud: EmbeddedCloud) -> Stack:
    return Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)


@pytest.fixture(scope="package")
def url(cloud: EmbeddedCloud) -> Iterator[str]:
    """The address of the page, which acts with the role that it has on AWS."""
    with served.served(cloud.environment_of("WebStack/WebRole")) as address:
        yield address


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with served.chromium() as browser:
        yield browser


@pytest.fixture
def visit(chromium: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a path of the page: each call as another visitor, with cookies of its own.

    The test fails if the page contacts any other host, or a script of it fails.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def open_page(path: str = "/", *, width: int = DESKTOP, scheme: Any = "light", **options: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.extend(_elsewhere(request, url)))
        page.goto(url + path)
        page.get_by_role("heading", level=1).first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def _elsewhere(request: Request, url: str) -> list[str]:
    own = (url, url.replace("http", "ws", 1), "data:", "blob:")
    return [] if request.url.startswith(own) else [f"request to {request.url}"]


def violations(page: Page) -> list[str]:
    """Return the serious and critical violations that axe finds, one line each."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("async () => (await axe.run()).violations")
    return [f"{one['id']}: {node['html'][:200]}" for one in found if one["impact"] in SEVERE for node in one["nodes"]]


def overflow_px(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width
