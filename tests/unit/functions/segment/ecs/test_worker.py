"""The whole worker against stand-ins for queue, state machine and store; the work itself is real."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import GpuUnavailableError
from functions.segment.ecs.worker import Worker, WorkerConfig
from tests.conftest import file_of
from tests.fakes import tiny_networks
from tests.fakes.worker_in_memory import JOB, Machine, Queue, Running, Shelf, message


def configured(directory: Path | None = None, *networks: bytes, **settings: Any) -> WorkerConfig:
    """Return a configuration whose custom models are the networks, called net-0, net-1, ..."""
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


def running(queue: Queue, machine: Machine, shelf: Shelf, config: WorkerConfig | None = None) -> Running:
    return Running(Worker(config or configured(), shelf, queue, machine))


def work_off(
    queue: Queue, machine: Machine, shelf: Shelf, config: WorkerConfig | None = None, *, no_jobs: int = 0
) -> None:
    """Let a worker take all messages off the queue, but for those that are no jobs."""
    jobs = len(queue.waiting) - no_jobs
    worker = running(queue, machine, shelf, config)
    queue.until(lambda: len(queue.deleted) == jobs and not queue.waiting)
    worker.stop()
    worker.ended()
    assert worker.finished


def test_a_job_is_done_answered_and_taken_off_the_queue(disc_png: bytes) -> None:
    queue, machine, shelf = Queue(message()), Machine(), Shelf(disc_png)
    work_off(queue, machine, shelf)
    mask = machine.successes["token"]
    assert mask["host"] == "ecs" and mask["model"] == "classical"
    assert shelf.masks[mask["key"]].shape == (mask["height"], mask["width"])
    assert queue.deleted == ["0"]


def test_many_jobs_are_done_and_never_more_are_in_hand_than_three_batches(disc_png: bytes, tmp_path: Path) -> None:
    bodies = [message(f"job-{number}", model="net-0") for number in range(40)]
    queue, machine, shelf = Queue(*bodies), Machine(), Shelf(disc_png)
    work_off(queue, machine, shelf, configured(tmp_path, tiny_networks.network(), pbr_batch=2))
    assert machine.successes.keys() == shelf.masks.keys() == {f"job-{number}" for number in range(40)}
    assert sorted(queue.deleted, key=int) == [str(number) for number in range(40)]
    assert queue.most_out <= 6


def test_a_picture_that_cannot_be_processed_fails_by_its_own_error_with_field_and_remedy() -> None:
    queue, machine = Queue(message()), Machine()
    work_off(queue, machine, Shelf(None))
    error, facts = machine.failures["token"]
    assert error == "SourceNotFoundError"
    assert facts["remedy"] == "Upload it again."
    assert queue.deleted == ["0"]


def test_all_jobs_in_hand_are_kept_alive_those_that_wait_for_a_thread_too(disc_png: bytes) -> None:
    tokens = [f"job-{number}" for number in range(12)]
    queue, machine, shelf = Queue(*map(message, tokens)), Machine(), Shelf(disc_png)
    shelf.hold("read", *tokens)
    worker = running(queue, machine, shelf, configured(pbr_batch=4, pbr_heartbeat_s=0.01))
    machine.until(lambda: all(machine.heartbeats[token] >= 3 for token in tokens))
    queue.until(lambda: all((str(number), 120) in queue.visibility for number in range(12)))
    shelf.release()
    worker.stop()
    worker.ended()
    assert worker.finished


def test_a_job_that_nobody_waits_for_is_not_worked_on(disc_png: bytes) -> None:
    queue, machine, shelf = Queue(message("stale"), message("fresh")), Machine(gone=("stale",)), Shelf(disc_png)
    work_off(queue, machine, shelf)
    assert list(machine.successes) == list(shelf.masks) == ["fresh"]
    assert sorted(queue.deleted) == ["0", "1"]


def test_a_job_is_dropped_as_soon_as_nobody_waits_for_it_any_more(disc_png: bytes) -> None:
    queue, machine, shelf = Queue(message()), Machine(), Shelf(disc_png)
    shelf.hold("read", "token")
    worker = running(queue, machine, shelf, configured(pbr_heartbeat_s=0.01))
    shelf.until(lambda: shelf.begun)
    machine.gone.add("token")
    queue.until(lambda: queue.deleted)
    shelf.release()
    worker.stop()
    worker.ended()
    assert worker.finished and not shelf.masks


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"token": ""}', '{"token": 5}', "null"])
def test_a_message_that_is_no_job_is_left_for_the_dead_letter_queue(body: str, disc_png: bytes) -> None:
    queue, machine = Queue(body, message()), Machine()
    work_off(queue, machine, Shelf(disc_png), no_jobs=1)
    assert queue.deleted == ["1"], "the next message is worked on"
    assert not queue.given_back, "it would come back at once, again and again"


@pytest.mark.parametrize(("job", "field"), [({**JOB, "keys": {}}, "keys.mask"), ({}, "execution"), ("text", "")])
def test_a_job_that_is_malformed_fails_and_says_where(job: Any, field: str, disc_png: bytes) -> None:
    queue, machine = Queue(json.dumps({"token": "token", "job": job})), Machine()
    work_off(queue, machine, Shelf(disc_png))
    error, facts = machine.failures["token"]
    assert error == "InvalidRequestError"
    assert facts["field"] == field
    assert queue.deleted == ["0"]


def test_a_job_without_anything_but_a_token_fails_too(disc_png: bytes) -> None:
    queue, machine = Queue('{"token": "token"}'), Machine()
    work_off(queue, machine, Shelf(disc_png))
    assert machine.failures["token"][0] == "InvalidRequestError"


def test_a_job_that_workers_die_of_fails_before_its_picture_is_read(disc_png: bytes) -> None:
    queue, machine, shelf = Queue(message(), received=4), Machine(), Shelf(disc_png)
    work_off(queue, machine, shelf)
    error, facts = machine.failures["token"]
    assert error == "WorkerCrashedError"
    assert facts["field"] == "source.key" and facts["value"] == "token" and facts["remedy"]
    assert queue.deleted == ["0"]
    assert not shelf.begun


def test_a_job_is_tried_three_times(disc_png: bytes) -> None:
    queue, machine = Queue(message(), received=3), Machine()
    work_off(queue, machine, Shelf(disc_png))
    assert list(machine.successes) == ["token"]


def together(queue: Queue, shelf: Shelf, keys: list[str]) -> threading.Thread:
    """Have pictures arrive only when the worker knows of them all, so that they make one batch."""
    shelf.hold("read", *keys)

    def release() -> None:
        queue.found_empty.wait()
        shelf.release()

    thread = threading.Thread(target=release)
    thread.start()
    return thread


def test_pictures_of_one_model_are_predicted_at_once(disc_png: bytes, tmp_path: Path) -> None:
    keys = ["a", "b", "c"]
    queue, machine, shelf = Queue(*(message(key, model="net-0") for key in keys)), Machine(), Shelf(disc_png)
    together(queue, shelf, keys)
    network = tiny_networks.only_for_batches_of(3)
    work_off(queue, machine, shelf, configured(tmp_path, network, pbr_batch=3, pbr_batch_wait_s=60))
    assert sorted(machine.successes) == keys


def test_a_picture_that_fails_does_not_fail_its_neighbours(disc_png: bytes, tmp_path: Path) -> None:
    black = file_of(Image.new("RGB", (64, 64)), "PNG")
    keys = ["a", "black", "c"]
    queue, machine = Queue(*(message(key, model="net-0") for key in keys)), Machine()
    shelf = Shelf(disc_png, black=black)
    together(queue, shelf, keys)
    network = tiny_networks.fails_on_black()
    work_off(queue, machine, shelf, configured(tmp_path, network, pbr_batch=3, pbr_batch_wait_s=60))
    assert sorted(machine.successes) == ["a", "c"]
    assert list(machine.failures) == ["black"]
    assert sorted(queue.deleted) == ["0", "1", "2"]


def test_pictures_of_several_models_each_get_their_own(disc_png: bytes, tmp_path: Path) -> None:
    bodies = [message(f"{number}-{number % 2}", model=f"net-{number % 2}") for number in range(10)]
    queue, machine, shelf = Queue(*bodies), Machine(), Shelf(disc_png)
    networks = tiny_networks.network(gain=1.0), tiny_networks.network(gain=-1.0)
    work_off(queue, machine, shelf, configured(tmp_path, *networks, pbr_batch=2))
    assert all(answer["model"] == f"net-{token[-1]}" for token, answer in machine.successes.items())
    height, width = shelf.masks["0-0"].shape
    for token, mask in shelf.masks.items():
        assert (mask[height // 2, width // 2] > 0.5) == token.endswith("0"), "the second network sees the ground"


def test_stopping_gives_back_at_once_what_waits_and_finishes_what_has_begun(disc_png: bytes) -> None:
    tokens = ["a", "b", "c", "d"]
    queue, machine, shelf = Queue(*map(message, tokens)), Machine(), Shelf(disc_png)
    shelf.hold("put", "a")
    shelf.hold("read", "b", "c")
    worker = running(queue, machine, shelf)
    shelf.until(lambda: ("put", "a") in shelf.begun)
    queue.until(lambda: len(queue.out) == 3)
    worker.stop()
    queue.until(lambda: queue.given_back == ["1", "2"])
    assert not machine.successes, "the first is still in hand"
    shelf.release()
    worker.ended()
    assert worker.finished
    assert list(machine.successes) == ["a"]
    assert queue.deleted == ["0"]
    assert [sent["ReceiptHandle"] for sent in queue.waiting] == ["3"], "it took no more"


def test_what_is_not_finished_in_time_is_given_back(disc_png: bytes) -> None:
    queue, machine, shelf = Queue(message()), Machine(), Shelf(disc_png)
    shelf.hold("put", "token")
    worker = running(queue, machine, shelf, configured(pbr_drain_s=0))
    shelf.until(lambda: ("put", "token") in shelf.begun)
    worker.stop()
    worker.ended()
    assert worker.finished is False
    assert queue.given_back == ["0"]
    shelf.release()
    assert not queue.deleted and not machine.successes


def test_a_message_that_arrives_while_stopping_goes_back_at_once() -> None:
    class StoppingQueue(Queue):
        def receive_message(self, **request: Any) -> dict[str, Any]:
            worker.stop()
            return super().receive_message(**request)

    queue, machine, shelf = StoppingQueue(message()), Machine(), Shelf(None)
    shelf.hold("read", "token")
    worker = Worker(configured(), shelf, queue, machine)
    assert worker.run()
    shelf.release()
    assert queue.given_back == ["0"]
    assert not queue.deleted and not machine.failures


def test_a_worker_that_cannot_go_on_gives_back_what_it_has_and_ends(disc_png: bytes) -> None:
    class BrokenQueue(Queue):
        def receive_message(self, **request: Any) -> dict[str, Any]:
            if not self.waiting:
                shelf.until(lambda: shelf.begun)
                raise KeyError("something that nobody thought of")
            return super().receive_message(**request)

    queue, machine, shelf = BrokenQueue(message()), Machine(), Shelf(disc_png)
    shelf.hold("read", "token")
    worker = running(queue, machine, shelf)
    worker.ended()
    shelf.release()
    assert isinstance(worker.error, KeyError)
    assert queue.given_back == ["0"] and not queue.deleted


def test_a_worker_whose_network_fails_on_one_picture_after_the_other_ends(tmp_path: Path) -> None:
    keys = ["a", "b", "c", "d", "e"]
    queue, machine = Queue(*(message(key, model="net-0") for key in keys)), Machine()
    shelf = Shelf(file_of(Image.new("RGB", (64, 64)), "PNG"))
    worker = running(queue, machine, shelf, configured(tmp_path, tiny_networks.fails_on_black()))
    worker.ended()
    assert worker.error is not None
    assert not machine.successes and "e" not in machine.failures
    untouched = {message["ReceiptHandle"] for message in queue.waiting}
    assert {*queue.deleted, *queue.given_back, *untouched} == {"0", "1", "2", "3", "4"}


def test_a_worker_without_the_gpu_that_it_was_promised_does_not_start(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine may have a GPU")
    config = configured(tmp_path, tiny_networks.network(), default_model="net-0", pbr_device="cuda")
    with pytest.raises(GpuUnavailableError):
        Worker(config, Shelf(None), Queue(), Machine())


@pytest.fixture
def agent() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """An ECS agent that remembers path and body of each request."""
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


def test_a_task_is_protected_while_it_has_jobs_in_hand(
    agent: tuple[str, list[tuple[str, dict[str, Any]]]], disc_png: bytes
) -> None:
    uri, told = agent
    queue, machine, shelf = Queue(message()), Machine(), Shelf(disc_png)
    shelf.hold("put", "token")
    worker = running(queue, machine, shelf, configured(ecs_agent_uri=uri))
    queue.until(queue.found_empty.is_set)
    assert told == [("/api/task/task-protection/v1/state", {"ProtectionEnabled": True, "ExpiresInMinutes": 15})]
    shelf.release()
    queue.until(lambda: len(told) == 2)
    assert told[1][1] == {"ProtectionEnabled": False}
    worker.stop()
    worker.ended()
