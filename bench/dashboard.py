"""Draw the dashboard of a stack with the metrics of an embedded cloud: ``make dashboard``.

Definition and metrics are what CloudWatch would show: GetDashboard returns the body, GetMetricData the values of its
metrics, expressions and searches. The picture covers minutes, so every period is one minute.
"""

import contextlib
import io
import json
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import boto3
import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from skimage import data as photographs

from bench.embedded import embedded_process
from client.commands import up
from client.jobs import JobClient, Upload
from client.stack import Stack
from core.options import Host
from core.segmentation.registry import BUNDLED
from embedded_cloud.cloud import EmbeddedCloud

PICTURE: Final = Path(__file__).parent.parent / "docs/images/dashboard.webp"
PERIOD_S: Final = 60
COLUMNS: Final = 24
"""Width of a dashboard, in the unit of widgets."""

_UNIT_PX: Final = (70, 44)  # width and height of a unit
_DPI: Final = 100
_TRAFFIC: Final = timedelta(minutes=8)
_PAUSE_S: Final = 4.0
_SIDES_PX: Final = (480, 1000, 1500, 2200)
_COLORS: Final = 256  # text stays sharp, and the file small
_LEGEND_ROWS: Final = 4
_STATES: Final = {"ALARM": "#d13212", "OK": "#1d8102", "INSUFFICIENT_DATA": "#8d99a8"}
_GRAY: Final = "#545b64"


@dataclass(frozen=True)
class Series:
    """The values of a metric: label, color of its line or None, times in seconds of the epoch, and values."""

    label: str
    color: str | None
    times: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Placed:
    """A widget with its position, in units from the top left corner."""

    x: int
    y: int
    widget: dict[str, Any]


def main() -> None:
    """Run a stack, fill it, and draw its dashboard."""
    parameters = up.stack_parameters(up.best_here(BUNDLED), Host.LAMBDA, all_hosts=False)
    with embedded_process(parameters) as cloud:
        session = boto3.session.Session("local", "local", region_name=cloud.region)
        stack = Stack.connect(EmbeddedCloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)
        start = datetime.now(UTC)
        sqs = session.client("sqs", endpoint_url=cloud.endpoint_url)
        fill(stack, sqs, until=start + _TRAFFIC)
        cloudwatch = session.client("cloudwatch", endpoint_url=cloud.endpoint_url)
        body = json.loads(cloudwatch.get_dashboard(DashboardName=stack.outputs["DashboardName"])["DashboardBody"])
        figure = draw(placed(by_the_minute(body)["widgets"]), cloudwatch, start, datetime.now(UTC))
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=_DPI)
    Image.open(drawn).convert("RGB").quantize(_COLORS).convert("RGB").save(PICTURE, "WEBP", lossless=True, method=6)
    print(f"wrote {PICTURE.relative_to(Path.cwd())}, {PICTURE.stat().st_size // 1000} kB")


# Traffic


def fill(stack: Stack, sqs: Any, until: datetime) -> None:
    """Upload new, repeated and damaged images, send API requests, and leave a dead letter."""
    jobs, pictures = JobClient(stack), _pictures()
    sent: list[Upload] = []
    for number in range(10_000):
        name, data = next(pictures)
        options = {"model": "classical"} if number % 7 == 3 else {}
        if number % 11 == 9:
            data = data[: len(data) // 8]
        if number % 3 == 2:
            sent.append(jobs.upload_again(sent[-2]))
        else:
            sent.append(jobs.upload(name, data, options))
        for path in ("/health", "/health", "/jobs/unknown")[: 2 + number % 2]:
            _request(stack.outputs["ApiUrl"] + path)
        if number == 20:
            sqs.send_message(QueueUrl=stack.outputs["WebhooksDeadLetterQueueUrl"], MessageBody="{}")
        if datetime.now(UTC) > until:
            break
        time.sleep(_PAUSE_S * (1.5 + math.sin(number / 5)))
    for upload in sent:
        with contextlib.suppress(StopIteration):
            _wait(jobs, upload)


def _wait(jobs: JobClient, upload: Upload) -> None:
    for _ in jobs.follow(jobs.execution_of(upload)):
        pass


def _pictures() -> Iterator[tuple[str, bytes]]:
    """Yield photographs of several sizes; no two are equal."""
    photos = {"astronaut": photographs.astronaut, "coffee": photographs.coffee, "chelsea": photographs.chelsea}
    sides = cycle(_SIDES_PX)
    for number, (name, read) in enumerate(cycle(photos.items())):
        photo = cv2.cvtColor(read(), cv2.COLOR_RGB2BGR)
        scale = (next(sides) + number) / max(photo.shape)
        jpeg = cv2.imencode(".jpg", cv2.resize(photo, None, fx=scale, fy=scale))[1]
        yield f"{name}.jpg", jpeg.tobytes()


def _request(url: str) -> None:
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url):  # noqa: S310  our own API
        pass


