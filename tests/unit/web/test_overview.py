from datetime import timedelta

import pytest
from streamlit.testing.v1 import AppTest

from client.overview import Range
from tests.fakes.metrics_in_memory import NOW, Cloud
from web.views.overview import describe_outcomes, describe_stages, in_words, outcome_chart, usd


def page(stack, span, past, now):  # Streamlit runs its source, without the imports of this module
    from web.views.overview import draw

    draw(stack, span, past, now)


def shown(cloud: Cloud, span: Range = Range.HOUR) -> AppTest:
    app = AppTest.from_function(page, args=(cloud.stack, span, cloud.read(span), cloud.backlog()), default_timeout=30)
    app.run()
    assert not app.exception
    return app


def figures(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def busy() -> Cloud:
    cloud = Cloud()
    cloud.endpoint_url = "http://localhost:4566"
    for _ in range(7):
        cloud.count("Processed", ImageSize="<=1MP")
        cloud.took("validate", 0.25)
        cloud.took("segment", 2.0)
    for _ in range(2):
        cloud.count("CacheHit", ImageSize="<=4MP")
        cloud.took("validate", 0.5, size="<=4MP")
    cloud.count("Failed", Stage="Validate", Error="EmptyImageError", minutes_ago=30)
    return cloud


def test_figures_of_a_busy_stack() -> None:
    assert figures(shown(busy())) == {
        "Images": "10",
        "Per hour": "9.2",
        "Success rate": "90.0 %",
        "Cache hits": "22.2 %",
        "Cost per image": "\\$0.00041",
        "Running now": "0",
        "Worker queue now": "—",
    }


def test_without_data_there_is_no_figure_and_no_chart_but_what_to_do() -> None:
    app = shown(Cloud(), Range.WEEK)
    assert {label for label, value in figures(app).items() if value == "0"} == {"Running now"}
    assert "no data of the past 7 days" in app.info[0].value
    assert not app.subheader
    assert not app.table


def test_only_a_share_of_exactly_one_is_100_percent() -> None:
    cloud = Cloud()
    for _ in range(3000):
        cloud.count("Processed", ImageSize="<=1MP")
    assert figures(shown(cloud))["Success rate"] == "100 %"
    cloud.count("Failed", Stage="Validate", Error="EmptyImageError")
    assert figures(shown(cloud))["Success rate"] == "99.9 %"


def test_dead_letters_are_shown_with_the_command_that_delivers_them() -> None:
    cloud = Cloud()
    cloud.queues.messages = {"https://webhooks-dlq": (3, 0), "https://uploads-dlq": (1, 0)}
    uploads, webhooks = (warning.value for warning in shown(cloud).warning)
    assert "**1 message in the dead-letter queue uploads.**" in uploads
    assert "pbr replay-dlq webhooks --stack pbr --region eu-west-1\n" in webhooks


def test_times_of_the_most_frequent_size_are_shown_first() -> None:
    app = shown(busy())
    times = app.table[1].value
    assert list(times["Stage"]) == ["validate", "segment"]
    assert list(times["Images"]) == ["7", "7"]
    app.segmented_control[0].set_value("<=4MP").run()
    assert list(app.table[1].value["95th percentile"]) == ["0.50 s"]


def test_cost_names_its_date_and_what_it_leaves_out() -> None:
    cloud = busy()
    cloud.outputs = {"WorkerServiceName": "worker"}
    app = shown(cloud)
    assert list(app.table[2].value["Service"])[-1] == "Total"
    text = next(caption.value for caption in app.caption if "list prices" in caption.value)
    assert "list prices of 2026-11-30 in eu-west-1" in text
    assert "the times of this machine, not of Lambda" in text
    assert "Not included: the worker" in text


def test_the_queue_depth_and_the_delay_of_new_metrics_are_noted() -> None:
    assert "15 minutes" not in shown(busy()).caption[-1].value
    cloud = Cloud()
    cloud.outputs = {"WorkerServiceName": "worker"}
    cloud.queues.messages = {"https://queue": (12, 3)}
    assert figures(shown(cloud))["Worker queue now"] == "12"
    cloud.metrics.put(
        "ApproximateNumberOfMessagesVisible", 15, NOW - timedelta(minutes=1), namespace="AWS/SQS", QueueName="queue"
    )
    caption = shown(cloud).caption[-1].value
    assert "15 minutes" in caption
    assert "At most 15 images waited for the worker." in caption


def test_bars_are_stacked_to_the_number_of_images_in_their_period() -> None:
    past = busy().read()
    rows = outcome_chart(past, "%H:%M")["data"]["values"]
    assert len(rows) == 3 * len(past.counts)
    tops = [(row["start"], row["top"]) for row in rows if row["outcome"] == "failed" and row["top"]]
    assert tops == [("Mar 01 12:00 UTC", 1), ("Mar 01 12:20 UTC", 9)]
    period_ms = past.window.period / timedelta(milliseconds=1)
    assert all(0 < row["to"] - row["from"] < period_ms for row in rows)


def test_charts_have_a_text_with_their_figures() -> None:
    past = busy().read()
    assert describe_outcomes(past) == (
        "Bar chart: images per 5 minutes, Mar 01 11:30 to Mar 01 12:34 UTC. 7 computed, 2 from the cache, 1 failed. "
        "Most images from Mar 01 12:20: 7 computed, 2 from the cache, 0 failed."
    )
    small = [one for one in past.stages if one.image_size == "<=1MP"]
    assert describe_stages(small) == (
        "Median and 95th percentile of the processing time, images up to 1 MP: validate 0.25 s and 0.25 s; "
        "segment 2.00 s and 2.00 s."
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000432, "0.00043"),
        (0.00999, "0.0100"),
        (0.5, "0.50"),
        (12.345, "12.35"),
        (1234567.8, "1,234,567.80"),
        (0, "0.00"),
    ],
)
def test_amounts_have_two_significant_digits_at_least(value, text) -> None:
    assert usd(value) == f"\\${text}"


@pytest.mark.parametrize(("size", "text"), [("<=1MP", "up to 1 MP"), (">50MP", "over 50 MP")])
def test_image_sizes_are_in_words(size, text) -> None:
    assert in_words(size) == text
