from datetime import timedelta

import pytest

from client.commands.options import parse_duration, parse_idle_limit
from client.errors import UsageError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("1h", timedelta(hours=1)),
        ("2d", timedelta(days=2)),
        ("0m", timedelta()),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, meant: timedelta) -> None:
    assert parse_duration(text, "--since") == meant


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1 h", "1.5h", "1w", "99999d", "1h30m"])
def test_an_invalid_duration_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="30m, 1h, 2d"):
        parse_duration(text, "--since")


@pytest.mark.parametrize(("text", "meant"), [("30m", timedelta(minutes=30)), ("never", None)])
def test_an_idle_limit_may_be_none(text: str, meant: timedelta | None) -> None:
    assert parse_idle_limit(text, "--stop-after") == meant


@pytest.mark.parametrize("text", ["soon", "0", "0s", "0m"])
def test_an_invalid_idle_limit_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=f"--stop-after.*{text}") as raised:
        parse_idle_limit(text, "--stop-after")
    assert "30m" in raised.value.remedy and raised.value.remedy.endswith("or never.")
