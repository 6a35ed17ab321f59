"""Sandboxes start early, are reused, and end when they are idle or memory is short."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedded_cloud.lambda_runtime import CPUS, NEW_SANDBOX_BYTES, IdleLimits, LambdaRuntime
from embedded_cloud.sandbox import Function

AMPLE = 100 * NEW_SANDBOX_BYTES
LITTLE = 1  # every function gets one sandbox all the same
HANDLER = """
import os, time

def handler(event, context):
    time.sleep(event.get("seconds", 0))
    return os.environ[event["wanted"]] if "wanted" in event else os.getpid()
"""


def function(name: str) -> Function:
    return Function(name, f"arn:{name}", "probe.handler", f"/aws/lambda/{name}", 20, 128, ())


FIRST, SECOND = function("first"), function("second")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., LambdaRuntime]]:
    (tmp_path / "probe.py").write_text(HANDLER)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    made = []

    def make_runtime(**settings: Any) -> LambdaRuntime:
        made.append(LambdaRuntime(environment, tmp_path, lambda _group, _stream: lambda _line: None, **settings))
        return made[-1]

    yield make_runtime
    for runtime in made:
        runtime.close()


def pid(runtime: LambdaRuntime, called: Function, seconds: float = 0.0) -> int:
    invocation = runtime.invoke(called, json.dumps({"seconds": seconds}))
    assert not invocation.failed, invocation.payload
    return int(invocation.payload)


def ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_functions_run_before_the_first_call(make: Callable[..., LambdaRuntime]) -> None:
    runtime = make(memory=AMPLE)
    runtime.start([FIRST, SECOND])
    wait_for(lambda: len(runtime.processes()) == 2)
    early = set(runtime.processes())
    assert {pid(runtime, FIRST), pid(runtime, SECOND)} == early


def test_functions_that_do_not_fit_into_memory_start_with_their_first_call(make: Callable[..., LambdaRuntime]) -> None:
    runtime = make(memory=NEW_SANDBOX_BYTES + 1)
    runtime.start([FIRST, SECOND])
    wait_for(lambda: len(runtime.processes()) == 1)
    [early] = runtime.processes()
    assert pid(runtime, FIRST) == early
    assert pid(runtime, SECOND) != early


def test_calls_at_the_same_time_share_a_sandbox_if_memory_is_short(make: Callable[..., LambdaRuntime]) -> None:
    for memory, sandboxes in ((AMPLE, 2), (LITTLE, 1)):
        runtime = make(memory=memory)
        with ThreadPoolExecutor(2) as pool:
            pids = set(pool.map(lambda _: pid(runtime, FIRST, 0.2), range(2)))  # noqa: B023  the pool ends here
        assert len(pids) == sandboxes


def test_only_the_first_sandbox_of_a_function_gets_all_processors(make: Callable[..., LambdaRuntime]) -> None:
    runtime = make(memory=AMPLE)
    call = json.dumps({"seconds": 0.5, "wanted": "PYTHON_CPU_COUNT"})
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: runtime.invoke(FIRST, call).payload, range(2)))
    assert sorted(map(json.loads, answers)) == sorted(["1", str(CPUS)])


def test_an_idle_sandbox_of_another_function_makes_room(make: Callable[..., LambdaRuntime]) -> None:
    runtime = make(memory=LITTLE)
    unused = pid(runtime, SECOND)
    with ThreadPoolExecutor(2) as pool:
        pids = set(pool.map(lambda _: pid(runtime, FIRST, 0.2), range(2)))
    assert len(pids) == 1
    wait_for(lambda: ended(unused))


def test_idle_sandboxes_end_and_start_again_with_the_next_call(make: Callable[..., LambdaRuntime]) -> None:
    runtime = make(memory=AMPLE, limits=IdleLimits(spare_s=0.2, last_s=0.5, check_s=0.05))
    runtime.start([FIRST, SECOND])
    seen: set[int] = set()

    def started(count: int) -> bool:  # a sandbox that starts slowly may be seen after the other one has ended
        seen.update(runtime.processes())
        return len(seen) == count

    wait_for(lambda: started(2))
    early = set(seen)
    wait_for(lambda: all(map(ended, early)))
    assert pid(runtime, FIRST) not in early
    wait_for(lambda: started(4))  # the second one was started early, too


def test_the_spare_sandbox_ends_first(make: Callable[..., LambdaRuntime]) -> None:
    runtime = make(memory=AMPLE, limits=IdleLimits(spare_s=0.2, last_s=60, check_s=0.05))
    with ThreadPoolExecutor(2) as pool:
        pids = set(pool.map(lambda _: pid(runtime, FIRST, 0.2), range(2)))
    assert len(pids) == 2
    wait_for(lambda: len(runtime.processes()) == 1)
    time.sleep(0.5)
    [last] = runtime.processes()
    assert pid(runtime, FIRST) == last


def test_a_sandbox_that_was_killed_while_idle_is_not_used(make: Callable[..., LambdaRuntime]) -> None:
    runtime = make(memory=LITTLE)
    first = pid(runtime, FIRST)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: ended(first))
    assert pid(runtime, FIRST) != first


def test_a_call_that_cannot_be_logged_does_not_block_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(HANDLER)
    broken = True

    def log(_line: str) -> None:
        if broken:
            raise OSError("no space")

    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    runtime = LambdaRuntime(environment, tmp_path, lambda _group, _stream: log, memory=LITTLE)
    try:
        with pytest.raises(OSError, match="no space"):
            runtime.invoke(FIRST, "{}")
        broken = False
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(lambda _: pid(runtime, FIRST), range(2))
        assert first == second
    finally:
        runtime.close()
