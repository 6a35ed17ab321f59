"""Properties of the state machine of bulk runs, and its agreement with the code and the template."""

from typing import Any

import pytest
import yaml

from core.errors import PermanentError, TransientError
from functions.bulk.batch import LAST_ATTEMPT, LONGEST_ITEM_S
from functions.bulk.config import BulkConfig
from functions.bulk.prepare import MOST_TOLERATED
from functions.contracts.failure_report import ErrorFacts
from functions.contracts.prices import REQUEST_BATCH, RUN_TRANSITIONS, TRANSFORM_TRANSITIONS
from functions.segment.sagemaker.server import _MAX_REQUESTS
from tests.conftest import ROOT
from tests.state_machine import OF_A_DELIVERY, leaves
from tests.unit.statemachine.test_timeouts import LAMBDA_START_S, RESOURCES, call_s, load

BULK = yaml.safe_load((ROOT / "statemachine/bulk.asl.yaml").read_text())
TEMPLATE = load(ROOT / "infrastructure/bulk.yaml")
MAPS = {name: state for name, state in BULK["States"].items() if state["Type"] == "Map"}
INNER = {name: state for one in MAPS.values() for name, state in one["ItemProcessor"]["States"].items()}
TASKS = {name: state for name, state in {**BULK["States"], **INNER}.items() if state["Type"] == "Task"}
EXPRESS = {n: one for n, one in MAPS.items() if one["ItemProcessor"]["ProcessorConfig"]["ExecutionType"] == "EXPRESS"}
BATCHES = {
    name: task for one in EXPRESS.values() for name, task in one["ItemProcessor"]["States"].items() if name in TASKS
}
EXPRESS_S = 300


def names_in(clauses: list[dict[str, Any]]) -> set[str]:
    return {name for clause in clauses for name in clause["ErrorEquals"]}


def ours(names: set[str]) -> set[str]:
    return {name for name in names if "." not in name}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_bounded_and_retried_with_backoff_cap_and_full_jitter(name: str) -> None:
    assert TASKS[name]["TimeoutSeconds"]
    for retrier in TASKS[name]["Retry"]:
        assert isinstance(retrier["BackoffRate"], float) and retrier["BackoffRate"] >= 2
        assert retrier["JitterStrategy"] == "FULL" and retrier["IntervalSeconds"] <= retrier["MaxDelaySeconds"]
    assert not names_in(TASKS[name]["Retry"]) & (leaves(PermanentError) | {"States.ALL", "States.TaskFailed"})


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_is_retried_after_every_transient_error_of_an_image_until_the_last_attempt(name: str) -> None:
    [own] = [retrier for retrier in BATCHES[name]["Retry"] if "StorageUnavailableError" in retrier["ErrorEquals"]]
    assert ours(set(own["ErrorEquals"])) == leaves(TransientError) - OF_A_DELIVERY - {"GpuUnavailableError"}
    assert own["MaxAttempts"] == LAST_ATTEMPT
    assert BATCHES[name]["Parameters"]["Payload"]["attempt.$"] == "$$.State.RetryCount"


def test_a_batch_ends_before_its_express_execution() -> None:
    timeout_s = TEMPLATE["BulkFunction"]["Properties"]["Timeout"]
    budget_s = BulkConfig.model_fields["bulk_budget_s"].default
    assert budget_s < timeout_s and budget_s > LONGEST_ITEM_S
    for task in BATCHES.values():
        assert timeout_s + LAMBDA_START_S <= task["TimeoutSeconds"] < EXPRESS_S


@pytest.mark.parametrize(
    ("state", "function"),
    [
        ("Prepare", "PrepareBulkFunction"),
        ("Summarize", "SummarizeBulkFunction"),
        ("SummarizeFailed", "SummarizeBulkFunction"),
    ],
)
def test_a_state_waits_for_the_function_and_its_start(state: str, function: str) -> None:
    timeout_s = TEMPLATE[function]["Properties"]["Timeout"]
    assert call_s() < timeout_s and timeout_s + LAMBDA_START_S <= TASKS[state]["TimeoutSeconds"]


