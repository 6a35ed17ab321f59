"""What holds for every page: accessible in light and dark mode, as wide as the window, fast to appear."""

import pytest

from tests.browser.conftest import DESKTOP, PHONE, overflow_px, violations

PAGES = ("/", "/executions", "/review", "/overview")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_page_is_accessible_and_fits_the_window(visit, path, width, scheme):
    page = visit(path, width=width, scheme=scheme)
    page.wait_for_load_state("networkidle")
    assert violations(page) == []
    assert overflow_px(page) == 0


def test_pages_can_be_reached_by_keyboard(visit):
    page = visit("/")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").endswith("Executions"):
            break
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1, name="Executions").wait_for()
