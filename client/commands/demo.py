"""``pbr demo``: process one photo on a temporary embedded cloud, and show each stage."""

import shlex
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.status import Status
from rich.text import Text

from client import local_cloud
from client.batch import Outcome, process
from client.commands.console import OUT, print_table, program
from client.commands.history import events_table
from client.commands.progress import open_files, result_warnings
from client.commands.up import choose_model, stack_parameters
from client.compare import before_and_after
from client.errors import UsageError
from client.history import StageEvent, events_of
from client.jobs import JobClient, Result
from client.outputs import Destination, ImageFile, SavedResult, write
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
    events: Annotated[bool, typer.Option("--events", help="Also print all events of the execution.")] = False,
    open_: Annotated[
        bool, typer.Option("--open", help="Open the before/after image in the viewer of the system.")
    ] = False,
) -> None:
    """Process one photo on a temporary embedded cloud, and show each stage."""
    [photo] = ImageFile.of([image or _sample_photo()])
    if not photo.path.is_file():
        raise UsageError(
            "The file does not exist", field="IMAGE", value=str(photo.path), remedy="Pass the path of a photo."
        )
    destination = Destination(out, is_file=False)
    destination.check(1)
    result, history, seconds = _process(photo)
    saved = destination.save(result, photo.name)
    write({saved.comparison_path: before_and_after(photo.read(), result.data)})
    if events:
        OUT.print()
        print_table(events_table(history))
    OUT.print(f"\n{photo.label} -> {saved.path}", style="bold")
    for name, value in _facts(saved, seconds):
        OUT.print(f"  {name:<18}{value}")
    for warning in result_warnings(result.sidecar):
        OUT.print(f"  warning: {warning}", style="yellow")
    if not events:
        command = shlex.join([program(), "demo", *([str(image)] if image else []), "--events"])
        OUT.print(f"\nTo see all {len(history)} events: {command}")
    OUT.print(f"To process your photos: {program()} process photo.jpg")
    if open_:
        open_files([saved.comparison_path])


class _Stages:
    """Shows the current stage on a terminal, and prints one line per stage."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def stage(self, label: str, event: StageEvent) -> None:
        """Show a stage."""
        if event.kind == "started":
            self._status.update(f"{event.stage} ...")
            return
        state, style = {"finished": ("ok", "green"), "retried": ("retried", "yellow"), "failed": ("failed", "red")}[
            event.kind
        ]
        detail = f"  {event.detail}" if event.detail else ""
        OUT.print(Text.assemble(f"  {event.stage:<18}{event.seconds:5.1f} s  ", (state, style), detail))

    def ended(self, outcome: Outcome) -> None:
        """Do nothing: the demo prints the result itself."""


def _process(photo: ImageFile) -> tuple[Result, list[Row], float]:
    """Process a photo on a temporary cloud; return its result, the execution's history, and the seconds it took."""
    model = choose_model(None)
    OUT.print(f"Model {model.name} ({model.reason})", style="yellow" if model.limited else "")
    if model.hint:
        OUT.print(model.hint)
    started = time.monotonic()
    parameters = stack_parameters(model, Host.AUTO, all_hosts=False)
    OUT.print()
    with (
        OUT.status("Deploying template.yaml on this machine ...") as status,
        EmbeddedCloud(local_cloud.template(), parameters, port=0) as cloud,
    ):
        cloud.start_functions()
        stages = _Stages(status)
        stages.stage("", StageEvent("Deploy", "finished", time.monotonic() - started))
        stack = Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)
        started = time.monotonic()
        result = process(JobClient(stack), photo, {}, stages, _TIMEOUT_S)
        seconds = time.monotonic() - started
        status.update("Stopping ...")
        return result, rows(events_of(stack, result.sidecar["execution"]["id"], with_data=False)), seconds


def _facts(saved: SavedResult, seconds: float) -> list[tuple[str, str]]:
    """Return names and values to print for a result."""
    image, quality, model = (saved.sidecar[name] for name in ("image", "quality", "model"))
    return [
        ("Result", f"{saved.path}  ({image['width']} x {image['height']}, {image['bytes'] / 1000:,.0f} kB)"),
        ("Sidecar", str(saved.sidecar_path)),
        ("Before and after", str(saved.comparison_path)),
        ("Quality", f"{quality['score']:.2f}, the probability that the cut-out is usable"),
        ("Model", f"{model['name']} on {model['host']}"),
        ("Time", f"{seconds:.1f} s from upload to result"),
    ]


def _sample_photo() -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data" / PHOTO
