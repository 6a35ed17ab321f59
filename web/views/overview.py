"""The page Overview: what the stack did, how long it took, what it cost, and what waits now."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import streamlit as st

from client import overview
from client.dead_letters import Queue, replay_command
from client.overview import Backlog, Cost, Count, Overview, Range, StageTime, Window, has_worker
from client.stack import Stack
from web import session

REFRESH_S: Final = 30

_LABELS: Final = {Range.HOUR: "1 hour", Range.DAY: "24 hours", Range.WEEK: "7 days"}
_TICKS: Final = {Range.HOUR: "%H:%M", Range.DAY: "%H:%M", Range.WEEK: "%b %d"}

# GetMetricData is billed by metric, so all sessions of a server share the answers for that long.
_KEPT_S: Final = {Range.HOUR: 60, Range.DAY: 300, Range.WEEK: 300}
_KEPT_LOCALLY_S: Final = 5

# Of Okabe and Ito, so color-blind people can tell them apart; each has a contrast of 3:1 on light and on dark pages.
_BLUE, _GREEN, _RED = "#0072B2", "#009E73", "#D55E00"
_OUTCOMES: Final = {"computed": _BLUE, "from the cache": _GREEN, "failed": _RED}

_DEAD_LETTERS: Final = {
    Queue.UPLOADS: "Upload events that EventBridge could not deliver: these images were not processed.",
    Queue.RECONCILE: "Status events that the reconcile function could not process: failure reports may be missing.",
    Queue.SEGMENTATION: "Segmentation requests that no worker completed: Lambda took over, or the execution failed.",
    Queue.WEBHOOKS: "Webhooks that could not be delivered.",
}


def show() -> None:
    """Show the page."""
    st.title("Overview")
    span = st.segmented_control(
        "Range",
        list(Range),
        default=Range.HOUR,
        required=True,
        format_func=lambda span: _LABELS[span],
        key="range",
        bind="query-params",
    )
    _refreshed(span or Range.HOUR)


@st.fragment(run_every=REFRESH_S)
def _refreshed(span: Range) -> None:
    stack = session.stack()
    kept_s = _KEPT_LOCALLY_S if stack.endpoint_url else _KEPT_S[span]
    draw(stack, span, _past(span, int(time.time() // kept_s)), _now(int(time.time() // _KEPT_LOCALLY_S)))


@st.cache_data(ttl=max(_KEPT_S.values()), max_entries=20, show_spinner=False)
def _past(span: Range, tick: int) -> Overview:
    del tick  # a new value asks for new data
    return overview.read(session.stack(), span, datetime.now(UTC))


@st.cache_data(ttl=_KEPT_LOCALLY_S, max_entries=2, show_spinner=False)
def _now(tick: int) -> Backlog:
    del tick
    return overview.backlog(session.stack())


def draw(stack: Stack, span: Range, past: Overview, now: Backlog) -> None:
    """Draw the page below its title.

    Args:
        stack: the stack.
        span: the chosen range.
        past: what happened in it.
        now: what waits or runs.
    """
    _dead_letters(stack, now.dead_letters)
    _figures(stack, past, now)
    if not past.images:
        st.info(
            f"CloudWatch has no data of the past {_LABELS[span].removeprefix('1 ')}: no image was processed, or the "
            "first one has just been. Choose a longer range, or try an image on the page Remove.",
            icon=":material/hourglass_empty:",
        )
    else:
        _outcomes(span, past)
        _failures(past)
        _stage_times(past.stages)
        _cost(stack, past.cost)
    _footnote(stack, past)


def _dead_letters(stack: Stack, queues: Mapping[Queue, int]) -> None:
    for queue, count in queues.items():
        messages = "1 message" if count == 1 else f"{count:,} messages"
        command = replay_command(stack, queue)
        st.warning(
            f"**{messages} in the dead-letter queue {queue}.** {_DEAD_LETTERS[queue]} Remove the cause, then run:\n\n"
            f"```sh\n{command}\n```\n\nWith `--dry-run` it only shows the messages.",
            icon=":material/warning:",
        )


def _figures(stack: Stack, past: Overview, now: Backlog) -> None:
    worker = has_worker(stack)
    cost = past.cost.per_image_usd
    cards = [
        ("Images", f"{past.images:,}" if past.images else None, "Images whose execution ended in this range."),
        ("Per hour", past.per_hour and f"{past.per_hour:,.1f}", "Throughput: images per hour, on average."),
        ("Success rate", _percent(past.success_rate), "Share of the images that have a result."),
        ("Cache hits", _percent(past.hit_rate), "Share of the results that came from the cache."),
        ("Cost per image", cost and usd(cost), f"Estimate at list prices of {past.cost.prices_as_of}, per result."),
        ("Running now", f"{now.running:,}{'+' if now.more_running else ''}", "Executions that are running."),
        (
            "Worker queue now",
            None if now.waiting is None else f"{now.waiting:,}",
            f"Images that wait for the worker. It is working on {now.received:,}."
            if worker
            else "None: the stack has no worker, so no image waits for one.",
        ),
    ]
    for row in (cards[:5], cards[5:]):
        with st.container(horizontal=True):
            for label, value, meaning in row:
                st.metric(label, value, help=meaning, border=True, width="stretch")


def _outcomes(span: Range, past: Overview) -> None:
    st.subheader("Images over time")
    st.vega_lite_chart(outcome_chart(past, _TICKS[span]), height=320, alt=describe_outcomes(past))


def outcome_chart(past: Overview, ticks: str) -> dict[str, Any]:
    """Return a Vega-Lite chart of the images in each period, in UTC.

    Args:
        past: the counts.
        ticks: format of the time axis.
    """
    return {
        "data": {"values": [rectangle for count in past.counts for rectangle in _stacked(count, past.window.period)]},
        "mark": {"type": "rect"},
        "encoding": {
            "x": {
                "field": "from",
                "type": "temporal",
                "scale": {"type": "utc"},
                "axis": {"format": ticks, "title": "Time (UTC)", "labelOverlap": True, "grid": False},
            },
            "x2": {"field": "to"},
            "y": {
                "field": "bottom",
                "type": "quantitative",
                "axis": {"title": f"Images per {_period(past.window.period)}", "tickMinStep": 1, "format": ",d"},
            },
            "y2": {"field": "top"},
            "color": _legend("outcome", _OUTCOMES),
            "tooltip": [
                {"field": "start", "title": "From"},
                {"field": "outcome", "title": "Outcome"},
                {"field": "images", "type": "quantitative", "title": "Images", "format": ",d"},
            ],
        },
    }


def _stacked(count: Count, period: timedelta) -> Iterator[dict[str, Any]]:
    """Yield a rectangle for each outcome, one above the other. Those of empty periods keep their place on the axis."""
    gap, bottom = period * 0.06, 0
    for outcome, images in zip(_OUTCOMES, (count.computed, count.cached, count.failed), strict=True):
        yield {
            "from": _ms(count.start + gap),
            "to": _ms(count.start + period - gap),
            "bottom": bottom,
            "top": bottom + images,
            "start": f"{count.start:%b %d %H:%M} UTC",
            "outcome": outcome,
            "images": images,
        }
        bottom += images


def describe_outcomes(past: Overview) -> str:
    """Return the chart of the images over time as text."""
    busiest = max(past.counts, key=lambda count: count.computed + count.cached + count.failed)
    return (
        f"Bar chart: images per {_period(past.window.period)}, {_between(past.window)}. {past.computed:,} computed, "
        f"{past.cached:,} from the cache, {past.failed:,} failed. Most images from {busiest.start:%b %d %H:%M}: "
        f"{busiest.computed:,} computed, {busiest.cached:,} from the cache, {busiest.failed:,} failed."
    )


def _failures(past: Overview) -> None:
    if not past.failures:
        return
    st.subheader("Failures by cause")
    st.table(
        [
            {"Stage": failure.stage, "Error": failure.error, "Images": f"{failure.images:,}"}
            for failure in past.failures
        ],
        hide_index=True,
        alt="Failures by stage and error",
    )
    st.caption("The page Executions shows each failed image, with the reason and what to do.")


def _stage_times(stages: Sequence[StageTime]) -> None:
    if not stages:
        return
    st.subheader("Processing time")
    images: dict[str, int] = {}
    for one in stages:
        images[one.image_size] = max(images.get(one.image_size, 0), one.images)
    sizes = sorted(images, key=overview.size_order)
    most = max(sizes, key=lambda size: images[size])
    size = st.segmented_control(
        "Image size", sizes, default=most, required=True, format_func=in_words, key="image_size"
    )
    shown = [one for one in stages if one.image_size == (size)]
    st.vega_lite_chart(
        stage_chart(shown), height=90 + 36 * len(shown), alt=describe_stages(shown), key=f"stages-{size}"
    )
    st.table(
        [
            {
                "Stage": one.stage,
                "Images": f"{one.images:,}",
                "Median": f"{one.p50_s:.2f} s",
                "95th percentile": f"{one.p95_s:.2f} s",
            }
            for one in shown
        ],
        hide_index=True,
        alt="Processing time of each stage",
    )
    st.caption(
        "Percentiles of different image sizes cannot be merged, so each size has its own. "
        "Waits between stages and starts of functions are not included."
    )


def stage_chart(stages: Sequence[StageTime]) -> dict[str, Any]:
    """Return a Vega-Lite chart of the median and the 95th percentile of each stage."""
    marks = {"median": (_BLUE, "circle"), "95th percentile": (_RED, "diamond")}
    rows = [{"stage": one.stage, "median": one.p50_s, "95th percentile": one.p95_s} for one in stages]
    y = {
        "field": "stage",
        "type": "nominal",
        "sort": [one.stage for one in stages],
        "axis": {"title": None, "labelLimit": 120},
    }
    axis = {"title": "Seconds"}
    return {
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "rule", "color": "#808080", "strokeWidth": 3},
                "encoding": {
                    "y": y,
                    "x": {"field": "median", "type": "quantitative", "scale": {"zero": True}, "axis": axis},
                    "x2": {"field": "95th percentile"},
                },
            },
            {
                "transform": [{"fold": list(marks), "as": ["statistic", "seconds"]}],
                "mark": {"type": "point", "filled": True, "size": 130, "opacity": 1},
                "encoding": {
                    "y": y,
                    "x": {"field": "seconds", "type": "quantitative", "axis": axis},
                    "color": _legend("statistic", {name: color for name, (color, _) in marks.items()}),
                    "shape": {
                        "field": "statistic",
                        "scale": {"domain": list(marks), "range": [shape for _, shape in marks.values()]},
                    },
                    "tooltip": [
                        {"field": "stage", "title": "Stage"},
                        {"field": "statistic", "title": "Statistic"},
                        {"field": "seconds", "type": "quantitative", "title": "Seconds", "format": ".2f"},
                    ],
                },
            },
        ],
    }


def describe_stages(stages: Sequence[StageTime]) -> str:
    """Return the chart of the processing times as text."""
    times = "; ".join(f"{one.stage} {one.p50_s:.2f} s and {one.p95_s:.2f} s" for one in stages)
    return f"Median and 95th percentile of the processing time, images {in_words(stages[0].image_size)}: {times}."


def _cost(stack: Stack, cost: Cost) -> None:
    if not cost.results:
        return
    st.subheader("Cost")
    parts = {
        "Lambda": cost.functions_usd,
        "Step Functions": cost.orchestration_usd,
        "S3 and DynamoDB requests": cost.requests_usd,
        "Total": cost.total_usd,
    }
    st.table(
        [
            {"Service": name, "These images": usd(value), "Per 1,000 results": usd(value / cost.results * 1000)}
            for name, value in parts.items()
        ],
        hide_index=True,
        alt="Estimated cost by service",
    )
    missing = f" Not included: {' and '.join(cost.not_included)}, billed by the hour." if cost.not_included else ""
    times = "the times of this machine, not of Lambda" if stack.endpoint_url else "the times that the stages report"
    st.caption(
        f"Estimate at list prices of {cost.prices_as_of} in {cost.region}, with {times}, and without starts of "
        f"functions, storage, transfer and logs.{missing} Images of bulk runs are priced as single uploads; the "
        "summary of a bulk run has its own estimate. Failed images are included, but not their processing time."
    )


def _footnote(stack: Stack, past: Overview) -> None:
    notes = [f"{_between(past.window)}. Updated every {REFRESH_S} s."]
    if not stack.endpoint_url:
        notes.append("CloudWatch lists a new metric up to 15 minutes after its first value.")
    if past.most_waiting is not None:
        notes.append(f"At most {past.most_waiting:,} images waited for the worker.")
    st.caption(" ".join(notes))


def usd(value: float) -> str:
    r"""Return an amount as Markdown with two significant digits at least, e.g. ``\$0.00043`` or ``\$12.30``."""
    decimals = 2 if value >= 0.1 or value == 0 else 1 - math.floor(math.log10(value))
    return f"\\${value:,.{decimals}f}"


def in_words(image_size: str) -> str:
    """Return a size class in words, e.g. ``up to 4 MP``."""
    number = image_size.strip("<=>MP")
    return f"over {number} MP" if image_size.startswith(">") else f"up to {number} MP"


def _percent(share: float | None) -> str | None:
    """Return a share as text. It is never rounded to 0 % or 100 %."""
    if share is None or share in (0, 1):
        return share if share is None else f"{share:.0%}".replace("%", " %")
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"


def _ms(at: datetime) -> int:
    """Return a time as Vega-Lite reads it: milliseconds since 1970."""
    return round(at.timestamp() * 1000)


def _period(period: timedelta) -> str:
    minutes = period // timedelta(minutes=1)
    if minutes < 60:
        return f"{minutes} minutes"
    return "hour" if minutes == 60 else f"{minutes // 60} hours"


def _between(window: Window) -> str:
    return f"{window.start:%b %d %H:%M} to {window.end:%b %d %H:%M} UTC"


def _legend(field: str, colors: Mapping[str, str]) -> dict[str, Any]:
    """Return the color encoding of a field, with a legend above the chart."""
    return {
        "field": field,
        "type": "nominal",
        "scale": {"domain": list(colors), "range": list(colors.values())},
        "legend": {"orient": "top", "title": None},
    }
