"""The ECS worker as it is, with queue, state machine and bucket in memory: its work without the network's."""

import io
import json
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.segmentation_inputs import Network
from core.networks import Device
from functions.segment.worker import Worker, WorkerConfig
from functions.shared.store import Store

_SAMPLE: Final = Path(__file__).parent.parent / "events" / "segment.json"
_POLL_S: Final = 0.02
_TIME_LIMIT_S: Final = 300.0


class JobFailedError(Exception):
    """The worker answered a job with an error."""


def prepare(
    network: Network, folder: Path, pictures: int, batch: int = 1, device: Device = Device.CPU
) -> Callable[[], None]:
    """Start a worker, let it do a few jobs, and return the call that has it do ``pictures`` of them.

    Args:
        network: what it runs.
        folder: the pictures, taken in turns.
        pictures: how many a call does.
        batch: the most that it predicts at a time.
        device: what the network runs on.
    """
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    jobs, answers = _Queue(), _Machine()
    config = WorkerConfig(
        work_bucket="work",
        queue_url="memory",
        pbr_model_dir=str(network.path.parent),
        pbr_custom_models=network.custom,
        pbr_device=device,
        pbr_batch=batch,
        default_model=network.name,
    )
    worker = Worker(config, Store(_Bucket(files)), jobs, answers)  # type: ignore[arg-type]
    threading.Thread(target=worker.run, daemon=True).start()

    def work_off(count: int) -> None:
        for number in range(count):
            jobs.put(_job(network.name, list(files)[number % len(files)], number))
        for _ in range(count):
            answers.wait()

    work_off(2 * batch)
    return lambda: work_off(pictures)


def _job(model: str, file: str, number: int) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(_SAMPLE.read_text())
    job["execution"]["name"] = f"picture-{number}"
    job["source"]["key"] = file
    job["options"]["model"] = model
    job["keys"]["mask"] = f"{number}.png"
    return job


class _Queue:
    """SQS, of which nothing is ever lost."""

    def __init__(self) -> None:
        self._bodies: queue.Queue[str] = queue.Queue()

    def put(self, job: dict[str, Any]) -> None:
        self._bodies.put(json.dumps({"token": job["execution"]["name"], "job": job}))

    def receive_message(self, *, MaxNumberOfMessages: int, **_: Any) -> dict[str, Any]:  # noqa: N803
        bodies: list[str] = []
        try:
            bodies.append(self._bodies.get(timeout=_POLL_S))
            while len(bodies) < MaxNumberOfMessages:
                bodies.append(self._bodies.get_nowait())
        except queue.Empty:
            pass
        return {
            "Messages": [
                {
                    "MessageId": "message",
                    "ReceiptHandle": "receipt",
                    "Body": body,
                    "Attributes": {"ApproximateReceiveCount": "1"},
                }
                for body in bodies
            ]
        }

    def delete_message(self, **_: Any) -> None:
        pass

    def change_message_visibility_batch(self, **_: Any) -> dict[str, Any]:
        return {}


class _Machine:
    """Step Functions, as far as answers go."""

    def __init__(self) -> None:
        self._causes: queue.Queue[str | None] = queue.Queue()

    def wait(self) -> None:
        if cause := self._causes.get(timeout=_TIME_LIMIT_S):
            raise JobFailedError(cause)

    def send_task_heartbeat(self, **_: Any) -> None:
        pass

    def send_task_success(self, **_: Any) -> None:
        self._causes.put(None)

    def send_task_failure(self, *, cause: str, **_: Any) -> None:
        self._causes.put(cause)


class _Bucket:
    """S3: files to read; what is written is forgotten."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        data = self._files[Key]
        return {"Body": io.BytesIO(data), "ContentLength": len(data), "ETag": '"etag"', "Metadata": {}}

    def put_object(self, **_: Any) -> None:
        pass
