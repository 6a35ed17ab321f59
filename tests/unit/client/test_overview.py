from datetime import UTC, datetime, timedelta

import pytest
import yaml

from client import overview
from client.dead_letters import Queue
from client.overview import Failure, Range
from core.errors import EmptyImageError
from functions.contracts.metrics import METRICS
from functions.contracts.prices import prices_of, upload_usage
from tests.conftest import ROOT
from tests.fakes.metrics_in_memory import NOW, Cloud


def test_the_metrics_that_are_read_exist() -> None:
    for name, dimensions in overview.DIMENSIONS.items():
        assert dimensions in [tuple(sorted(one)) for one in METRICS[name].dimension_sets]
    assert METRICS["ProcessingTime"].unit == "Milliseconds"


def test_memory_of_functions_is_that_of_the_template() -> None:
    template = (ROOT / "template.yaml").read_text()
    validate = template[template.index("  ValidateFunction:") :]
    assert yaml.safe_load(validate[validate.index("MemorySize:") :].splitlines()[0]) == {
        "MemorySize": overview.VALIDATE_MEMORY_MB
    }
    for function, parameter in (("Segment", "SegmentMemory"), ("Refine", "RefineMemory"), ("Encode", "EncodeMemory")):
        assert f"MemorySize: !Ref {parameter}" in template[template.index(f"  {function}Function:") :].split("Logs:")[0]


def test_counts_are_summed_over_all_dimension_values() -> None:
    cloud = Cloud()
    for size in ("<=1MP", "<=4MP", ">50MP"):
        cloud.count("Processed", ImageSize=size)
        cloud.count("Processed", ImageSize=size)
    cloud.count("CacheHit", ImageSize="<=4MP")
    cloud.count("CacheHit", ImageSize="<=4MP", minutes_ago=20)
    cloud.count("Failed", Stage="Validate", Error="EmptyImageError")
    cloud.count("Failed", Stage="Refine", Error="States.Timeout")
    found = cloud.read()
    assert (found.computed, found.cached, found.failed, found.images) == (6, 2, 2, 10)
    assert (found.success_rate, found.hit_rate) == (0.8, 0.25)


def test_metrics_with_other_dimensions_are_not_counted_twice() -> None:
    cloud = Cloud()
    cloud.count("Processed", ImageSize="<=1MP")
    cloud.count("Processed", ImageSize="<=1MP", service="encode")  # of an earlier version
    cloud.count("Processed")
    assert cloud.read().computed == 1


def test_metrics_of_other_stacks_are_left_out() -> None:
    cloud = Cloud()
    cloud.count("Processed", ImageSize="<=1MP")
    cloud.count("Processed", ImageSize="<=1MP", namespace="PrecisionBackgroundRemover/pbr-test")
    cloud.count("Processed", ImageSize="<=1MP", namespace="PrecisionBackgroundRemover")
    assert cloud.read().computed == 1


def test_no_data_is_not_zero() -> None:
    found = Cloud().read()
    assert found.images == 0
    assert (found.per_hour, found.success_rate, found.hit_rate, found.cost.per_image_usd) == (None,) * 4
    assert (found.stages, found.failures, found.most_waiting) == ((), (), None)


def test_failures_only_are_a_success_rate_of_zero_and_no_hit_rate() -> None:
    cloud = Cloud()
    cloud.count("Failed", Stage="Validate", Error="EmptyImageError")
    found = cloud.read()
    assert (found.success_rate, found.hit_rate, found.cost.per_image_usd) == (0, None, None)


@pytest.mark.parametrize(
    ("span", "start", "periods"),
    [
        (Range.HOUR, datetime(2026, 3, 1, 11, 30, tzinfo=UTC), 13),
        (Range.DAY, datetime(2026, 2, 28, 12, 0, tzinfo=UTC), 25),
        (Range.WEEK, datetime(2026, 2, 22, 12, 0, tzinfo=UTC), 29),
    ],
)
def test_a_range_starts_with_a_whole_period_and_ends_now(span, start, periods) -> None:
    window = span.window(NOW)
    assert (window.start, window.end, len(window.starts)) == (start, NOW, periods)
    assert window.whole_s % 60 == 0
    assert window.start + timedelta(seconds=window.whole_s) >= NOW


def test_images_are_counted_in_their_period_and_older_ones_are_not() -> None:
    cloud = Cloud()
    for minutes_ago in (0.1, 4, 30, 64, 66, 300):  # the range starts 64.9 minutes ago
        cloud.count("Processed", minutes_ago, ImageSize="<=1MP")
    found = cloud.read()
    assert {f"{count.start:%H:%M}": count.computed for count in found.counts if count.computed} == {
        "11:30": 1,
        "12:00": 1,
        "12:30": 2,
    }
    assert found.per_hour == pytest.approx(4 / (64 + 56 / 60) * 60)
    assert cloud.read(Range.DAY).computed == 6