# Definition of the dashboard


def by_the_minute(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a dashboard with all periods set to a minute, also in its texts."""
    text = re.sub(r'("period": )\d+', rf"\g<1>{PERIOD_S}", json.dumps(body))
    text = re.sub(r"(SEARCH\('[^']*', '\w+', )\d+", rf"\g<1>{PERIOD_S}", text)
    text = re.sub(r"\b(per|of|in) (\d+ minutes|hour)", r"\1 a minute", text).replace("per a minute", "per minute")
    changed: dict[str, Any] = json.loads(text)
    return changed


def placed(widgets: Sequence[dict[str, Any]]) -> Iterator[Placed]:
    """Yield widgets with their positions. One without a position follows the one before, as CloudWatch places it."""
    x = y = row = 0
    for widget in widgets:
        if x + widget["width"] > COLUMNS:
            x, y, row = 0, y + row, 0
        yield Placed(widget.get("x", x), widget.get("y", y), widget)
        x, row = x + widget["width"], max(row, widget["height"])


def queries(properties: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the queries of GetMetricData for the metrics of a widget.

    Raises:
        ValueError: a metric repeats parts of the one before with ``.`` or ``...``.
    """
    found = []
    for number, metric in enumerate(properties["metrics"]):
        options = metric[-1] if isinstance(metric[-1], dict) else {}
        parts = metric[:-1] if options else metric
        if {".", "..."} & set(parts):
            raise ValueError(f"{metric}: write the metric out.")
        query = {"Id": options.get("id", f"m{number}"), "ReturnData": options.get("visible", True)}
        if "label" in options:
            query["Label"] = options["label"]
        if "expression" in options:
            found.append({**query, "Expression": options["expression"], "Period": properties["period"]})
            continue
        namespace, name, *pairs = parts
        dimensions = [{"Name": key, "Value": value} for key, value in zip(pairs[::2], pairs[1::2], strict=True)]
        stat = {"Period": options.get("period", properties["period"]), "Stat": options.get("stat", properties["stat"])}
        metric_stat = {"Metric": {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions}, **stat}
        found.append({**query, "MetricStat": metric_stat})
    return found


def values(cloudwatch: Any, properties: dict[str, Any], start: datetime, end: datetime) -> list[Series]:
    """Return the time series that a widget shows, in the order of its metrics; those without values are left out."""
    asked = queries(properties)
    answer = cloudwatch.get_metric_data(
        MetricDataQueries=asked, StartTime=start, EndTime=end, ScanBy="TimestampAscending"
    )
    colors = {
        query["Id"]: metric[-1].get("color")
        for query, metric in zip(asked, properties["metrics"], strict=True)
        if isinstance(metric[-1], dict)
    }
    return [
        Series(one["Label"], colors.get(one["Id"]), [at.timestamp() for at in one["Timestamps"]], one["Values"])
        for one in answer["MetricDataResults"]
        if one["Values"]
    ]


# Picture


def draw(widgets: Iterator[Placed], cloudwatch: Any, start: datetime, end: datetime) -> Figure:
    """Draw widgets with their values in a range of time."""
    board = list(widgets)
    height = max(one.y + one.widget["height"] for one in board)
    width_px, height_px = COLUMNS * _UNIT_PX[0], height * _UNIT_PX[1]
    figure = Figure(figsize=(width_px / _DPI, height_px / _DPI), facecolor="#f2f3f3")
    for one in board:
        widget, properties = one.widget, one.widget["properties"]
        left, top = one.x * _UNIT_PX[0] + 4, one.y * _UNIT_PX[1] + 4
        size = (widget["width"] * _UNIT_PX[0] - 8, widget["height"] * _UNIT_PX[1] - 8)
        card = Card(figure, left, height_px - top - size[1], *size)
        if widget["type"] == "text":
            card.text(properties["markdown"])
            continue
        card.frame(properties["title"])
        if widget["type"] == "alarm":
            card.alarms(_alarms(cloudwatch, properties["alarms"]))
        elif not (series := values(cloudwatch, properties, start, end)):
            card.message("No data")
        elif properties["view"] == "singleValue":
            card.single_value(series[0])
        else:
            card.time_series(series, properties, start, end)
    return figure


def _alarms(cloudwatch: Any, arns: Sequence[str]) -> list[tuple[str, str]]:
    """Return name and state of alarms, those in ALARM first."""
    names = [arn.partition(":alarm:")[2] for arn in arns]
    described = cloudwatch.describe_alarms(
        AlarmNames=names, AlarmTypes=["MetricAlarm", "CompositeAlarm"], MaxRecords=len(names)
    )
    states = [
        (one["AlarmName"], one["StateValue"]) for kind in ("CompositeAlarms", "MetricAlarms") for one in described[kind]
    ]
    return sorted(states, key=lambda one: list(_STATES).index(one[1]))


class Card:
    """A widget in a picture. All sizes are in pixels."""

    def __init__(self, figure: Figure, left: float, bottom: float, width: float, height: float) -> None:
        self._figure, self._left, self._bottom, self._width, self._height = figure, left, bottom, width, height

    def frame(self, title: str) -> None:
        """Draw the frame and the title."""
        axis = self._axes(0, 0, 0, 0)
        axis.set(xticks=(), yticks=(), facecolor="white")
        axis.spines[:].set_color("#d5dbdb")
        self._write(10, self._height - 22, title, size=11.5, weight="bold")

    def text(self, markdown: str) -> None:
        """Write a heading and what follows it."""
        head, _, rest = markdown.partition("\n")
        self._write(4, self._height / 2 + (10 if rest else 0), head.lstrip("# "), size=17, weight="bold")
        self._write(4, self._height / 2 - 22, rest, size=11.5, color=_GRAY)

    def message(self, text: str) -> None:
        """Write a text in the middle."""
        self._write(self._width / 2, self._height / 2, text, size=12, color="#879596", ha="center")

    def alarms(self, alarms: Sequence[tuple[str, str]]) -> None:
        """List alarms, in two columns."""
        rows = math.ceil(len(alarms) / 2)
        step = (self._height - 44) / rows
        prefix = EmbeddedCloud.stack_name + "-"
        for number, (name, state) in enumerate(alarms):
            x, y = 10 + number // rows * (self._width / 2), self._height - 50 - number % rows * step
            self._write(x, y, "●", size=12, color=_STATES[state])
            label = name.removeprefix(prefix) + (f", {state.lower().replace('_', ' ')}" if state != "OK" else "")
            self._write(x + 20, y, label, size=11, weight="bold" if state == "ALARM" else "normal")

    def single_value(self, series: Series) -> None:
        """Write the last value above the course of values."""
        self._write(10, self._height - 68, _number(series.values[-1]), size=24, weight="bold")
        self._write(10, self._height - 100, series.label, size=10.5, color=_GRAY)
        axis = self._axes(10, 10, 10, 130)
        axis.plot(series.times, series.values, linewidth=1.5)
        axis.axis("off")
        axis.margins(y=0.15)

    def time_series(self, found: Sequence[Series], properties: dict[str, Any], start: datetime, end: datetime) -> None:
        """Plot values over time, with thresholds."""
        columns = max(1, int(self._width // (40 + 8 * max(len(one.label) for one in found))))
        rows = math.ceil(min(len(found), columns * _LEGEND_ROWS) / columns)
        axis = self._axes(64, 34 + 19 * rows, 14, 62)
        axis.set(facecolor="white", axisbelow=True)
        if properties.get("stacked"):
            times = sorted({time for one in found for time in one.times})
            heights = [[dict(zip(one.times, one.values, strict=True)).get(time, 0) for time in times] for one in found]
            axis.stackplot(times, np.array(heights), labels=[one.label for one in found], alpha=0.75)
            if len(times) == 1:
                axis.bar(times, sum(map(np.array, heights)), width=PERIOD_S)
        else:
            for one in found:
                axis.plot(
                    one.times, one.values, marker="o", markersize=3, linewidth=1.6, label=one.label, color=one.color
                )
        for line in properties.get("annotations", {}).get("horizontal", ()):
            axis.axhline(line["value"], color=_STATES["ALARM"], linestyle="--", linewidth=1.2)
            axis.annotate(
                f"{line['label']} {line['value']:g}",
                (1, line["value"]),
                (-3, -3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=9,
                color=_STATES["ALARM"],
            )
        axis.set_xlim(start.timestamp(), end.timestamp())
        axis.set_ylim(0, axis.get_ylim()[1] * 1.05 if axis.dataLim.ymax > 0 else 1)
        ticks = _ticks(start, end)
        axis.set_xticks([tick.timestamp() for tick in ticks], [f"{tick:%H:%M}" for tick in ticks])
        axis.yaxis.set_major_formatter(lambda value, _: _number(value))
        axis.locator_params(axis="y", nbins=4)
        axis.tick_params(labelsize=10, colors=_GRAY, length=0)
        axis.grid(axis="y", color="#eaeded")
        axis.spines[:].set_visible(False)
        axis.spines["bottom"].set_visible(True)
        self._write(10, self._height - 44, properties["yAxis"]["left"]["label"], size=10, color=_GRAY)
        handles, labels = axis.get_legend_handles_labels()
        shown = rows * columns
        width, height = self._figure.get_size_inches() * _DPI
        self._figure.legend(
            handles[:shown],
            labels[:shown],
            loc="lower left",
            bbox_to_anchor=((self._left + 8) / width, (self._bottom + 4) / height),
            ncols=columns,
            frameon=False,
            fontsize=10,
            handlelength=1,
            handletextpad=0.4,
            columnspacing=1.2,
            borderpad=0,
            labelspacing=0.25,
        )

    def _axes(self, left: float, bottom: float, right: float, top: float) -> Axes:
        """Add axes at these distances from the edges."""
        width, height = self._figure.get_size_inches() * _DPI
        return self._figure.add_axes(
            (
                (self._left + left) / width,
                (self._bottom + bottom) / height,
                (self._width - left - right) / width,
                (self._height - bottom - top) / height,
            )
        )

    def _write(self, x: float, y: float, text: str, **style: Any) -> None:
        width, height = self._figure.get_size_inches() * _DPI
        self._figure.text((self._left + x) / width, (self._bottom + y) / height, text, va="center", **style)


def _ticks(start: datetime, end: datetime) -> list[datetime]:
    """Return about four full minutes in a range of time."""
    step_s = 60 * max(1, (end - start) // timedelta(minutes=3))
    first = math.ceil(start.timestamp() / step_s) * step_s
    return [datetime.fromtimestamp(at, UTC) for at in range(first, int(end.timestamp()), step_s)]


def _number(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


if __name__ == "__main__":
    main()
