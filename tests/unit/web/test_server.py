import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from client.errors import UsageError
from web import server


def test_other_machines_cannot_open_the_page_without_signing_in() -> None:
    with pytest.raises(UsageError, match="PBR_LOAD_BALANCER_ARN"):
        server.serve("0.0.0.0", 8501)


def test_other_origins_cannot_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlit.net_util.get_external_ip", lambda: None)
    with TestClient(server.app()) as browser:

        def connect(origin: str) -> None:
            headers = {"host": "page.example", "origin": origin}
            with browser.websocket_connect("/_stcore/stream", headers=headers, subprotocols=["streamlit"]):
                pass

        connect("https://page.example")
        with pytest.raises(WebSocketDisconnect):
            connect("https://other.example")
        assert browser.put("/_stcore/upload_file/session/file", content=b"x").status_code == 403
