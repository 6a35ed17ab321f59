import errno
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from client.errors import JobFailedError, JobFailure, StackUnavailableError
from client.history import StageEvent
from client.jobs import StoppedWaitingError, Upload
from core.errors import InvalidOptionsError
from core.limits import MAX_BYTES
from functions.runtime.safe_http import Policy
from tests.fakes.stack_in_memory import NOW, stack
from web.removals import MOST, Registry, Removal, Removals, State, at_once, distinct, file_name, of, policy

PNG = b"\x89PNG\r\n\x1a\n and more"
REPORT = JobFailure(
    "Validate", "CorruptImageError", "The file ends early", "source", None, "Save it again.", "failed/a"
)


class Jobs:
    """Fake of JobClient. An execution runs until ``go`` is set, and fails if its name is in ``failing``.

    Uploads wait until ``may_upload`` is set, which it is at first.
    """

    def __init__(self) -> None:
        self.uploads: list[tuple[str, str, bytes, dict[str, Any]]] = []
        self.copies: list[tuple[Upload, dict[str, Any]]] = []
        self.failing: dict[str, Exception] = {}
        self.go, self.may_upload = threading.Event(), threading.Event()
        self.may_upload.set()
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()

    def upload(self, name: str, data: bytes, options: dict[str, Any], *, folder: str) -> Upload:
        if options.get("format") == "tiff":
            raise InvalidOptionsError("No", field="options.format", value="tiff", remedy="Use png.")
        self.uploads.append((folder, name, data, options))
        assert self.may_upload.wait(10)
        return Upload(f"{folder}{name}", "v1", NOW)

    def upload_again(self, upload: Upload, options: dict[str, Any]) -> Upload:
        self.copies.append((upload, options))
        return Upload(f"{upload.key}-2", "v1", NOW)

    def execution_of(self, upload: Upload, *, stopped: Callable[[], bool]) -> str:
        return f"arn:aws:states:eu-west-1:1:execution:pbr:{upload.key.rpartition('/')[2]}"

    def follow(self, arn: str, *, stopped: Callable[[], bool]) -> Iterator[StageEvent]:
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield StageEvent("Validate", "started", 0.0)
            yield StageEvent("Validate", "finished", 0.1)
            yield StageEvent("Refine", "started", 0.0)
            while not self.go.wait(0.005):
                if stopped():
                    raise StoppedWaitingError
            yield StageEvent("Refine", "finished", 1.0)
        finally:
            with self._lock:
                self.in_flight -= 1

    def sidecar(self, arn: str) -> dict[str, Any]:
        if error := self.failing.get(arn.rpartition(":")[2]):
            raise error
        return {"options": {"format": "webp_lossless"}}


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.go.set()


def removals(jobs: Jobs, *, threads: int = 8) -> Removals:
    return Removals(lambda: jobs, folder="web/me/", policy=Policy, threads=threads)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_image_is_uploaded_followed_and_known_by_its_sidecar(jobs: Jobs) -> None:
    images = removals(jobs)
    image = images.add_file("cup.jpg", PNG, {"crop": True})
    until(lambda: len(image.stages) == 2)
    assert image.state is State.RUNNING and images.running
    assert [(event.stage, event.kind) for event in image.stages] == [("Validate", "finished"), ("Refine", "started")]
    jobs.go.set()
    until(lambda: not images.running)
    assert [one.state for one in images.images] == [State.DONE]
    assert jobs.uploads == [("web/me/", "cup.jpg", PNG, {"crop": True})]
    assert image.execution and image.execution.endswith(":cup.jpg")
    assert image.result_name == "cup.webp"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "EmptyImageError"),
        (b"some text", "UnsupportedFormatError"),
        (b"%PDF-1.7", "UnsupportedFormatError"),
        (PNG + bytes(MAX_BYTES), "FileTooLargeError"),
    ],
)
def test_a_file_that_no_stack_accepts_is_not_uploaded(jobs: Jobs, data: bytes, error: str) -> None:
    images = removals(jobs)
    image = images.add_file("cup.jpg", data, {})
    assert image.state is State.FAILED and image.failure and image.failure.error == error
    assert not jobs.uploads and not images.running


