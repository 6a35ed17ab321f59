"""``pbr demo``: process one photo on a temporary embedded cloud, and show each step."""

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from client import local_cloud
from client.batch import process
from client.commands.console import OUT
from client.commands.history import events_table
from client.commands.progress import PlainProgress, print_outcome, result_summary, result_warnings
from client.commands.up import choose_model, stack_parameters
from client.compare import before_and_after
from client.errors import UsageError
from client.history import events_of
from client.jobs import JobClient, Result
from client.outputs import Destination, ImageFile, write
from client.stack import Stack
from core.options import Host
from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.history import Row, rows

PHOTO: Final = "coffee.png"
"""Photo from scikit-image's package."""

_TIMEOUT_S: Final = 600.0


def demo(
    image: Annotated[
        Path | None, typer.Argument(help="Photo to process.", show_default="a photo from scikit-image")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for the results.")] = Path("out"),
) -> None:
    """Process one photo on a temporary embedded cloud, and show each step."""
    [photo] = ImageFile.of([image or _sample_photo()])
    if not photo.path.is_file():
        raise UsageError(
            "The file does not exist", field="IMAGE", value=str(photo.path), remedy="Pass the path of a photo."
        )
    result, history, seconds = _process(photo)
    saved = Destination(out, is_file=False).save(result, photo.name)
    write({saved.comparison_path: before_and_after(photo.read(), result.data)})

    OUT.print("\nHistory of the execution", style="bold")
    OUT.print(events_table(history), soft_wrap=False)
    OUT.print("\nQuality", style="bold")
    OUT.print(_quality_table(result.sidecar["quality"]), soft_wrap=False)
    for warning in result_warnings(result.sidecar):
        OUT.print(f"warning: {warning}", style="yellow")
    OUT.print(f"\n{', '.join(result_summary(result.sidecar))}; {seconds:.1f} s from upload to result")
    for label, file in (
        ("Result", saved.path),
        ("Sidecar", saved.sidecar_path),
        ("Before and after", saved.comparison_path),
    ):
        OUT.print(f"{label + ':':<17} {file}")


def _process(photo: ImageFile) -> tuple[Result, list[Row], float]:
    """Process a photo on a temporary cloud; return its result, the execution's history, and the seconds it took."""
    model = choose_model(None)
    OUT.print(f"Model: {model.name} ({model.reason})", style="yellow" if model.limited else "")
    if model.hint:
        OUT.print(model.hint)
    started = time.monotonic()
    parameters = stack_parameters(model, Host.AUTO, all_hosts=False)
    with EmbeddedCloud(local_cloud.template(), parameters, port=0) as cloud:
        cloud.start_functions()
        OUT.print(f"Cloud: template.yaml deployed at {cloud.endpoint_url} in {time.monotonic() - started:.1f} s")
        stack = Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)
        started = time.monotonic()
        result = process(
            JobClient(stack), photo, {}, PlainProgress(print_outcome, verbose=True, console=OUT), _TIMEOUT_S
        )
        seconds = time.monotonic() - started
        return result, rows(events_of(stack, result.sidecar["execution"]["id"], with_data=False)), seconds


def _sample_photo() -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data" / PHOTO


def _quality_table(quality: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in quality.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    return table
