"""The most recent metric data."""

from moto.cloudwatch.models import MetricDatum

from embedded_cloud.metric_store import RecentData


def datum(name: str, value: float, **dimensions: str) -> MetricDatum:
    pairs = [{"Name": key, "Value": text} for key, text in dimensions.items()]
    return MetricDatum("N", name, value, pairs, None)


def test_the_oldest_data_are_dropped() -> None:
    store = RecentData(3)
    for value in range(3):
        store.append(datum("a", value, x="1"))
    store.append(datum("b", 3))
    assert [found.value for found in store.select("N", "a", (("x", "1"),))] == [1, 2]
    for value in range(4, 7):
        store.append(datum("b", value))
    assert list(store.metrics()) == [("N", "b", ())]
    assert [found.value for found in store] == [4, 5, 6]


def test_a_metric_is_selected_by_all_its_dimensions() -> None:
    store = RecentData(9)
    store.append(datum("a", 1, x="1", y="2"))
    store.append(datum("a", 2, y="2", x="1"))
    store.append(datum("a", 3, x="1"))
    assert [found.value for found in store.select("N", "a", (("x", "1"), ("y", "2")))] == [1, 2]
    assert store.select("N", "a", ()) == []
    assert len(store.metrics()) == 2