def test_a_standard_child_waits_for_the_longest_execution() -> None:
    longest_s = yaml.safe_load((ROOT / "statemachine/remove_background.asl.yaml").read_text())["TimeoutSeconds"]
    for name in ("RemoveBackground", "RemoveBackgroundOfRow"):
        assert TASKS[name]["TimeoutSeconds"] > longest_s


@pytest.mark.parametrize("name", sorted(MAPS.keys() - {"RequestMasks"}))
def test_every_map_run_has_the_limits_of_the_run_and_leads_to_a_summary(name: str) -> None:
    state = MAPS[name]
    limits = {key: path for key, path in state.items() if key.endswith("Path") and key != "ResultPath"}
    assert limits == {
        "MaxConcurrencyPath": "$.max_concurrency",
        "ToleratedFailurePercentagePath": "$.tolerated_failure_percentage",
        "ToleratedFailureCountPath": "$.tolerated_failure_count",
    }
    assert state["Next"] == "Summarize"
    assert [(clause["ErrorEquals"], clause["Next"]) for clause in state["Catch"]] == [
        (["States.ALL"], "SummarizeFailed")
    ]
    assert state["ResultWriter"]["WriterConfig"] == {"Transformation": "NONE", "OutputType": "JSONL"}
    assert MOST_TOLERATED == 10_000_000, "the maximum of ToleratedFailureCount"


@pytest.mark.parametrize(("one", "other"), [("ProcessListing", "ProcessRows"), ("StartForListing", "StartForRows")])
def test_both_readers_have_the_same_children(one: str, other: str) -> None:
    assert MAPS[one].get("ItemBatcher") == MAPS[other].get("ItemBatcher")
    assert MAPS[one]["ResultWriter"] == MAPS[other]["ResultWriter"]
    children = [MAPS[name]["ItemProcessor"]["States"] for name in (one, other)]
    for state, same in zip(*(states.values() for states in children), strict=True):
        for key in ("Type", "Resource", "Parameters", "OutputPath", "TimeoutSeconds", "Retry", "Error", "Cause"):
            assert state.get(key) == same.get(key)


def test_a_job_that_starts_leads_to_the_images_and_one_that_does_not_fails_the_run() -> None:
    states = BULK["States"]
    assert states["RequestMasks"]["ToleratedFailurePercentage"] == 100
    assert states["MakeMasks"]["Next"] == "ProcessRows"
    assert [clause["Next"] for clause in states["MakeMasks"]["Catch"]] == ["JobStarted?"]
    [choice] = states["JobStarted?"]["Choices"]
    assert {rule["StringEquals"] for rule in choice["Or"]} == {"States.TaskFailed", "States.Timeout"}
    assert (choice["Next"], states["JobStarted?"]["Default"]) == ("ProcessRows", "DescribeRejection")
    facts = states["DescribeRejection"]["Parameters"]
    assert {name.removesuffix(".$") for name in facts} == ErrorFacts.model_fields.keys()


def test_a_transform_job_sends_no_more_requests_than_the_container_accepts() -> None:
    assert BULK["States"]["MakeMasks"]["Parameters"]["MaxConcurrentTransforms"] < _MAX_REQUESTS
    assert BULK["States"]["RequestMasks"]["ItemBatcher"]["MaxItemsPerBatch"] == REQUEST_BATCH


def test_the_estimate_of_costs_counts_the_transitions_of_a_run() -> None:
    path = ["Prepare", "ChooseReader", "ProcessListing", "Summarize", "WithinTolerance?", "Done"]
    assert set(path) <= BULK["States"].keys()
    assert len(path) <= RUN_TRANSITIONS
    transform = ["RequestMasks", "CountFiles", "MasksMissing?", "MakeMasks"]
    assert set(transform) <= BULK["States"].keys() and len(transform) == TRANSFORM_TRANSITIONS


def test_the_machine_s_functions_are_not_those_of_uploads() -> None:
    assert not TEMPLATE.keys() & RESOURCES.keys()
