import pytest

from client.errors import UsageError
from web import server


def test_other_machines_cannot_open_the_page_without_signing_in() -> None:
    with pytest.raises(UsageError, match="PBR_LOAD_BALANCER_ARN"):
        server.serve("0.0.0.0", 8501)
