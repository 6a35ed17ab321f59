import pytest
from streamlit.runtime.pages_manager import PagesManager

from client.errors import UsageError
from tests.conftest import ROOT
from web import server


def test_the_first_session_gets_the_page_that_its_address_names() -> None:
    PagesManager.uses_pages_directory = None  # as in a new process
    server.app()
    PagesManager(str(ROOT / "web/app.py"))
    assert not PagesManager.uses_pages_directory


def test_other_machines_cannot_open_the_page_without_signing_in() -> None:
    with pytest.raises(UsageError, match="PBR_LOAD_BALANCER_ARN"):
        server.serve("0.0.0.0", 8501)
