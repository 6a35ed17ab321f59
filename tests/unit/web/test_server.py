from streamlit.runtime.pages_manager import PagesManager

from tests.conftest import ROOT
from web import server


def test_the_first_session_gets_the_page_that_its_address_names() -> None:
    PagesManager.uses_pages_directory = None  # as in a new process
    server.app()
    PagesManager(str(ROOT / "web/app.py"))
    assert not PagesManager.uses_pages_directory
