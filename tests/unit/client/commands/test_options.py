from datetime import timedelta

import pytest

from client.commands.options import parse_duration
from client.errors import UsageError


@pytest.mark.parametrize(
    ("text", "meant"),
    [("30m", timedelta(minutes=30)), ("1h", timedelta(hours=1)), ("2d", timedelta(days=2))],
)
def test_a_duration_is_a_number_and_a_unit(text: str, meant: timedelta) -> None:
    assert parse_duration(text, "--since") == meant


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1 h", "1.5h", "1w", "99999d", "1h30m"])
def test_an_invalid_duration_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="30m, 1h, 2d"):
        parse_duration(text, "--since")