def test_percentiles_are_per_stage_and_image_size() -> None:
    cloud = Cloud()
    cloud.took("encode", 1, 2, 3)
    cloud.took("segment", *(number / 10 for number in range(1, 102)))
    cloud.took("segment", 40, size="<=12MP")
    cloud.took("segment", 20, size="<=4MP")
    cloud.took("segment", 90, size=">50MP")
    cloud.took("validate", 0.5)
    stages = cloud.read().stages
    assert [(one.stage, one.image_size, one.images) for one in stages] == [
        ("validate", "<=1MP", 1),
        ("segment", "<=1MP", 101),
        ("segment", "<=4MP", 1),
        ("segment", "<=12MP", 1),
        ("segment", ">50MP", 1),
        ("encode", "<=1MP", 3),
    ]
    assert (stages[1].p50_s, stages[1].p95_s) == pytest.approx((5.1, 9.6))
    assert stages[5].total_s == pytest.approx(6)


def test_failures_are_listed_by_frequency() -> None:
    cloud = Cloud()
    cloud.count("Failed", Stage="Refine", Error="States.Timeout")
    for _ in range(2):
        cloud.count("Failed", Stage="Validate", Error=EmptyImageError.__name__)
    assert cloud.read().failures == (Failure("Validate", "EmptyImageError", 2), Failure("Refine", "States.Timeout", 1))


def test_more_metrics_than_a_request_takes_are_read_in_several() -> None:
    cloud = Cloud()
    for number in range(1201):
        cloud.count("Failed", Stage="Validate", Error=f"Error{number}")
    assert cloud.read().failed == 1201
    assert cloud.metrics.requested == [500, 500, 201]


def test_cost_is_that_of_the_functions_memory_and_time() -> None:
    cloud = Cloud()
    cloud.parameters = {"SegmentMemory": "8192", "RefineMemory": "2048", "EncodeMemory": "4096"}
    cloud.count("Processed", ImageSize="<=1MP")
    cloud.count("CacheHit", ImageSize="<=1MP")
    cloud.count("Failed", Stage="Validate", Error="EmptyImageError")
    for stage, seconds in (("validate", 1), ("segment", 10), ("escalation", 20), ("refine", 3), ("encode", 2)):
        cloud.took(stage, seconds)
    cost, (region, prices) = cloud.read().cost, prices_of("eu-west-1")
    usage = upload_usage(1, 1, 1, 2 * 1 + 8 * (10 + 20) + 2 * 3 + 4 * 2)
    assert cost.functions_usd == pytest.approx(usage.compute_usd(prices))
    assert cost.total_usd == pytest.approx(
        usage.compute_usd(prices) + usage.orchestration_usd(prices) + usage.requests_usd(prices)
    )
    assert cost.per_image_usd == pytest.approx(cost.total_usd / 2)
    assert (cost.region, cost.not_included) == (region, ())


def test_segmentation_on_another_host_is_not_priced_as_lambda() -> None:
    cloud = Cloud()
    cloud.count("Processed", ImageSize="<=1MP")
    cloud.took("refine", 1)
    before = cloud.read().cost
    cloud.took("segment", 100)
    cloud.parameters, cloud.outputs = {"SegmentationHost": "ecs"}, {"WorkerServiceName": "worker"}
    after = cloud.read().cost
    assert after.functions_usd == before.functions_usd
    assert after.not_included == ("the worker",)


def test_the_highest_queue_depth_is_that_of_the_workers_queue() -> None:
    cloud = Cloud()
    cloud.outputs = {"WorkerServiceName": "worker", "QueueUrl": "https://sqs/1/jobs"}
    for depth in (3, 7, 0):
        cloud.metrics.put(
            "ApproximateNumberOfMessagesVisible",
            depth,
            NOW - timedelta(minutes=depth + 1),
            namespace="AWS/SQS",
            QueueName="jobs",
        )
    assert cloud.read().most_waiting == 7


def test_backlog_counts_executions_messages_and_dead_letters() -> None:
    cloud = Cloud()
    cloud.executions.add("a", {})
    cloud.executions.add("b", {}, status="SUCCEEDED")
    cloud.queues.messages = {"https://queue": (5, 2), "https://webhooks-dlq": (3, 0)}
    cloud.outputs = {"WorkerServiceName": "worker"}
    found = cloud.backlog()
    assert (found.running, found.more_running, found.waiting, found.received) == (1, False, 5, 2)
    assert found.dead_letters == {Queue.WEBHOOKS: 3}


def test_backlog_of_a_stack_without_worker_has_no_queue() -> None:
    found = Cloud().backlog()
    assert (found.waiting, found.received, found.dead_letters) == (None, None, {})
