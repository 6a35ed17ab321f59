"""Metrics in log messages: which are found, and which are ignored."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_cloud.embedded_metrics import MAX_DATA, extract

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def document(
    metrics: Any = ({"Name": "Time", "Unit": "Milliseconds"},),
    dimensions: Any = (("Stage",),),
    timestamp: Any = None,
    **members: Any,
) -> str:
    directive = {"Namespace": "Test", "Dimensions": dimensions, "Metrics": metrics}
    metadata = {"Timestamp": int(time.time() * 1000) if timestamp is None else timestamp}
    return json.dumps({"_aws": {**metadata, "CloudWatchMetrics": [directive]}, "Stage": "refine", "Time": 5, **members})


def test_a_metric_has_namespace_name_dimensions_value_unit_and_time() -> None:
    now_ms = int(time.time()) * 1000
    [datum] = extract(document(timestamp=now_ms))
    assert (datum.namespace, datum.name, datum.unit) == ("Test", "Time", "Milliseconds")
    assert (datum.dimensions, datum.values) == ((("Stage", "refine"),), (5.0,))
    assert (datum.timestamp - datum.timestamp.fromtimestamp(0)).total_seconds() > 0
    assert datum.timestamp.strftime("%Y%m%d%H%M%S") == time.strftime("%Y%m%d%H%M%S", time.gmtime(now_ms / 1000))


def test_each_set_of_dimensions_is_a_metric() -> None:
    found = extract(document(dimensions=[["Stage"], [], ["Stage", "Model"]], Model="u2net"))
    assert [datum.dimensions for datum in found] == [
        (("Stage", "refine"),),
        (),
        (("Model", "u2net"), ("Stage", "refine")),
    ]


def test_a_message_holds_several_metrics_and_arrays_of_values() -> None:
    found = extract(document(metrics=[{"Name": "Time"}, {"Name": "Size", "Unit": "Bytes"}], Time=[1, 2.5], Size=7))
    assert [(datum.name, datum.values, datum.unit) for datum in found] == [
        ("Time", (1.0, 2.5), "None"),
        ("Size", (7.0,), "Bytes"),
    ]


@pytest.mark.parametrize(
    "message",
    [
        document(dimensions=[["Missing"]]),
        document(dimensions=[["Stage"]], Stage=3),
        document(dimensions=[["Stage"]], Stage=""),
        document(dimensions=[]),
        document(dimensions="Stage"),
        document(metrics=[{"Name": "Missing"}]),
        document(metrics=[{"Name": "Time", "Unit": "Bananas"}]),
        document(metrics=[{"Name": "Time"}] * 101),
        document(Time="5"),
        document(Time=True),
        document(Time=[1, "2"]),
        document(Time=[1] * 101),
        document(Time=float("nan")),
        document(Time=10**200),
        document(timestamp="now"),
        document(timestamp=0),
        document(timestamp=(time.time() + 3 * 3600) * 1000),
        f"INFO {document()}",
        "[" * 100_000 + '"CloudWatchMetrics"',
    ],
)
def test_invalid_metrics_are_ignored(message: str) -> None:
    assert extract(message) == []


def test_an_invalid_metric_does_not_affect_others() -> None:
    [datum] = extract(document(metrics=[{"Name": "Broken"}, {"Name": "Time"}], Broken="a"))
    assert datum.name == "Time"


@given(metrics=JSON, dimensions=JSON, timestamp=JSON, members=st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_no_document_raises(metrics: Any, dimensions: Any, timestamp: Any, members: dict[str, Any]) -> None:
    members = {key: value for key, value in members.items() if key not in ("metrics", "dimensions", "timestamp")}
    for datum in extract(document(metrics, dimensions, timestamp, **members)):
        assert datum.name in members or datum.name == "Time"


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "\x1b[31m", " "])
def test_texts_that_no_response_can_contain_are_ignored(text: str) -> None:
    assert extract(document(metrics=[{"Name": text}], **{text: 5})) == []
    assert extract(document(Stage=text)) == []


def test_dimensions_are_ascii_and_other_names_are_not() -> None:
    assert extract(document(Stage="entwürfe")) == []
    [datum] = extract(document(metrics=[{"Name": "Größe"}], **{"Größe": 5}))
    assert datum.name == "Größe"


def test_a_message_has_a_limited_number_of_metrics() -> None:
    message = document(metrics=[{"Name": "Time"}] * 100, dimensions=[["Stage"]] * 1000)
    assert len(extract(message)) == MAX_DATA
