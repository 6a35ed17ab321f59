"""The worker against hand-written stand-ins for queue, state machine and bucket; the work itself is real."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from core import decode
from core.errors import SourceNotFoundError
from core.types import Mask, Picture
from functions.segment.worker import Worker, WorkerConfig
from functions.shared.job import StoredObject
from tests.conftest import ROOT

JOB = json.loads((ROOT / "events/segment.json").read_text())


class Queue:
    """Hands out its messages once, and remembers what became of them."""

    def __init__(self, *bodies: str) -> None:
        self.waiting = [{"MessageId": str(i), "ReceiptHandle": str(i), "Body": body} for i, body in enumerate(bodies)]
        self.deleted: list[str] = []
        self.visibility: list[tuple[str, int]] = []
        self.empty = threading.Event()

    def receive_message(self, **_: Any) -> dict[str, Any]:
        if self.waiting:
            return {"Messages": [self.waiting.pop(0)]}
        self.empty.set()
        time.sleep(0.01)
        return {}

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> None:  # noqa: N803
        self.deleted.append(ReceiptHandle)

    def change_message_visibility(self, *, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> None:  # noqa: N803
        self.visibility.append((ReceiptHandle, VisibilityTimeout))


class Machine:
    """Remembers what it was told; the tokens in ``gone`` have timed out."""

    def __init__(self, *, gone: tuple[str, ...] = ()) -> None:
        self.gone = gone
        self.heartbeats: list[str] = []
        self.successes: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, tuple[str, str]] = {}

    def _check(self, token: str) -> None:
        if token in self.gone:
            raise ClientError({"Error": {"Code": "TaskTimedOut"}}, "SendTask")

    def send_task_heartbeat(self, *, taskToken: str) -> None:  # noqa: N803
        self._check(taskToken)
        self.heartbeats.append(taskToken)

    def send_task_success(self, *, taskToken: str, output: str) -> None:  # noqa: N803
        self._check(taskToken)
        self.successes[taskToken] = json.loads(output)

    def send_task_failure(self, *, taskToken: str, error: str, cause: str) -> None:  # noqa: N803
        self._check(taskToken)
        self.failures[taskToken] = (error, cause)


class Shelf:
    """One picture to read, and the masks that were put."""

    def __init__(self, data: bytes | None, *, delay_s: float = 0) -> None:
        self.data, self.delay_s = data, delay_s
        self.masks: dict[str, Mask] = {}

    def picture(self, source: StoredObject, *, at_least_px: int | None = None) -> Picture:
        time.sleep(self.delay_s)
        if self.data is None:
            raise SourceNotFoundError("Gone", field="source.key", value=source.key, remedy="Upload it again.")
        return decode.decode(self.data, at_least_px=at_least_px)

    def put_plane(self, _bucket: str, key: str, plane: Mask) -> None:
        self.masks[key] = plane


def message(token: str = "token") -> str:
    return json.dumps({"token": token, "job": JOB})


def work_off(queue: Queue, machine: Machine, shelf: Shelf, *, heartbeat_s: float = 30.0) -> None:
    config = WorkerConfig(
        work_bucket="work", pbr_model_dir="/nowhere", queue_url="https://queue", heartbeat_s=heartbeat_s
    )
    worker = Worker(config, shelf, queue, machine)  # type: ignore[arg-type]
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert queue.empty.wait(60)
    worker.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_a_job_is_done_answered_and_taken_off_the_queue(disc_png: bytes) -> None:
    queue, machine, shelf = Queue(message()), Machine(), Shelf(disc_png)
    work_off(queue, machine, shelf)
    mask = machine.successes["token"]
    assert mask["host"] == "ecs" and mask["model"] == "classical"
    assert shelf.masks[mask["key"]].shape == (mask["height"], mask["width"])
    assert queue.deleted == ["0"]


def test_a_picture_that_cannot_be_processed_fails_by_its_own_error_with_field_and_remedy() -> None:
    queue, machine = Queue(message()), Machine()
    work_off(queue, machine, Shelf(None))
    error, cause = machine.failures["token"]
    assert error == "SourceNotFoundError"
    assert json.loads(cause)["remedy"] == "Upload it again."
    assert queue.deleted == ["0"]


def test_a_long_job_keeps_both_token_and_message_alive(disc_png: bytes) -> None:
    queue, machine = Queue(message()), Machine()
    work_off(queue, machine, Shelf(disc_png, delay_s=0.5), heartbeat_s=0.1)
    assert len(machine.heartbeats) >= 3
    assert {seconds for _, seconds in queue.visibility} == {120}


def test_a_job_that_nobody_waits_for_is_not_worked_on(disc_png: bytes) -> None:
    queue, machine, shelf = Queue(message("stale"), message("fresh")), Machine(gone=("stale",)), Shelf(disc_png)
    work_off(queue, machine, shelf)
    assert list(machine.successes) == ["fresh"]
    assert queue.deleted == ["0", "1"]


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"token": "t"}', "null"])
def test_a_message_that_is_no_job_is_left_for_the_dead_letter_queue(body: str, disc_png: bytes) -> None:
    queue, machine = Queue(body, message()), Machine()
    work_off(queue, machine, Shelf(disc_png))
    assert queue.deleted == ["1"], "the next message is worked on"


def test_a_job_that_is_malformed_fails_and_says_where(disc_png: bytes) -> None:
    job = {**JOB, "keys": {}}
    queue, machine = Queue(json.dumps({"token": "token", "job": job})), Machine()
    work_off(queue, machine, Shelf(disc_png))
    error, cause = machine.failures["token"]
    assert error == "InvalidRequestError"
    assert json.loads(cause)["field"] == "keys.mask"


def test_stopping_finishes_the_job_in_hand_and_takes_no_other(disc_png: bytes) -> None:
    queue, machine, shelf = Queue(message("first"), message("second")), Machine(), Shelf(disc_png, delay_s=0.3)
    config = WorkerConfig(work_bucket="work", pbr_model_dir="/nowhere", queue_url="https://queue")
    worker = Worker(config, shelf, queue, machine)  # type: ignore[arg-type]
    thread = threading.Thread(target=worker.run)
    thread.start()
    time.sleep(0.1)
    worker.stop()
    thread.join(30)
    assert list(machine.successes) == ["first"]
    assert len(queue.waiting) == 1


def test_a_message_that_arrives_while_stopping_goes_back_at_once() -> None:
    config = WorkerConfig(work_bucket="work", pbr_model_dir="/nowhere", queue_url="https://queue")

    class StoppingQueue(Queue):
        def receive_message(self, **_: Any) -> dict[str, Any]:
            worker.stop()
            return super().receive_message()

    queue, machine = StoppingQueue(message()), Machine()
    worker = Worker(config, Shelf(None), queue, machine)  # type: ignore[arg-type]
    worker.run()
    assert queue.visibility == [("0", 0)]
    assert not queue.deleted and not machine.failures
