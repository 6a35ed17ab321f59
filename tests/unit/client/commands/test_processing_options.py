from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from client.commands.processing_options import with_processing_options
from core.options import Host, Options, Output, OutputFormat
from core.types import Precision


def run(*arguments: str) -> tuple[Result, list[dict[str, Any]]]:
    received: list[dict[str, Any]] = []

    @with_processing_options
    def command(name: str, options: dict[str, Any], shout: bool = False) -> None:
        """Do something."""
        received.append({"name": name, "options": options, "shout": shout})

    app = typer.Typer(rich_markup_mode=None)
    app.command()(command)
    return CliRunner().invoke(app, arguments, terminal_width=2000), received


def test_only_options_that_are_set_are_passed() -> None:
    assert run("a", "--shout")[1] == [{"name": "a", "options": {}, "shout": True}]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("--precision draft", {"precision_level": Precision.DRAFT}),
        ("--model u2net", {"model": "u2net"}),
        ("--host ecs", {"segmentation_host": Host.ECS}),
        ("--mask-only", {"output": Output.MASK}),
        ("--format webp", {"format": OutputFormat.WEBP}),
        ("--quality 0", {"quality": 0}),
        ("--background-color #fff", {"background_color": "#fff"}),
        ("--background-image b.jpg", {"background_key": "b.jpg"}),
        ("--background-blur 2%", {"background_blur": "2%"}),
        ("--crop", {"crop": True}),
        ("--preset sticker --no-crop", {"preset": "sticker", "crop": False}),
        ("--crop-margin 0.2", {"crop_margin": "0.2"}),
        ("--max-megapixels 2", {"max_megapixels": 2.0}),
    ],
)
def test_flags_set_the_options_of_core(arguments: str, options: dict[str, Any]) -> None:
    result, received = run("a", *arguments.split())
    assert result.exit_code == 0, result.stderr
    assert received[0]["options"] == options


@pytest.mark.parametrize("field", sorted(Options.model_fields.keys() - {"output", "background_key", "crop"}))
def test_help_texts_are_the_descriptions_of_core(field: str) -> None:
    assert f" {Options.model_fields[field].description}" in run("--help")[0].stdout


def test_values_of_an_enum_are_checked() -> None:
    result, received = run("a", "--format", "tiff")
    assert (result.exit_code, received) == (2, []) and "webp_lossless" in result.stderr
