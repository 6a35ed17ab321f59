"""In-memory fakes of the worker's queue, state machine and store. They record the calls they receive."""

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from core.arrays import Mask, Picture
from core.errors import SourceNotFoundError
from core.image import decode
from functions.contracts.job import StoredObject
from functions.segment.ecs.worker import Worker
from tests.conftest import ROOT

JOB = json.loads((ROOT / "events/segment.json").read_text())
PATIENCE_S = 60.0


def message(token: str = "token", *, model: str = "classical", precision: str = "high") -> str:
    """A message as SegmentOnEcs sends it. The keys of image and mask are equal to the token."""
    job = {
        **JOB,
        "execution": {**JOB["execution"], "name": token},
        "source": {**JOB["source"], "key": token},
        "options": {**JOB["options"], "model": model, "precision_level": precision},
        "keys": {**JOB["keys"], "mask": token},
    }
    return json.dumps({"token": token, "job": job})


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}}, "Call")


class _Recorder:
    """Base of the fakes: tests wait on a condition until a call has been recorded."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def until(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S), "timed out"

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()


class Queue(_Recorder):
    """SQS: delivers each message once. Receipt handles are numbers in the order of the bodies, then of those sent."""

    def __init__(self, *bodies: str, received: int = 1, errors: tuple[Exception, ...] = ()) -> None:
        super().__init__()
        self.waiting: list[dict[str, Any]] = []
        self._sent = 0
        for body in bodies:
            self._send(body, received)
        self.errors = list(errors)
        self.out: set[str] = set()
        self.most_out = 0
        self.found_empty = threading.Event()
        self.deleted: list[str] = []
        self.visibility: list[tuple[str, int]] = []

    def receive_message(self, *, MaxNumberOfMessages: int, **_: Any) -> dict[str, Any]:  # noqa: N803
        assert 1 <= MaxNumberOfMessages <= 10
        if self.errors:
            raise self.errors.pop(0)
        with self._change():
            taken = [self.waiting.pop(0) for _ in range(min(MaxNumberOfMessages, len(self.waiting)))]
            self.out |= {message["ReceiptHandle"] for message in taken}
            self.most_out = max(self.most_out, len(self.out))
            if taken:
                return {"Messages": taken}
            self.found_empty.set()
            self._changed.wait(0.02)  # a short poll, for fast tests
            return {}

    def _send(self, body: str, received: int) -> None:
        attributes = {"ApproximateReceiveCount": str(received)}
        number = str(self._sent)
        self.waiting.append({"MessageId": number, "ReceiptHandle": number, "Body": body, "Attributes": attributes})
        self._sent += 1

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert len({entry["Id"] for entry in Entries}) == len(Entries) <= 10
        with self._change():
            for entry in Entries:
                self._send(entry["MessageBody"], 1)
        return {}

    def delete_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert len({entry["Id"] for entry in Entries}) == len(Entries) <= 10
        for entry in Entries:
            self.delete_message(QueueUrl=QueueUrl, ReceiptHandle=entry["ReceiptHandle"])
        return {}

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> None:  # noqa: N803
        with self._change():
            self.deleted.append(ReceiptHandle)
            self.out.discard(ReceiptHandle)

    def change_message_visibility_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert len({entry["Id"] for entry in Entries}) == len(Entries) <= 10
        with self._change():
            self.visibility += [(entry["ReceiptHandle"], entry["VisibilityTimeout"]) for entry in Entries]
        return {}

    @property
    def tokens(self) -> list[str]:
        """Tokens of the messages that wait, in the order in which they were sent."""
        return [json.loads(message["Body"])["token"] for message in self.waiting]

    @property
    def shown(self) -> list[str]:
        """Receipt handles of the messages that a worker made visible."""
        return [receipt for receipt, seconds in self.visibility if seconds == 0]


class Machine(_Recorder):
    """Step Functions: the tokens in ``expired`` have timed out, ``errors`` are raised by the next successes."""

    def __init__(self, *, expired: tuple[str, ...] = (), errors: tuple[Exception, ...] = ()) -> None:
        super().__init__()
        self.expired, self.errors = set(expired), list(errors)
        self.heartbeats: Counter[str] = Counter()
        self.successes: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, tuple[str, dict[str, Any] | str]] = {}

    def _check(self, token: str) -> None:
        if token in self.expired:
            raise refusal("TaskTimedOut")

    def send_task_heartbeat(self, *, taskToken: str) -> None:  # noqa: N803
        self._check(taskToken)
        with self._change():
            self.heartbeats[taskToken] += 1

    def send_task_success(self, *, taskToken: str, output: str) -> None:  # noqa: N803
        self._check(taskToken)
        with self._change():
            if self.errors:
                raise self.errors.pop(0)
            self.successes[taskToken] = json.loads(output)

    def send_task_failure(self, *, taskToken: str, error: str, cause: str) -> None:  # noqa: N803
        self._check(taskToken)
        with self._change():
            self.failures[taskToken] = (error, json.loads(cause) if cause.startswith("{") else cause)


class FakeStore(_Recorder):
    """Images by key, and the masks that were written. Calls for held keys block until :meth:`release`."""

    def __init__(self, data: bytes | None, **others: bytes) -> None:
        super().__init__()
        self._data, self._others = data, others
        self._held: dict[tuple[str, str], threading.Event] = defaultdict(threading.Event)
        self.begun: list[tuple[str, str]] = []
        self.masks: dict[str, Mask] = {}

    def hold(self, step: str, *keys: str) -> None:
        """``step`` is "read" or "put"."""
        for key in keys:
            _ = self._held[step, key]

    def release(self) -> None:
        for event in self._held.values():
            event.set()

    def _pass(self, step: str, key: str) -> None:
        with self._change():
            self.begun.append((step, key))
        if (step, key) in self._held:
            assert self._held[step, key].wait(PATIENCE_S)

    def picture(self, source: StoredObject, *, at_least_px: int | None = None) -> Picture:
        self._pass("read", source.key)
        data = self._others.get(source.key, self._data)
        if data is None:
            raise SourceNotFoundError("Gone", field="source.key", value=source.key, remedy="Upload it again.")
        return decode.decode(data, at_least_px=at_least_px)

    def put_plane(self, _bucket: str, key: str, plane: Mask) -> None:
        self._pass("put", key)
        with self._change():
            self.masks[key] = plane


class Running:
    """A worker in a thread. ``finished`` or ``error`` is what :meth:`Worker.run` returned or raised."""

    def __init__(self, worker: Worker) -> None:
        self.finished: bool | None = None
        self.error: Exception | None = None
        self._worker = worker
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.finished = self._worker.run()
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        self._worker.stop()

    def ended(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