def test_a_failure_does_not_stop_the_others(jobs: Jobs) -> None:
    jobs.go.set()
    jobs.failing["bad.png"] = JobFailedError(REPORT)
    images = removals(jobs)
    bad, good = images.add_file("bad.png", PNG, {}), images.add_file("good.png", PNG, {})
    until(lambda: not images.running)
    assert (bad.state, bad.failure, good.state) == (State.FAILED, REPORT, State.DONE)


def test_invalid_options_are_a_typed_failure(jobs: Jobs) -> None:
    images = removals(jobs)
    image = images.add_file("a.png", PNG, {"format": "tiff"})
    until(lambda: not images.running)
    assert image.failure and (image.failure.error, image.failure.remedy) == ("InvalidOptionsError", "Use png.")


def test_an_unexpected_error_ends_the_image_with_a_message(jobs: Jobs) -> None:
    jobs.go.set()
    jobs.failing["a.png"] = ZeroDivisionError("secret")
    images = removals(jobs)
    image = images.add_file("a.png", PNG, {})
    until(lambda: not images.running)
    assert image.failure and image.failure.error == "ZeroDivisionError" and "secret" not in image.failure.message


def test_nothing_is_added_or_lost_while_the_stack_does_not_respond(jobs: Jobs) -> None:
    jobs.go.set()
    stack_states = [True]

    def connected() -> Jobs:
        if not stack_states[-1]:
            raise StackUnavailableError("No", field="stack", value="pbr", remedy="Try again.")
        return jobs

    images = Removals(connected, folder="web/me/", policy=Policy, threads=1)
    done = images.add_file("a.png", PNG, {})
    until(lambda: done.state is State.DONE)
    stack_states.append(False)
    for action in (
        lambda: images.add_file("b.png", PNG, {}),
        lambda: images.add_url("https://example.com/c.png", {}),
        lambda: images.again(done, {"format": "webp"}),
    ):
        with pytest.raises(StackUnavailableError):
            action()
    assert images.images == [done] and not done.abandoned and not images.running


def test_a_file_that_cannot_be_kept_is_a_failure(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    images = removals(jobs)
    image = images.add_file("a.png", PNG, {})
    assert images.images == [image] and image.state is State.FAILED and image.failure


def test_a_url_that_is_not_allowed_is_a_typed_failure(jobs: Jobs) -> None:
    images = removals(jobs)
    image = images.add_url("https://127.0.0.1/photos/c%C3%BCp.jpg?token=secret", {})
    until(lambda: not images.running)
    assert image.name == "cüp.jpg"
    assert image.failure and image.failure.error == "UrlRefusedError" and "secret" not in str(image.failure.value)


def test_no_more_are_in_flight_than_a_user_may_have(jobs: Jobs) -> None:
    images = removals(jobs, threads=2)
    added = [images.add_file(f"{number}.png", PNG, {}) for number in range(6)]
    until(lambda: jobs.in_flight == 2)
    assert sum(image.state is State.WAITING for image in added) == 4
    jobs.go.set()
    until(lambda: not images.running)
    assert jobs.most_in_flight == 2 and len(jobs.uploads) == 6


def test_few_files_of_all_users_are_in_memory_at_a_time(jobs: Jobs) -> None:
    jobs.go.set()
    users = [removals(jobs, threads=20) for _ in range(2)]
    jobs.may_upload.clear()
    for number in range(5):
        for images in users:
            images.add_file(f"{number}.png", PNG, {})
    until(lambda: sum(one.state is State.UPLOADING for images in users for one in images.images) == 10)
    assert len(jobs.uploads) == 4
    jobs.may_upload.set()
    until(lambda: not any(images.running for images in users))
    assert len(jobs.uploads) == 10


def test_a_file_that_does_not_fit_on_the_disk_is_a_typed_failure(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**28))
    image = removals(jobs).add_file("a.png", PNG, {})
    assert image.state is State.FAILED and image.failure and image.failure.error == "DiskFullError"


def test_images_that_were_removed_are_neither_uploaded_nor_followed(jobs: Jobs) -> None:
    images = removals(jobs, threads=1)
    first, second = images.add_file("1.png", PNG, {}), images.add_file("2.png", PNG, {})
    until(lambda: len(first.stages) == 2)
    images.clear()
    assert images.images == [] and not images.running
    third = images.add_file("3.png", PNG, {})
    until(lambda: len(third.stages) == 2)  # while the first execution still runs
    jobs.go.set()
    until(lambda: third.state is State.DONE)
    assert (
        first.failure is None
        and second.upload is None
        and [name for _, name, _, _ in jobs.uploads] == ["1.png", "3.png"]
    )


