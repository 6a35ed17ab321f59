import pytest

from client.commands.console import console


def test_console_prints_text_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("arn:aws:secretsmanager:eu-west-1:123456789012:secret:[webhooks]")
    assert capsys.readouterr().out == "arn:aws:secretsmanager:eu-west-1:123456789012:secret:[webhooks]\n"
