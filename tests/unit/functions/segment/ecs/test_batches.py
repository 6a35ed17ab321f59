from concurrent.futures import ThreadPoolExecutor

from functions.segment.ecs.batches import Batches

FOR_EVER_S = 3600.0


def filled(batches: Batches[str], *items: tuple[str, str]) -> Batches[str]:
    for model, item in items:
        batches.expect(model)
        batches.put(model, item)
    return batches


def test_a_batch_does_not_wait_if_no_item_is_expected() -> None:
    assert filled(Batches(8, FOR_EVER_S), ("u2net", "a"), ("u2net", "b")).take() == ["a", "b"]


def test_a_batch_does_not_wait_for_items_of_another_model() -> None:
    batches = filled(Batches(8, FOR_EVER_S), ("u2net", "a"))
    batches.expect("isnet")
    assert batches.take() == ["a"]


def test_a_full_batch_does_not_wait_and_leaves_the_rest() -> None:
    batches = filled(Batches(2, FOR_EVER_S), ("u2net", "a"), ("u2net", "b"), ("u2net", "c"))
    batches.expect("u2net")
    assert batches.take() == ["a", "b"]
    batches.cancel("u2net")
    assert batches.take() == ["c"]


def test_an_item_waits_for_expected_items() -> None:
    batches = filled(Batches(8, FOR_EVER_S), ("u2net", "a"))
    batches.expect("u2net")
    batches.expect("u2net")
    with ThreadPoolExecutor() as threads:
        taken = threads.submit(batches.take)
        batches.put("u2net", "b")
        batches.cancel("u2net")
        assert taken.result(60) == ["a", "b"]


def test_an_item_waits_no_longer_than_the_limit() -> None:
    batches = filled(Batches(8, 0.001), ("u2net", "a"))
    batches.expect("u2net")
    with ThreadPoolExecutor() as threads:
        assert threads.submit(batches.take).result(60) == ["a"]


def test_a_batch_has_one_model_and_the_oldest_item_goes_first() -> None:
    items = ("u2net", "a"), ("isnet", "b"), ("u2net", "c"), ("isnet", "d"), ("u2net", "e"), ("u2net", "f")
    batches = filled(Batches(2, FOR_EVER_S), *items)
    assert [batches.take() for _ in range(3)] == [["a", "c"], ["b", "d"], ["e", "f"]]


def test_a_full_batch_does_not_wait_for_an_older_one_that_is_not_ready() -> None:
    batches = filled(Batches(2, FOR_EVER_S), ("u2net", "a"), ("isnet", "b"), ("isnet", "c"))
    batches.expect("u2net")
    assert batches.take() == ["b", "c"]


def test_close_ends_a_waiting_take() -> None:
    batches: Batches[str] = Batches(2, FOR_EVER_S)
    with ThreadPoolExecutor() as threads:
        taken = threads.submit(batches.take)
        batches.close()
        assert taken.result(60) is None
    assert filled(batches, ("u2net", "a")).take() is None
