"""What the inbox does when queue and state machine do not as they should; the rest is in test_worker.py."""

import threading
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from tenacity import wait_none

from functions.segment.ecs.queue import JobQueue
from functions.segment.task_tokens import TaskTokens
from tests.fakes.worker_in_memory import PATIENCE_S, Machine, Queue, message, refusal

THROTTLED = refusal("ThrottlingException")
UNREACHABLE = EndpointConnectionError(endpoint_url="https://states")


def job_queue(queue: Queue, machine: Machine, *, most: int = 10, heartbeat_s: float = 30.0) -> JobQueue:
    return JobQueue(
        queue,
        TaskTokens(machine),
        queue_url="https://queue",
        most=most,
        heartbeat_s=heartbeat_s,
        visibility_s=120,
        backoff=wait_none(),
    )


def test_a_queue_that_fails_is_asked_again() -> None:
    queue = Queue(message(), errors=(THROTTLED, UNREACHABLE))
    [taken] = job_queue(queue, Machine()).take() or []
    assert (taken.token, taken.job_id, taken.received) == ("token", "token", 1)


def test_a_queue_that_fails_is_not_waited_for_when_stopping() -> None:
    class FailingQueue(Queue):
        def receive_message(self, **_: Any) -> dict[str, Any]:
            jobs.close()
            raise UNREACHABLE

    jobs = job_queue(FailingQueue(), Machine())
    assert jobs.take() is None


def test_no_more_is_asked_for_than_there_is_room_for() -> None:
    queue, machine = Queue(*map(message, "abcd")), Machine()
    jobs = job_queue(queue, machine, most=3)
    first = jobs.take() or []
    assert [taken.token for taken in first] == ["a", "b", "c"]
    jobs.complete(first[0], {})
    assert [taken.token for taken in jobs.take() or []] == ["d"]


def test_an_answer_that_cannot_be_sent_is_sent_again_and_its_message_deleted_only_then() -> None:
    class Watching(Machine):
        def send_task_success(self, *, taskToken: str, output: str) -> None:  # noqa: N803
            assert not queue.deleted
            super().send_task_success(taskToken=taskToken, output=output)

    queue, machine = Queue(message()), Watching(errors=(THROTTLED, UNREACHABLE, THROTTLED))
    jobs = job_queue(queue, machine)
    [taken] = jobs.take() or []
    jobs.complete(taken, {"key": "mask"})
    assert machine.successes == {"token": {"key": "mask"}}
    assert queue.deleted == ["0"] and jobs.idle


def test_a_message_whose_answer_cannot_be_sent_at_all_is_left_to_come_back() -> None:
    class DeadMachine(Machine):
        def send_task_success(self, **_: Any) -> None:
            jobs.drain(0)  # so that this ends before a minute is over
            raise UNREACHABLE

    queue = Queue(message())
    jobs = job_queue(queue, DeadMachine())
    [taken] = jobs.take() or []
    jobs.complete(taken, {})
    assert not queue.deleted and jobs.idle


@pytest.mark.parametrize("gone", ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"])
def test_a_message_is_deleted_if_its_answer_comes_too_late(gone: str) -> None:
    queue, machine = Queue(message()), Machine(errors=(refusal(gone),))
    jobs = job_queue(queue, machine)
    [taken] = jobs.take() or []
    jobs.complete(taken, {})
    assert queue.deleted == ["0"] and not machine.successes


def test_what_was_given_back_is_not_answered() -> None:
    queue, machine = Queue(message()), Machine()
    jobs = job_queue(queue, machine)
    [taken] = jobs.take() or []
    jobs.close()
    jobs.complete(taken, {})
    assert not jobs.begin(taken) and not jobs.alive(taken)
    assert queue.given_back == ["0"]
    assert not machine.successes and not machine.heartbeats and not queue.deleted


def test_more_messages_than_one_call_takes_are_all_kept_and_all_given_back() -> None:
    class HalfDeaf(Queue):
        def change_message_visibility_batch(self, *, Entries: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:  # noqa: N803
            super().change_message_visibility_batch(Entries=Entries, **rest)
            return {"Failed": [{"Id": Entries[0]["Id"], "Code": "ReceiptHandleIsInvalid", "SenderFault": True}]}

    tokens = [f"job-{number}" for number in range(25)]
    receipts = [str(number) for number in range(25)]
    queue, machine = HalfDeaf(*map(message, tokens)), Machine()
    jobs = job_queue(queue, machine, most=25, heartbeat_s=0.01)
    for expected in (10, 10, 5):
        assert len(jobs.take() or []) == expected
    keeping = threading.Thread(target=jobs.keep_alive)
    keeping.start()
    machine.until(lambda: all(machine.heartbeats[token] >= 2 for token in tokens))
    assert {receipt for receipt, seconds in queue.visibility if seconds == 120} == set(receipts)
    jobs.close()
    assert jobs.drain(PATIENCE_S)
    keeping.join(PATIENCE_S)
    assert not keeping.is_alive()
    assert queue.given_back == receipts


def test_a_heartbeat_that_fails_costs_no_job_its_visibility() -> None:
    class Hoarse(Machine):
        def send_task_heartbeat(self, *, taskToken: str) -> None:  # noqa: N803
            super().send_task_heartbeat(taskToken=taskToken)
            raise UNREACHABLE

    queue, machine = Queue(message()), Hoarse()
    jobs = job_queue(queue, machine, heartbeat_s=0.01)
    jobs.take()
    keeping = threading.Thread(target=jobs.keep_alive)
    keeping.start()
    machine.until(lambda: machine.heartbeats["token"] >= 3)
    queue.until(lambda: queue.visibility.count(("0", 120)) >= 3)
    assert not jobs.idle and not queue.deleted
    jobs.drain(0)
    keeping.join(PATIENCE_S)
