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


def inbox(queue: Queue, machine: Machine, *, most: int = 10, heartbeat_s: float = 30.0) -> JobQueue:
    return JobQueue(
        queue,  # type: ignore[arg-type]
        TaskTokens(machine),  # type: ignore[arg-type]
        queue_url="https://queue",
        most=most,
        heartbeat_s=heartbeat_s,
        visibility_s=120,
        backoff=wait_none(),
    )


def test_a_queue_that_fails_is_asked_again() -> None:
    queue = Queue(message(), errors=(THROTTLED, UNREACHABLE))
    [taken] = inbox(queue, Machine()).take() or []
    assert (taken.token, taken.job_id, taken.received) == ("token", "token", 1)


def test_a_queue_that_fails_is_not_waited_for_when_stopping() -> None:
    class FailingQueue(Queue):
        def receive_message(self, **_: Any) -> dict[str, Any]:
            taking.close()
            raise UNREACHABLE

    taking = inbox(FailingQueue(), Machine())
    assert taking.take() is None


def test_no_more_is_asked_for_than_there_is_room_for() -> None:
    queue, machine = Queue(*map(message, "abcd")), Machine()
    taking = inbox(queue, machine, most=3)
    first = taking.take() or []
    assert [taken.token for taken in first] == ["a", "b", "c"]
    taking.answer(first[0], {})
    assert [taken.token for taken in taking.take() or []] == ["d"]


def test_an_answer_that_cannot_be_sent_is_sent_again_and_its_message_deleted_only_then() -> None:
    class Watching(Machine):
        def send_task_success(self, *, taskToken: str, output: str) -> None:  # noqa: N803
            assert not queue.deleted
            super().send_task_success(taskToken=taskToken, output=output)

    queue, machine = Queue(message()), Watching(errors=(THROTTLED, UNREACHABLE, THROTTLED))
    taking = inbox(queue, machine)
    [taken] = taking.take() or []
    taking.answer(taken, {"key": "mask"})
    assert machine.successes == {"token": {"key": "mask"}}
    assert queue.deleted == ["0"] and taking.idle


def test_a_message_whose_answer_cannot_be_sent_at_all_is_left_to_come_back() -> None:
    class DeadMachine(Machine):
        def send_task_success(self, **_: Any) -> None:
            taking.drain(0)  # so that this ends before a minute is over
            raise UNREACHABLE

    queue = Queue(message())
    taking = inbox(queue, DeadMachine())
    [taken] = taking.take() or []
    taking.answer(taken, {})
    assert not queue.deleted and taking.idle


@pytest.mark.parametrize("gone", ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"])
def test_a_message_is_deleted_if_its_answer_comes_too_late(gone: str) -> None:
    queue, machine = Queue(message()), Machine(errors=(refusal(gone),))
    taking = inbox(queue, machine)
    [taken] = taking.take() or []
    taking.answer(taken, {})
    assert queue.deleted == ["0"] and not machine.successes


def test_what_was_given_back_is_not_answered() -> None:
    queue, machine = Queue(message()), Machine()
    taking = inbox(queue, machine)
    [taken] = taking.take() or []
    taking.close()
    taking.answer(taken, {})
    assert not taking.begin(taken) and not taking.alive(taken)
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
    taking = inbox(queue, machine, most=25, heartbeat_s=0.01)
    for expected in (10, 10, 5):
        assert len(taking.take() or []) == expected
    keeping = threading.Thread(target=taking.keep_alive)
    keeping.start()
    machine.until(lambda: all(machine.heartbeats[token] >= 2 for token in tokens))
    assert {receipt for receipt, seconds in queue.visibility if seconds == 120} == set(receipts)
    taking.close()
    assert taking.drain(PATIENCE_S)
    keeping.join(PATIENCE_S)
    assert not keeping.is_alive()
    assert queue.given_back == receipts


def test_a_heartbeat_that_fails_costs_no_job_its_visibility() -> None:
    class Hoarse(Machine):
        def send_task_heartbeat(self, *, taskToken: str) -> None:  # noqa: N803
            super().send_task_heartbeat(taskToken=taskToken)
            raise UNREACHABLE

    queue, machine = Queue(message()), Hoarse()
    taking = inbox(queue, machine, heartbeat_s=0.01)
    taking.take()
    keeping = threading.Thread(target=taking.keep_alive)
    keeping.start()
    machine.until(lambda: machine.heartbeats["token"] >= 3)
    queue.until(lambda: queue.visibility.count(("0", 120)) >= 3)
    assert not taking.idle and not queue.deleted
    taking.drain(0)
    keeping.join(PATIENCE_S)