def test_an_image_is_processed_again_in_its_place(jobs: Jobs) -> None:
    jobs.go.set()
    images = removals(jobs)
    first, other = images.add_file("a.png", PNG, {}), images.add_file("b.png", PNG, {})
    until(lambda: not images.running)
    again = images.again(first, {"format": "webp"})
    assert images.images == [again, other]
    until(lambda: not images.running)
    assert jobs.copies == [(first.upload, {"format": "webp"})] and len(jobs.uploads) == 2


def test_urls_are_those_that_the_stack_allows_now(jobs: Jobs) -> None:
    deployed = [stack()]
    images = of(lambda: jobs, lambda: deployed[-1], "web/me/")
    refused = images.add_url("http://127.0.0.1:1024/a.png", {})
    deployed.append(replace(stack(), parameters={"UrlSchemes": "http", "UrlNetworks": "127.0.0.0/8"}))
    allowed = images.add_url("http://127.0.0.1:1024/a.png", {})
    until(lambda: not images.running)
    assert refused.failure and refused.failure.error == "UrlRefusedError"
    assert allowed.failure and allowed.failure.error != "UrlRefusedError"  # nothing listens there


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_user_finds_images_again_and_others_do_not(jobs: Jobs) -> None:
    registry = Registry()
    mine = registry.of("me", lambda: removals(jobs))
    assert registry.of("me", lambda: removals(jobs)) is mine
    assert registry.of("other", lambda: removals(jobs)) is not mine


def test_images_are_kept_for_some_time_after_the_last_access(jobs: Jobs) -> None:
    clock = Clock()
    registry = Registry(kept_s=60, clock=clock)
    mine = registry.of("me", lambda: removals(jobs, threads=1))
    first, second = mine.add_file("1.png", PNG, {}), mine.add_file("2.png", PNG, {})
    until(lambda: len(first.stages) == 2)
    for clock.now in (50.0, 100.0):
        assert registry.of("me", lambda: removals(jobs)) is mine
    clock.now = 161.0
    assert registry.of("me", lambda: removals(jobs)) is not mine
    until(lambda: jobs.in_flight == 0)
    assert first.abandoned and second.abandoned and [name for _, name, _, _ in jobs.uploads] == ["1.png"]


def test_the_least_recent_user_makes_room_for_a_new_one(jobs: Jobs) -> None:
    registry = Registry(most=2)
    known = {user: registry.of(user, lambda: removals(jobs)) for user in ("a", "b")}
    registry.of("a", lambda: removals(jobs))
    registry.of("c", lambda: removals(jobs))
    assert registry.of("a", lambda: removals(jobs)) is known["a"]
    assert registry.of("b", lambda: removals(jobs)) is not known["b"]


def test_a_user_has_room_for_a_limited_number_of_images(jobs: Jobs) -> None:
    images = removals(jobs)
    images.images = [Removal("a.png", {}) for _ in range(MOST - 1)]
    assert images.room == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cup.jpg", "cup.jpg"),
        ("../../etc/cup.jpg", "cup.jpg"),
        (r"C:\photos\cup.jpg", "cup.jpg"),
        ("a\nb\u202egnp.jpg", "abgnp.jpg"),
        ("", "image"),
        ("..", "image"),
        ("gru\u0308n.png", "grün.png"),
        ('a<b>:"c|?*.png', "abc.png"),
        ("x" * 500 + ".jpeg", "x" * 115 + ".jpeg"),
    ],
)
def test_file_names_are_safe_as_the_last_part_of_a_key(text: str, expected: str) -> None:
    assert file_name(text) == expected


def test_names_in_a_zip_file_are_distinct() -> None:
    assert distinct(["a.png", "A.png", "a.png", "a-2.png"]) == ["a.png", "A-2.png", "a-3.png", "a-2-2.png"]


def test_limits_are_those_of_the_stack() -> None:
    given = {"ApiJobsInFlight": "7", "UrlSchemes": "http,https", "UrlNetworks": "10.1.0.0/16"}
    deployed = replace(stack(), parameters=given)
    assert at_once(deployed) == 7
    assert at_once(replace(deployed, endpoint_url="http://localhost:4566")) < 7
    assert policy(deployed) == Policy(("http", "https"), ("10.1.0.0/16",))
    assert policy(stack()) == Policy()
