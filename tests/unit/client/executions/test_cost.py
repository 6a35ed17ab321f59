from dataclasses import dataclass, replace

import pytest
import yaml

from client.executions.cost import MEMORY_MB, cost_of
from client.executions.steps import Step, steps_of
from functions.contracts.prices import AS_OF, CHILD_TRANSITIONS, RUN_TRANSITIONS, Usage, standard_usage, upload_usage
from tests.conftest import ROOT
from tests.fakes.stack_in_memory import History, stack
from tests.state_machine import DEFINITION

MEMORY = {"SegmentMemory": "4096", "RefineMemory": "2048", "EncodeMemory": "1024"}
STACK = replace(stack(), parameters=MEMORY)
PATH = (
    "Validate ClaimWork ChooseSegmenter SegmentOnLambda Refine NeedsEscalation? Encode SaveCache PublishMetrics "
    "Outcome? Done"
)
HIT_PATH = (
    "Validate ClaimWork LookUpCache CacheHit? ServeCached DescribeHit ComposeSidecar SaveSidecar PublishMetrics "
    "Outcome? Done"
)


def run(path: str, history: History | None = None) -> list[Step]:
    """Return the steps of an execution through these states, whose calls take a second each."""
    history = history or History()
    for name in path.split():
        state = DEFINITION["States"][name]
        history.enter(name, state["Type"])
        if state["Type"] == "Task":
            kind, resource = state["Resource"].split(":::")[1].split(":", 1)
            history.add("TaskScheduled", taskScheduledEventDetails={"resourceType": kind, "resource": resource})
            history.add("TaskStarted").add("TaskSucceeded", ms=1000)
        history.exit(name, state["Type"])
    return steps_of(history.events)


def test_usage_of_an_upload_is_that_of_a_standard_child() -> None:
    child = Usage(transitions=RUN_TRANSITIONS + CHILD_TRANSITIONS + 1)  # of the run, and of the child's own machine
    own = cost_of(STACK, run(PATH)).usage
    assert replace(own + child, lambda_gb_s=0) == standard_usage(1, 0, 0)


def test_compute_is_duration_times_memory() -> None:
    cost = cost_of(STACK, run("Validate SegmentOnLambda Refine Encode"))
    assert cost.usage.lambda_gb_s == pytest.approx(2 + 4 + 2 + 1)
    assert cost.compute == pytest.approx(9 * 0.0000166667 + 4 * 0.2e-6)
    assert cost.total == cost.orchestration + cost.compute + cost.requests and cost.as_of == AS_OF


@dataclass(frozen=True)
class Call:
    function: str
    billed_ms: float
    memory_mb: int
    init_ms: float | None = None


CALLS = [Call(name, 500, 2048) for name in ("validate", "segment", "refine", "encode", "metrics")]


def test_billed_durations_replace_those_of_the_history() -> None:
    cost = cost_of(STACK, run(PATH), [*CALLS, Call("api", 900, 1024)])
    assert cost.is_billed
    assert cost.usage.lambda_requests == 5 and cost.usage.lambda_gb_s == pytest.approx(5 * 0.5 * 2)
    assert cost.compute == pytest.approx(5 * 0.2e-6 + 5 * 0.0000166667)


def test_the_history_counts_while_a_call_is_not_in_the_logs() -> None:
    by_history = cost_of(STACK, run(PATH))
    assert cost_of(STACK, run(PATH), CALLS[:-1]) == replace(by_history, reported=4) and not by_history.is_billed


def test_calls_that_lambda_rejects_are_neither_reported_nor_billed() -> None:
    history = History().enter("Refine").attempt().fail("Lambda.ResourceNotFoundException", "gone", ms=500)
    steps = run("Validate SegmentOnLambda", history.exit("Refine"))
    cost = cost_of(STACK, steps, CALLS[:2])
    assert cost.is_billed and cost.usage.lambda_requests == 2
    assert cost_of(STACK, steps).usage.lambda_gb_s == pytest.approx(2 + 4)


def test_starts_are_part_of_the_billed_time() -> None:
    calls = [replace(one, init_ms=100.0) for one in CALLS]
    cost = cost_of(STACK, run(PATH), calls)
    assert cost.starts == pytest.approx(5 * 0.1 * 2 * 0.0000166667)
    assert cost.compute == cost_of(STACK, run(PATH), CALLS).compute
    assert sum(line.usd for line in cost.lines()) == pytest.approx(cost.total)


def test_retries_are_paid_too() -> None:
    history = History().enter("Refine").attempt().fail("E", "c", ms=500).attempt().add("TaskSucceeded", ms=500)
    usage = cost_of(STACK, steps_of(history.exit("Refine").events)).usage
    assert (usage.transitions, usage.lambda_requests, usage.s3_writes) == (2, 2, 2)
    assert usage.lambda_gb_s == pytest.approx(2)


def test_a_cache_hit_costs_less_than_a_computed_result() -> None:
    hit = cost_of(STACK, run(HIT_PATH))
    assert replace(hit.usage, lambda_gb_s=0) == upload_usage(0, 1, 0, 0)
    assert hit.compute < cost_of(STACK, run(PATH)).compute / 3


@pytest.mark.parametrize(("host", "left_out"), [("SegmentOnEcs", "ECS"), ("SegmentOnSageMaker", "SageMaker")])
def test_other_hosts_are_left_out(host: str, left_out: str) -> None:
    assert left_out in cost_of(STACK, run(host)).left_out[0]
    assert not any(left_out in one for one in cost_of(STACK, run(PATH)).left_out)


def test_prices_of_another_region_are_named() -> None:
    assert cost_of(replace(STACK, region="ap-south-1"), []).region == "eu-west-1"


def test_memory_is_that_of_the_template() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: node.value if node.id == "scalar" else suffix)
    resources = yaml.load((ROOT / "template.yaml").read_text(), Loader)["Resources"]
    functions = {
        name: resources[state["Parameters"]["FunctionName"][2:-4]]["Properties"]["MemorySize"]
        for name, state in DEFINITION["States"].items()
        if str(state.get("Resource", "")).endswith("lambda:invoke")
    }
    assert functions == MEMORY_MB
