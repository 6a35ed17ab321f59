"""``pbr models``: list segmentation models and fetch their weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from client import local_cloud, local_models
from client.commands.console import ERR, OUT, print_table
from client.commands.models import weights
from client.commands.models.weights import ModelInfo
from client.commands.options import AsJson
from client.commands.progress import TransferProgress
from client.fingerprint import changes
from client.local_cloud import RunningCloud
from core.segmentation.registry import BUNDLED, CLASSICAL, MODELS

app = typer.Typer(invoke_without_command=True)


@app.callback()
def list_models(
    context: typer.Context,
    verify: Annotated[bool, typer.Option("--verify", help="Check the SHA-256 of the weights on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """List segmentation models: license, input size, memory, and where their weights are.

    Weights are read from the directories in PBR_MODEL_DIR, or else downloaded from PBR_MODEL_MIRROR or rembg's release.

    PBR_CUSTOM_MODELS adds models of your own.
    """
    if context.invoked_subcommand:
        return
    source = weights.model_source()
    models = weights.list_models(source, verify=verify)
    if as_json:
        OUT.print_json(data=[model.to_json() for model in models])
        return
    print_table(_models_table(models))
    for line in _notes(models, source.base):
        OUT.print(line)


@app.command("fetch")
def fetch_models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAMES", help="Models to fetch.", show_default=False)
    ] = None,
    all_free: Annotated[
        bool, typer.Option("--all-free", help="Fetch all models that are free for commercial use.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            help="Directory, or s3://bucket/prefix to fill the ModelBucket of a stack.",
            show_default="PBR_MODEL_DIR, or the user's cache",
        ),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Base URL of the files: https://, s3:// or file://.",
            show_default="PBR_MODEL_MIRROR, or rembg's release",
        ),
    ] = None,
) -> None:
    """Download the weights of models and verify them.

    For example:

    [bold]pbr models fetch birefnet-general-lite[/bold]

    [bold]pbr models fetch birefnet-general --to s3://my-models[/bold]
    """
    bucket = to if to and to.startswith("s3://") else None
    source = weights.model_source(directory=Path(to) if to and not bucket else None, mirror=mirror)
    models = weights.select(names or [], source, all_free=all_free)
    with TransferProgress(ERR) as listener:
        complete = weights.fetch(models, source, listener, bucket=bucket)
    cloud = local_cloud.running(local_cloud.state_directory())
    if cloud and not to and (names_here := [model.name for model in models if source.find(model.name)]):
        ERR.print(effect_on(cloud, names_here, weights.best_on_disk(source)))
    if not complete:
        raise typer.Exit(1)


def effect_on(cloud: RunningCloud, names: Sequence[str], best: str) -> str:
    """Return what weights that were fetched mean for the running cloud.

    Args:
        cloud: the running cloud.
        names: models whose weights were fetched.
        best: model that a new cloud would use by default.
    """
    if "PBR_MODEL_DIR" in changes(cloud.fingerprint, local_models.fingerprint()):
        return "The running cloud reads weights from other directories: PBR_MODEL_DIR has changed. Run pbr restart."
    uses = f"The running cloud uses {cloud.model.name} by default"
    if best in names and not cloud.options.model and best != cloud.model.name:
        return f"{uses}. To use {best}, run pbr restart, or pass --model {best}, which works at once."
    others = [name for name in names if name != cloud.model.name]
    return f"{uses}; {' or '.join(f'--model {name}' for name in others)} works at once." if others else f"{uses}."


def _models_table(models: Sequence[ModelInfo]) -> Table:
    """Return a table with one model per row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("input", justify="right", no_wrap=True)
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("suits", no_wrap=True)
    table.add_column("commercial use")
    table.add_column("license")
    table.add_column("weights")
    for info in models:
        model = info.model
        table.add_row(
            Text(f"{model.name}{' *' if info.default else ''}", style="bold" if info.default else ""),
            f"{model.input_px} px",
            f"{model.bytes / 1e6:,.1f}",
            f"{model.memory_bytes / 1e9:g} GB" if model.memory_bytes else "-",
            info.suits,
            Text("yes", style="green") if model.commercial_use else Text("no", style="red"),
            Text(model.licence),
            _weights_text(info),
        )
    return table


def _weights_text(info: ModelInfo) -> Text:
    if info.path is None:
        return Text(f"not downloaded: {info.model.uri or info.model.file}", style="dim")
    state, style = {
        None: ("not checked", ""),
        True: ("verified", "green"),
        False: ("not the pinned file", "red"),
    }[info.verified]
    return Text(f"{'included' if info.included else info.path} ({state})", style=style)


def _notes(models: Sequence[ModelInfo], mirror: str) -> list[str]:
    """Return explanations of the table."""
    default = next((info for info in models if info.default), None)
    if default is None:
        note = f"Default on this machine: {CLASSICAL}"
    elif default.path:
        note = "* default on this machine: the best free model on disk that fits into memory"
    else:
        note = f"* default on this machine: downloaded when an embedded cloud starts; {BUNDLED} if that fails"
    return [
        "",
        f"{note}.",
        f"Missing weights are downloaded from {mirror}. To download them now, use pbr models fetch.",
        f"Included: {BUNDLED}, by the authors of U-2-Net ({MODELS[BUNDLED].licence}, see NOTICE).",
        f"{CLASSICAL} is built in and needs no weights. It expects one centered subject.",
        f"The default of a stack is its parameter DefaultModel: {BUNDLED} unless you set it. Larger models need more "
        "memory: SegmentMemory.",
    ]
