"""The job queue when SQS or Step Functions fails. The other cases are in test_worker.py."""

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


def test_a_failed_receive_is_retried() -> None:
    queue = Queue(message(), errors=(THROTTLED, UNREACHABLE))
    [received] = job_queue(queue, Machine()).take() or []
    assert (received.token, received.job_id, received.received) == ("token", "token", 1)


def test_a_failed_receive_is_not_retried_after_close() -> None:
    class FailingQueue(Queue):
        def receive_message(self, **_: Any) -> dict[str, Any]:
            jobs.close()
            raise UNREACHABLE

    jobs = job_queue(FailingQueue(), Machine())
    assert jobs.take() is None


def test_receive_asks_for_no_more_messages_than_the_limit_allows() -> None:
    queue, machine = Queue(*map(message, "abcd")), Machine()
    jobs = job_queue(queue, machine, most=3)
    first = jobs.take() or []
    assert [received.token for received in first] == ["a", "b", "c"]
    jobs.complete(first[0], {})
    assert [received.token for received in jobs.take() or []] == ["d"]


def test_a_failed_report_is_retried_and_the_message_deleted_only_after_it() -> None:
    class Watching(Machine):
        def send_task_success(self, *, taskToken: str, output: str) -> None:  # noqa: N803
            assert not queue.deleted
            super().send_task_success(taskToken=taskToken, output=output)

    queue, machine = Queue(message()), Watching(errors=(THROTTLED, UNREACHABLE, THROTTLED))
    jobs = job_queue(queue, machine)
    [received] = jobs.take() or []
    jobs.complete(received, {"key": "mask"})
    assert machine.successes == {"token": {"key": "mask"}}
    assert queue.deleted == ["0"] and jobs.idle


def test_a_message_whose_report_fails_is_returned() -> None:
    class DeadMachine(Machine):
        def send_task_success(self, **_: Any) -> None:
            jobs.drain(0)  # otherwise the report is retried for a minute
            raise UNREACHABLE

    queue = Queue(message())
    jobs = job_queue(queue, DeadMachine())
    [received] = jobs.take() or []
    jobs.complete(received, {})
    assert queue.tokens == ["token"] and jobs.idle


@pytest.mark.parametrize("gone", ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"])
def test_a_message_is_deleted_if_its_token_has_expired(gone: str) -> None:
    queue, machine = Queue(message()), Machine(errors=(refusal(gone),))
    jobs = job_queue(queue, machine)
    [received] = jobs.take() or []
    jobs.complete(received, {})
    assert queue.deleted == ["0"] and not machine.successes


def test_a_returned_message_is_not_reported() -> None:
    queue, machine = Queue(message()), Machine()
    jobs = job_queue(queue, machine)
    [received] = jobs.take() or []
    jobs.close()
    jobs.complete(received, {})
    assert not jobs.begin(received) and not jobs.alive(received)
    assert queue.tokens == ["token"] and queue.deleted == ["0"]
    assert not machine.successes and not machine.heartbeats


def test_a_message_that_cannot_be_sent_again_becomes_visible() -> None:
    class Full(Queue):
        def send_message_batch(self, *, Entries: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:  # noqa: N803
            super().send_message_batch(Entries=Entries[1:], **rest)
            return {"Failed": [{"Id": Entries[0]["Id"], "Code": "InternalError", "SenderFault": False}]}

    queue = Full(*map(message, "abc"))
    jobs = job_queue(queue, Machine())
    jobs.take()
    jobs.close()
    assert queue.shown == ["0"]
    assert queue.tokens == ["b", "c"] and queue.deleted == ["1", "2"]


@pytest.mark.parametrize("error", [refusal("AccessDenied"), UNREACHABLE])
def test_no_message_is_deleted_before_it_is_sent_again(error: Exception) -> None:
    class Unreachable(Queue):
        def send_message_batch(self, **_: Any) -> dict[str, Any]:
            raise error

    queue = Unreachable(message())
    jobs = job_queue(queue, Machine())
    jobs.take()
    jobs.close()
    assert queue.shown == ["0"] and not queue.deleted


def test_more_messages_than_fit_into_a_call_are_all_extended_and_returned() -> None:
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
    assert queue.tokens == tokens
    assert queue.deleted == receipts


def test_a_failed_heartbeat_does_not_delay_visibility_extensions() -> None:
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
