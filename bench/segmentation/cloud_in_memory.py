"""In-memory fakes of the queue, state machine, and bucket that the ECS worker calls."""

import io
import json
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_SAMPLE: Final = json.loads((Path(__file__).parents[2] / "events/segment.json").read_text())
_POLL_S: Final = 0.02
_TIME_LIMIT_S: Final = 300.0


class Cloud:
    """A fake client for SQS, Step Functions, and S3. Records the causes of failed jobs and discards all outputs.

    Args:
        files: encoded pictures by name; jobs use them in turns.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files, self._names = files, list(files)
        self._bodies: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.failures: list[str] = []

    def send(self, number: int, model: str) -> None:
        """Send a job to the queue."""
        job = {
            **_SAMPLE,
            "execution": {**_SAMPLE["execution"], "name": str(number)},
            "source": {**_SAMPLE["source"], "key": self._names[number % len(self._names)]},
            "options": {**_SAMPLE["options"], "model": model},
        }
        self._bodies.put(json.dumps({"token": str(number), "job": job}))

    def wait(self) -> None:
        """Wait until the worker has deleted one more message."""
        self._done.get(timeout=_TIME_LIMIT_S)

    def receive_message(self, *, MaxNumberOfMessages: int, **_: Any) -> dict[str, Any]:  # noqa: D102, N803
        bodies: list[str] = []
        try:
            bodies.append(self._bodies.get(timeout=_POLL_S))
            while len(bodies) < MaxNumberOfMessages:
                bodies.append(self._bodies.get_nowait())
        except queue.Empty:
            pass
        facts = {"MessageId": "message", "ReceiptHandle": "receipt", "Attributes": {"ApproximateReceiveCount": "1"}}
        return {"Messages": [{**facts, "Body": body} for body in bodies]}

    def delete_message(self, **_: Any) -> None:  # noqa: D102
        self._done.put(None)

    def change_message_visibility_batch(self, **_: Any) -> dict[str, Any]:  # noqa: D102
        return {}

    def send_task_heartbeat(self, **_: Any) -> None:  # noqa: D102
        pass

    def send_task_success(self, **_: Any) -> None:  # noqa: D102
        pass

    def send_task_failure(self, *, cause: str, **_: Any) -> None:  # noqa: D102
        self.failures.append(cause)

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: D102, N803
        data = self._files[Key]
        return {"Body": io.BytesIO(data), "ContentLength": len(data), "ETag": '"etag"', "Metadata": {}}

    def put_object(self, **_: Any) -> dict[str, Any]:  # noqa: D102
        return {}
