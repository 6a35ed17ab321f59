"""One photograph through the whole pipeline, on an embedded cloud of its own."""

import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from client import embedded
from client.batch import Picture, process, write
from client.compare import before_and_after
from client.errors import UsageError
from client.history import events_of
from client.jobs import Jobs
from client.screen import Lines, events_table, facts_of, warnings_of
from client.stack import Stack
from core.options import Host
from functions.contracts.history import rows

PHOTO: Final = "coffee.png"
_TIMEOUT_S: Final = 600.0


def run(image: Path | None, out: Path, console: Console) -> None:
    """Start a cloud, process a photograph, show all that happened, and stop the cloud.

    Args:
        image: the photograph; None for one that a dependency brings along.
        out: directory of the result and of the picture before and after.
        console: where to.

    Raises:
        UsageError: there is no such photograph.
        BackgroundRemoverError: the photograph has no result.
    """
    from embedded_cloud.cloud import EmbeddedCloud

    picture = Picture(image or _photo())
    if not picture.path.is_file():
        raise UsageError(
            "There is no such file", field="IMAGE", value=str(picture.path), remedy="Give a photograph's path."
        )
    model = embedded.choose_model(None)
    console.print(f"Model: {model.name} ({model.why})", style="yellow" if model.limited else "")
    started = time.monotonic()
    parameters = embedded.parameters(model, Host.AUTO, all_hosts=False)
    with EmbeddedCloud(embedded.template(), parameters, port=0) as cloud:
        console.print(f"Cloud: template.yaml deployed at {cloud.endpoint_url} in {time.monotonic() - started:.1f} s")
        stack = Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)
        started = time.monotonic()
        result = process(Jobs(stack), picture, {}, Lines(console), _TIMEOUT_S)
        seconds = time.monotonic() - started
        history = rows(events_of(stack, result.sidecar["execution"]["id"], with_data=False))
    path = write(result, out, picture.path.stem)
    comparison = path.with_stem(f"{path.stem}-before-after")
    before_and_after(picture.read(), result.data, comparison)

    console.print("\nHistory of the execution", style="bold")
    console.print(events_table(history), soft_wrap=False)
    console.print("\nQuality", style="bold")
    console.print(_quality_table(result.sidecar["quality"]), soft_wrap=False)
    for warning in warnings_of(result.sidecar):
        console.print(f"warning: {warning}", style="yellow")
    console.print(f"\n{', '.join(facts_of(result.sidecar))}; {seconds:.1f} s from upload to result")
    for what, where in (("Result", path), ("Facts", path.with_suffix(".json")), ("Before and after", comparison)):
        console.print(f"{what + ':':<17} {where}")


def _photo() -> Path:
    """Return a photograph out of scikit-image's wheel."""
    import skimage

    return Path(skimage.__file__).parent / "data" / PHOTO


def _quality_table(quality: dict[str, object]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in quality.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    return table
