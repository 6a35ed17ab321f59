import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from client.cli import app
from client.commands.presets import source
from core.options import read_presets
from core.presets import BUILT_IN


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("AWS_ENDPOINT_URL", "PBR_STACK"):
        monkeypatch.delenv(name, raising=False)


def pbr(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["process", "a.jpg", "--background-color", "red"], "background_color"),
        (["process", "a.jpg", "--quality", "101"], "quality"),
        (["process", "a.jpg", "--crop-margin", "3"], "crop_margin"),
        (["process", "a.jpg", "--preset", "amazon"], "white-square"),
        (["process", "a.jpg", "--model", "nosuch"], "u2net"),
        (["process", "a.jpg", "--background-color", "#ffffff", "--background-image", "b.jpg"], "Set only one of"),
        (["process", "-", "-"], "Give - once"),
        (["process", "a.jpg", "b.jpg", "--out", "-"], "one image"),
        (["process", "a.jpg", "--format", "tiff"], "webp_lossless"),
        (["process", "a.jpg", "-o", "cut.png", "--format", "webp"], "cut.webp"),
        (["process", "a.jpg", "-o", "cut.gif"], ".avif"),
        (["process", "a.jpg", "b.jpg", "-o", "cut.png"], "Pass a directory"),
        (["process", "a.jpg", "-o", "cut.jpg", "--background-color", "#00000000"], "background_color"),
        (["process", "a.jpg", "--out", "-", "--json"], "--json"),
        (["process", "a.jpg", "--out", "-", "--compare"], "--compare"),
        (["process", "a.jpg", "--compare", "--format", "zip"], "--compare"),
        (["process", "a.jpg", "-v", "-q"], "--quiet"),
        (["process", "nosuch.jpg", "nosuch2.jpg"], "nosuch.jpg"),
        (["process", __file__, "--background-image", "nosuch.jpg"], "--background-image"),
        (["process", __file__, "--timeout", "0"], "--timeout"),
        (["process"], "FILES"),
        (["process", str(Path(__file__).parent)], "pbr bulk"),
        (["bulk"], "--resume"),
        (["bulk", "nosuch/"], "The source does not exist"),
        (["bulk", __file__], "pbr process"),
        (["bulk", "s3://B"], "s3://BUCKET/PREFIX/"),
        (["bulk", str(Path(__file__).parent)], "The folder contains no image"),
        (["bulk", str(Path(__file__).parent), "-o", "cut.png"], "Pass a directory"),
        (["bulk", str(Path(__file__).parent), "-o", "-"], "standard output"),
        (["bulk", str(Path(__file__).parent), "-o", str(Path(__file__).parent)], "mixed with the images"),
        (["bulk", str(Path(__file__).parent), "--suffix", "x/y"], "-cutout"),
        (["bulk", str(Path(__file__).parent), "--instances", "2"], "--engine batch-transform"),
        (["bulk", "--resume", "a", "--engine", "batch-transform"], "Remove --engine"),
        (["bulk", str(Path(__file__).parent), "--background-image", "nosuch.jpg"], "--background-image"),
        (["bulk", "--resume", "nosuch"], "The run does not exist"),
        (["bulk", "photos/", "--resume", "nosuch"], "Remove SOURCE"),
        (["bulk", "--resume", "nosuch", "--format", "webp"], "Remove --format"),
        (["bulk", "--resume", "nosuch", "--overwrite"], "Remove --overwrite"),
        (["watch", "nosuch/"], "The directory does not exist"),
        (["watch", str(Path(__file__).parent), "-o", str(Path(__file__).parent)], "inside of DIR"),
        (["watch", str(Path(__file__).parent), "--background-image", "nosuch.jpg"], "--background-image"),
        (["up", "--host", "local"], "'--host': 'local' is not one of"),
        (["up", "--model", "nosuch"], "birefnet-general"),
        (["up", "--parameter", "Nosuch=1"], "CacheDays"),
        (["up", "--parameter", "CacheDays"], "NAME=VALUE"),
        (["fetch", "6f3a", "7c21", "-o", "cut.png"], "Pass a directory"),
        (["fetch", "6f3a", "-o", "-"], "standard output"),
        (["fetch", "6f3a", "--wait", "--timeout", "-3"], "--timeout"),
        (["up", "--stop-after", "15"], "30m"),
        (["demo", "nosuch.jpg"], "nosuch.jpg"),
        (["history", "6f3a", "--json"], "Remove --json"),
        (["redrive"], "--failed"),
        (["redrive", "6f3a", "--failed"], "--failed"),
        (["redrive", "--failed", "--since", "1w"], "30m, 1h, 2d"),
        (["redrive", "6f3a", "--since", "1h"], "--failed"),
        (["replay-dlq", "nosuch"], "segmentation"),
        (["replay-dlq", "--limit", "0"], "--limit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_are_detected_first(arguments: list[str], says: str) -> None:
    result = pbr(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr and "Traceback" not in result.stderr and "Value error" not in result.stderr


@pytest.mark.parametrize(
    "command", ["history", "fetch 6f3a", "status", "env", "redrive --failed", "replay-dlq", "keys list"]
)
def test_error_without_a_cloud_is_one_line_with_a_remedy(command: str) -> None:
    result = pbr(*command.split())
    assert result.exit_code == 1
    assert re.fullmatch(r"error: .*pbr up.*\n", result.stderr), "one line, with the remedy"


def test_down_without_a_cloud_is_no_error() -> None:
    result = pbr("down")
    assert result.exit_code == 0 and "No embedded cloud" in result.stdout


def test_help_lists_all_commands_and_the_exit_codes() -> None:
    text = pbr("--help").stdout
    commands = (
        "process",
        "bulk",
        "watch",
        "fetch",
        "demo",
        "up",
        "down",
        "restart",
        "env",
        "models",
        "history",
        "redrive",
        "replay-dlq",
        "keys",
        "status",
    )
    assert all(command in text for command in commands)
    assert "Exit codes" in text


def test_presets_lists_the_built_in_ones_where_no_stack_runs() -> None:
    listed = json.loads(pbr("presets", "--json").stdout)
    assert listed["sticker"] == {"source": "built in", "options": BUILT_IN["sticker"]}
    lines = pbr("presets").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["preset", *BUILT_IN]
    assert "canvas=512x512" in lines[-1]


def test_the_source_of_a_preset() -> None:
    presets = read_presets('{"card": {}, "sticker": {"outline": "3%"}, "portrait": {"preset": "portrait"}}')
    assert {name: source(name, presets) for name in presets} == {
        "white-square": "built in",
        "transparent-square": "built in",
        "portrait": "built in",
        "sticker": "stack, replaces a built-in one",
        "card": "stack",
    }
