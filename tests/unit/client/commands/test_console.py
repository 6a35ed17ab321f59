import pytest

from client.commands.console import console


def test_what_is_printed_is_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("arn:aws:secretsmanager:eu-west-1:123456789012:secret:[webhooks]")
    assert capsys.readouterr().out == "arn:aws:secretsmanager:eu-west-1:123456789012:secret:[webhooks]\n"
