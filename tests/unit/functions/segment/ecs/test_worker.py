"""The whole worker with fakes of queue, state machine and store. Segmentation is real."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import GpuUnavailableError
from core.segmentation.registry import BUNDLED, MODELS
from embedded_cloud import embedded_metrics
from functions.segment.ecs.worker import Worker, WorkerConfig
from tests.conftest import file_of
from tests.fakes import tiny_networks
from tests.fakes.worker_in_memory import JOB, FakeStore, Machine, Queue, Running, message


def configured(directory: Path | None = None, *networks: bytes, **settings: Any) -> WorkerConfig:
    """Return a configuration with the networks as custom models net-0, net-1, ..."""
    models = [tiny_networks.install(directory, f"net-{i}", n) for i, n in enumerate(networks) if directory]
    custom = [
        {"name": m.name, "uri": m.uri, "sha256": m.sha256, "bytes": m.bytes, "input_px": m.input_px} for m in models
    ]
    return WorkerConfig(
        work_bucket="work",
        queue_url="https://queue",
        pbr_model_dir=str(directory or "/nowhere"),
        pbr_custom_models=json.dumps(custom),
        **settings,
    )


def running(queue: Queue, machine: Machine, store: FakeStore, config: WorkerConfig | None = None) -> Running:
    return Running(Worker(config or configured(), store, queue, machine))


def published(name: str, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """Return the published values of a metric."""
    data = [datum for line in capsys.readouterr().out.splitlines() for datum in embedded_metrics.extract(line)]
    return [value for datum in data if datum.name == name for value in datum.values]


def work_off(
    queue: Queue, machine: Machine, store: FakeStore, config: WorkerConfig | None = None, *, no_jobs: int = 0
) -> None:
    """Run a worker until it has deleted all messages except the invalid ones."""
    jobs = len(queue.waiting) - no_jobs
    worker = running(queue, machine, store, config)
    queue.until(lambda: len(queue.deleted) == jobs and not queue.waiting)
    worker.stop()
    worker.ended()
    assert worker.finished


def test_a_job_is_processed_reported_and_deleted_from_the_queue(disc_png: bytes) -> None:
    queue, machine, store = Queue(message()), Machine(), FakeStore(disc_png)
    work_off(queue, machine, store)
    mask = machine.successes["token"]
    assert mask["host"] == "ecs" and mask["model"] == "classical"
    assert store.masks[mask["key"]].shape == (mask["height"], mask["width"])
    assert queue.deleted == ["0"]


def test_a_worker_segments_with_the_bundled_network(disc_png: bytes) -> None:
    queue, machine, store = Queue(message(model=BUNDLED)), Machine(), FakeStore(disc_png)
    work_off(queue, machine, store, configured(default_model=BUNDLED))
    mask = machine.successes["token"]
    assert (mask["model"], mask["weights_sha256"]) == (BUNDLED, MODELS[BUNDLED].sha256)
    plane = store.masks[mask["key"]]
    height, width = plane.shape
    assert plane[height // 2, width // 2] > 0.9 and plane[:10].max() < 0.1, "the disc in the center"


def test_at_most_three_batches_are_in_progress(
    disc_png: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = [message(f"job-{number}", model="net-0") for number in range(40)]
    queue, machine, store = Queue(*bodies), Machine(), FakeStore(disc_png)
    work_off(queue, machine, store, configured(tmp_path, tiny_networks.network(), pbr_batch=2))
    assert machine.successes.keys() == store.masks.keys() == {f"job-{number}" for number in range(40)}
    assert sorted(queue.deleted, key=int) == [str(number) for number in range(40)]
    assert queue.most_out <= 6
    sizes = published("BatchSize", capsys)
    assert sum(sizes) == 40 and set(sizes) <= {1, 2}


def test_a_worker_without_batches_does_not_publish_their_size(
    disc_png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    queue, machine = Queue(message()), Machine()
    work_off(queue, machine, FakeStore(disc_png), configured(pbr_batch=1))
    assert machine.successes.keys() == {"token"}
    assert published("BatchSize", capsys) == []


def test_an_invalid_image_fails_with_its_own_error_field_and_remedy() -> None:
    queue, machine = Queue(message()), Machine()
    work_off(queue, machine, FakeStore(None))
    error, facts = machine.failures["token"]
    assert error == "SourceNotFoundError"
    assert facts["remedy"] == "Upload it again."
    assert queue.deleted == ["0"]


def test_all_jobs_in_progress_get_heartbeats_also_those_without_a_thread(disc_png: bytes) -> None:
    tokens = [f"job-{number}" for number in range(12)]
    queue, machine, store = Queue(*map(message, tokens)), Machine(), FakeStore(disc_png)
    store.hold("read", *tokens)
    worker = running(queue, machine, store, configured(pbr_batch=4, pbr_heartbeat_s=0.01))
    machine.until(lambda: all(machine.heartbeats[token] >= 3 for token in tokens))
    queue.until(lambda: all((str(number), 120) in queue.visibility for number in range(12)))
    store.release()
    worker.stop()
    worker.ended()
    assert worker.finished


def test_a_job_with_an_expired_token_is_not_processed(disc_png: bytes) -> None:
    queue, machine, store = Queue(message("stale"), message("fresh")), Machine(expired=("stale",)), FakeStore(disc_png)
    work_off(queue, machine, store)
    assert list(machine.successes) == list(store.masks) == ["fresh"]
    assert sorted(queue.deleted) == ["0", "1"]


def test_a_job_is_dropped_as_soon_as_its_token_expires(disc_png: bytes) -> None:
    queue, machine, store = Queue(message()), Machine(), FakeStore(disc_png)
    store.hold("read", "token")
    worker = running(queue, machine, store, configured(pbr_heartbeat_s=0.01))
    store.until(lambda: store.begun)
    machine.expired.add("token")
    queue.until(lambda: queue.deleted)
    store.release()
    worker.stop()
    worker.ended()
    assert worker.finished and not store.masks


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"token": ""}', '{"token": 5}', "null"])
def test_an_invalid_message_is_left_for_the_dead_letter_queue(body: str, disc_png: bytes) -> None:
    queue, machine = Queue(body, message()), Machine()
    work_off(queue, machine, FakeStore(disc_png), no_jobs=1)
    assert queue.deleted == ["1"], "the next message is worked on"
    assert not queue.shown, "it would come back at once, again and again"


@pytest.mark.parametrize(("job", "field"), [({**JOB, "keys": {}}, "keys.mask"), ({}, "execution"), ("text", "")])
def test_an_invalid_job_fails_with_the_invalid_field(job: Any, field: str, disc_png: bytes) -> None:
    queue, machine = Queue(json.dumps({"token": "token", "job": job})), Machine()
    work_off(queue, machine, FakeStore(disc_png))
    error, facts = machine.failures["token"]
    assert error == "InvalidRequestError"
    assert facts["field"] == field
    assert queue.deleted == ["0"]


def test_a_message_with_only_a_token_fails(disc_png: bytes) -> None:
    queue, machine = Queue('{"token": "token"}'), Machine()
    work_off(queue, machine, FakeStore(disc_png))
    assert machine.failures["token"][0] == "InvalidRequestError"


def test_a_job_that_crashes_workers_fails_before_its_image_is_read(disc_png: bytes) -> None:
    queue, machine, store = Queue(message(), received=4), Machine(), FakeStore(disc_png)
    work_off(queue, machine, store)
    error, facts = machine.failures["token"]
    assert error == "WorkerCrashedError"
    assert facts["field"] == "source.key" and facts["value"] == "token" and facts["remedy"]
    assert queue.deleted == ["0"]
    assert not store.begun


def test_a_job_is_tried_three_times(disc_png: bytes) -> None:
    queue, machine = Queue(message(), received=3), Machine()
    work_off(queue, machine, FakeStore(disc_png))
    assert list(machine.successes) == ["token"]


def together(queue: Queue, store: FakeStore, keys: list[str]) -> threading.Thread:
    """Block reads until the worker has received all jobs, so that their images form one batch."""
    store.hold("read", *keys)

    def release() -> None:
        queue.found_empty.wait()
        store.release()

    thread = threading.Thread(target=release)
    thread.start()
    return thread


def test_images_of_one_model_are_predicted_in_one_batch(disc_png: bytes, tmp_path: Path) -> None:
    keys = ["a", "b", "c"]
    queue, machine, store = Queue(*(message(key, model="net-0") for key in keys)), Machine(), FakeStore(disc_png)
    together(queue, store, keys)
    network = tiny_networks.only_for_batches_of(3)
    work_off(queue, machine, store, configured(tmp_path, network, pbr_batch=3, pbr_batch_wait_s=60))
    assert sorted(machine.successes) == keys


def test_a_failed_image_does_not_fail_its_batch(disc_png: bytes, tmp_path: Path) -> None:
    black = file_of(Image.new("RGB", (64, 64)), "PNG")
    keys = ["a", "black", "c"]
    queue, machine = Queue(*(message(key, model="net-0") for key in keys)), Machine()
    store = FakeStore(disc_png, black=black)
    together(queue, store, keys)
    network = tiny_networks.fails_on_black()
    work_off(queue, machine, store, configured(tmp_path, network, pbr_batch=3, pbr_batch_wait_s=60))
    assert sorted(machine.successes) == ["a", "c"]
    assert list(machine.failures) == ["black"]
    assert sorted(queue.deleted) == ["0", "1", "2"]


def test_further_looks_are_predicted_in_batches_of_their_own(disc_png: bytes, tmp_path: Path) -> None:
    levels = {"a": "ultra_high", "b": "standard", "c": "high", "d": "draft"}
    bodies = [message(key, model="net-0", precision=level) for key, level in levels.items()]
    queue, machine, store = Queue(*bodies), Machine(), FakeStore(disc_png)
    together(queue, store, list(levels))
    work_off(queue, machine, store, configured(tmp_path, tiny_networks.network(), pbr_batch=4, pbr_batch_wait_s=60))
    assert {key: part["looks"] for key, part in machine.successes.items()} == {
        "a": ["first", "mirrored", "brightened"],
        "b": ["first"],
        "c": ["first", "mirrored"],
        "d": ["first"],
    }
    assert np.abs(store.masks["c"] - store.masks["b"]).max() < 0.05, "the mask is mirrored back"
    assert sorted(queue.deleted) == ["0", "1", "2", "3"]


def test_a_failed_image_fails_no_further_look_of_its_batch(disc_png: bytes, tmp_path: Path) -> None:
    black = file_of(Image.new("RGB", (64, 64)), "PNG")
    keys = ["a", "black", "c"]
    bodies = [message(key, model="net-0", precision="ultra_high") for key in keys]
    queue, machine, store = Queue(*bodies), Machine(), FakeStore(disc_png, black=black)
    together(queue, store, keys)
    network = tiny_networks.fails_on_black()
    work_off(queue, machine, store, configured(tmp_path, network, pbr_batch=3, pbr_batch_wait_s=60))
    assert {key: len(part["looks"]) for key, part in machine.successes.items()} == {"a": 3, "c": 3}
    assert list(machine.failures) == ["black"]


def test_each_image_gets_the_prediction_of_its_model(disc_png: bytes, tmp_path: Path) -> None:
    bodies = [message(f"{number}-{number % 2}", model=f"net-{number % 2}") for number in range(10)]
    queue, machine, store = Queue(*bodies), Machine(), FakeStore(disc_png)
    networks = tiny_networks.network(gain=1.0), tiny_networks.network(gain=-1.0)
    work_off(queue, machine, store, configured(tmp_path, *networks, pbr_batch=2))
    assert all(answer["model"] == f"net-{token[-1]}" for token, answer in machine.successes.items())
    height, width = store.masks["0-0"].shape
    for token, mask in store.masks.items():
        assert (mask[height // 2, width // 2] > 0.5) == token.endswith("0"), "the second network sees the ground"


def test_stop_returns_waiting_jobs_and_finishes_begun_ones(disc_png: bytes) -> None:
    tokens = ["a", "b", "c", "d"]
    queue, machine, store = Queue(*map(message, tokens)), Machine(), FakeStore(disc_png)
    store.hold("put", "a")
    store.hold("read", "b", "c")
    worker = running(queue, machine, store)
    store.until(lambda: ("put", "a") in store.begun)
    queue.until(lambda: len(queue.out) == 3)
    worker.stop()
    queue.until(lambda: queue.deleted == ["1", "2"])
    assert queue.tokens == ["d", "b", "c"], "they are sent again, and it takes no more"
    assert not machine.successes, "the first is still in hand"
    store.release()
    worker.ended()
    assert worker.finished
    assert list(machine.successes) == ["a"] and not machine.failures
    assert queue.deleted == ["1", "2", "0"]


def test_stop_in_the_middle_of_a_batch_finishes_it_and_returns_the_next_ones(disc_png: bytes, tmp_path: Path) -> None:
    batch, waiting = ["a", "b"], ["c", "d", "e", "f"]
    queue, machine = Queue(*(message(key, model="net-0") for key in batch + waiting)), Machine()
    store = FakeStore(disc_png)
    store.hold("put", *batch)
    store.hold("read", *waiting)
    config = configured(tmp_path, tiny_networks.network(), pbr_batch=2, pbr_batch_wait_s=60)
    worker = running(queue, machine, store, config)
    store.until(lambda: {("put", key) for key in batch} <= set(store.begun))
    worker.stop()
    queue.until(lambda: len(queue.tokens) == 4)
    store.release()
    worker.ended()
    assert worker.finished
    assert sorted(machine.successes) == sorted(store.masks) == batch
    assert not machine.failures and not queue.shown

    another = running(queue, machine, store, config)
    machine.until(lambda: len(machine.successes) == 6)
    queue.until(lambda: len(queue.deleted) == 10)
    another.stop()
    another.ended()
    assert sorted(store.masks) == batch + waiting and not machine.failures
    assert not queue.waiting and not queue.out


def test_a_job_survives_any_number_of_stopped_workers(disc_png: bytes) -> None:
    queue, machine, store = Queue(message()), Machine(), FakeStore(disc_png)
    store.hold("read", "token")
    for _ in range(10):
        worker = running(queue, machine, store)
        store.until(lambda: store.begun)
        worker.stop()
        worker.ended()
        assert queue.tokens == ["token"]
        store.begun.clear()
    store.release()
    worker = running(queue, machine, store)
    machine.until(lambda: machine.successes)
    worker.stop()
    worker.ended()
    assert not machine.failures and not queue.waiting


def test_jobs_not_finished_in_time_are_returned(disc_png: bytes) -> None:
    queue, machine, store = Queue(message()), Machine(), FakeStore(disc_png)
    store.hold("put", "token")
    worker = running(queue, machine, store, configured(pbr_drain_s=0))
    store.until(lambda: ("put", "token") in store.begun)
    worker.stop()
    worker.ended()
    assert worker.finished is False
    store.release()
    assert queue.tokens == ["token"] and queue.deleted == ["0"]
    assert not machine.successes and not machine.failures


def test_a_message_received_during_stop_is_returned() -> None:
    class StoppingQueue(Queue):
        def receive_message(self, **request: Any) -> dict[str, Any]:
            worker.stop()
            return super().receive_message(**request)

    queue, machine, store = StoppingQueue(message()), Machine(), FakeStore(None)
    store.hold("read", "token")
    worker = Worker(configured(), store, queue, machine)
    assert worker.run()
    store.release()
    assert queue.tokens == ["token"] and queue.deleted == ["0"]
    assert not machine.failures


def test_a_failed_worker_returns_its_jobs_and_ends(disc_png: bytes) -> None:
    class BrokenQueue(Queue):
        def receive_message(self, **request: Any) -> dict[str, Any]:
            if not self.waiting:
                store.until(lambda: store.begun)
                raise KeyError("something that nobody thought of")
            return super().receive_message(**request)

    queue, machine, store = BrokenQueue(message()), Machine(), FakeStore(disc_png)
    store.hold("read", "token")
    worker = running(queue, machine, store)
    worker.ended()
    store.release()
    assert isinstance(worker.error, KeyError)
    assert queue.shown == ["0"] and not queue.deleted, "the job may be the cause, so this receive counts"


def test_a_worker_ends_after_several_failed_predictions_in_a_row(tmp_path: Path) -> None:
    keys = ["a", "b", "c", "d", "e"]
    queue, machine = Queue(*(message(key, model="net-0") for key in keys)), Machine()
    store = FakeStore(file_of(Image.new("RGB", (64, 64)), "PNG"))
    worker = running(queue, machine, store, configured(tmp_path, tiny_networks.fails_on_black()))
    worker.ended()
    assert worker.error is not None
    assert not machine.successes and "e" not in machine.failures
    untouched = {message["ReceiptHandle"] for message in queue.waiting}
    assert {*queue.deleted, *queue.shown, *untouched} == {"0", "1", "2", "3", "4"}


def skip_if_onnxruntime_has_cuda() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine may have a GPU")


def test_a_worker_without_its_configured_gpu_does_not_start_and_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    skip_if_onnxruntime_has_cuda()
    config = configured(default_model=BUNDLED, pbr_device="cuda")
    with pytest.raises(GpuUnavailableError):
        Worker(config, FakeStore(None), Queue(), Machine())
    assert published("GpuUnavailable", capsys) == [1]


def test_a_model_that_finds_no_gpu_later_is_counted(disc_png: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    skip_if_onnxruntime_has_cuda()
    queue, machine = Queue(message(model=BUNDLED)), Machine()
    work_off(queue, machine, FakeStore(disc_png), configured(pbr_device="cuda"))
    assert machine.failures["token"][0] == "GpuUnavailableError"
    assert published("GpuUnavailable", capsys) == [1]


@pytest.fixture
def agent() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """An ECS agent that records path and body of each request."""
    told: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            told.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"protection": {}}')

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/task", told
        server.shutdown()
        thread.join()


def test_a_task_is_protected_while_jobs_are_in_progress(
    agent: tuple[str, list[tuple[str, dict[str, Any]]]], disc_png: bytes
) -> None:
    uri, told = agent
    queue, machine, store = Queue(message()), Machine(), FakeStore(disc_png)
    store.hold("put", "token")
    worker = running(queue, machine, store, configured(ecs_agent_uri=uri))
    queue.until(queue.found_empty.is_set)
    assert told == [("/api/task/task-protection/v1/state", {"ProtectionEnabled": True, "ExpiresInMinutes": 15})]
    store.release()
    queue.until(lambda: len(told) == 2)
    assert told[1][1] == {"ProtectionEnabled": False}
    worker.stop()
    worker.ended()
