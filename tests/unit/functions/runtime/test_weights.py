import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidOptionsError, WeightsHashMismatchError, WeightsUnavailableError
from core.segmentation.registry import BUNDLED, CLASSICAL, MODELS, Model, with_custom
from functions.runtime.weights import ModelSource, best_available, candidates
from tests.fakes.registry_entries import CONTENT, CUSTOM, model


@dataclass
class Mirror:
    """A web server of files.

    Attributes:
        files: content by path.
        statuses: statuses served before a file, once each.
        pause_s: pause between two halves of a file.
        cuts: whether a response ends after half of the file, once each.
        knows_ranges: whether it serves parts of a file.
        ranges: the ranges that were requested.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    pause_s: float = 0.0
    cuts: int = 0
    knows_ranges: bool = True
    ranges: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    url: str = ""

    def serve(self, model: Model, content: bytes = CONTENT) -> None:
        self.files[f"/models/{model.file}"] = content


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    state = Mirror()
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked[self.path] += 1
            content = state.files.get(self.path)
            status = state.statuses.pop(0) if state.statuses else 200 if content is not None else 404
            if requested := self.headers["Range"]:
                state.ranges.append(requested)
                if status == 200 and state.knows_ranges:
                    status, content = 206, content[int(requested.removeprefix("bytes=").removesuffix("-")) :]
            self.send_response(status)
            self.send_header("Content-Length", str(len(content or b"") if status in (200, 206) else 0))
            self.end_headers()
            if status in (200, 206) and content:
                half = len(content) // 2
                self.wfile.write(content[:half])
                self.wfile.flush()
                if state.cuts:
                    state.cuts -= 1
                    return
                if state.pause_s:
                    stopped.wait(state.pause_s)
                self.wfile.write(content[half:])

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_args: None
    state.url = f"http://127.0.0.1:{server.server_port}/models/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    stopped.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def nowhere() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def fetch(directory: Path, mirror: str, wanted: Model, timeout_s: float = 10.0) -> Path:
    return source_of(directory, mirror, wanted, timeout_s=timeout_s).path(wanted.name)


def source_of(directory: Path, mirror: str, *models: Model, timeout_s: float = 10.0) -> ModelSource:
    """A source that has no bundled weights."""
    return ModelSource((directory,), mirror, timeout_s, registry(*models), bundled=directory / "nothing")


@pytest.mark.parametrize("name", ["u3net", CLASSICAL])
def test_what_is_no_network_has_no_weights(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        ModelSource((tmp_path,)).path(name)
    assert caught.value.value == name
    assert caught.value.remedy == f"The models are: {', '.join(MODELS)}."


def test_missing_weights_are_downloaded_and_then_kept(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    directory = tmp_path / "not" / "there" / "yet"
    path = fetch(directory, mirror.url, model())
    assert path == directory / "small.onnx"
    assert path.read_bytes() == CONTENT
    assert fetch(directory, mirror.url, model()) == path
    assert mirror.asked.total() == 1
    assert list(directory.iterdir()) == [path]


@pytest.mark.parametrize("served", [b"something else", CONTENT + b"!", CONTENT[:-1], b""])
def test_a_download_that_is_not_the_pinned_file_is_refused_and_leaves_nothing(
    tmp_path: Path, mirror: Mirror, served: bytes
) -> None:
    mirror.serve(model(), served)
    with pytest.raises(WeightsHashMismatchError) as caught:
        fetch(tmp_path, mirror.url, model())
    assert caught.value.value == "small"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_the_pinned_one_is_refused_and_left_as_it_is(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    path = tmp_path / "small.onnx"
    path.write_bytes(b"tampered with")
    with pytest.raises(WeightsHashMismatchError) as caught:
        fetch(tmp_path, mirror.url, model())
    assert str(path) in caught.value.message
    assert path.read_bytes() == b"tampered with"
    assert mirror.asked.total() == 0


def test_a_file_that_changes_after_it_was_verified_is_verified_again(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    path = fetch(tmp_path, mirror.url, model())
    fetch(tmp_path, mirror.url, model())
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsHashMismatchError):
        fetch(tmp_path, mirror.url, model())


def test_a_file_that_the_mirror_lacks_is_unavailable_and_the_remedy_says_where_to_put_it(
    tmp_path: Path, mirror: Mirror
) -> None:
    with pytest.raises(WeightsUnavailableError) as caught:
        fetch(tmp_path, mirror.url, model())
    assert "404" in caught.value.message
    assert str(tmp_path / "small.onnx") in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_fault_of_the_mirror_is_tried_again(tmp_path: Path, mirror: Mirror, status: int) -> None:
    mirror.serve(model())
    mirror.statuses = [status]
    assert fetch(tmp_path, mirror.url, model()).read_bytes() == CONTENT


@pytest.mark.slow
def test_a_mirror_that_keeps_failing_is_given_up_in_time(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    mirror.statuses = [503] * 1000
    started = time.monotonic()
    with pytest.raises(WeightsUnavailableError):
        fetch(tmp_path, mirror.url, model(), timeout_s=0.7)
    assert time.monotonic() - started < 2
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_that_falls_silent_fails_in_time(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    mirror.pause_s = 30
    started = time.monotonic()
    with pytest.raises(WeightsUnavailableError):
        fetch(tmp_path, mirror.url, model(), timeout_s=0.5)
    assert time.monotonic() - started < 2


def test_a_download_continues_where_an_interrupted_one_stopped(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    source = source_of(tmp_path, mirror.url, model())
    counts: list[int] = []

    def interrupt(_name: str, count_bytes: int, _of_bytes: int) -> None:
        counts.append(count_bytes)
        raise KeyboardInterrupt

    mirror.pause_s = 0.2  # the first half arrives alone
    with pytest.raises(KeyboardInterrupt):
        source.path("small", interrupt)
    assert source.find("small") is None
    assert source.path("small").read_bytes() == CONTENT
    assert mirror.ranges == [f"bytes={counts[0]}-"]
    assert 0 < counts[0] < len(CONTENT)
    assert list(tmp_path.iterdir()) == [tmp_path / "small.onnx"]


def test_a_download_that_breaks_off_continues_at_once(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    mirror.cuts = 2
    assert fetch(tmp_path, mirror.url, model()).read_bytes() == CONTENT
    half, quarter = len(CONTENT) // 2, len(CONTENT) // 4
    assert mirror.ranges == [f"bytes={half}-", f"bytes={half + quarter}-"]


@pytest.mark.slow
def test_a_mirror_without_ranges_sends_the_whole_file_again(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    mirror.cuts, mirror.knows_ranges = 1, False
    assert fetch(tmp_path, mirror.url, model()).read_bytes() == CONTENT
    assert mirror.asked.total() == 2


@pytest.mark.parametrize("left", [b"of another file", b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)], ids=len)
def test_what_does_not_belong_to_the_file_is_downloaded_anew(tmp_path: Path, mirror: Mirror, left: bytes) -> None:
    mirror.serve(model())
    (tmp_path / f".small.onnx.{model().sha256[:16]}.part").write_bytes(left)
    assert fetch(tmp_path, mirror.url, model()).read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [tmp_path / "small.onnx"]


def test_downloads_of_the_same_file_at_the_same_time_do_not_mix(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    mirror.pause_s = 0.2
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(tmp_path, mirror.url, model()), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert list(tmp_path.iterdir()) == [tmp_path / "small.onnx"]


@pytest.mark.slow
def test_a_transfer_too_slow_to_end_in_time_is_given_up_early(tmp_path: Path, mirror: Mirror) -> None:
    huge = model(bytes=10**12)
    mirror.serve(huge)
    mirror.pause_s = 2.2
    started = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match="of 1000000000000 bytes"):
        fetch(tmp_path, mirror.url, huge, timeout_s=60)
    assert time.monotonic() - started < 10


def test_nobody_listening_is_found_out_at_once(tmp_path: Path, nowhere: str) -> None:
    started = time.monotonic()
    with pytest.raises(WeightsUnavailableError):
        fetch(tmp_path, nowhere, model(), timeout_s=60)
    assert time.monotonic() - started < 2


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsUnavailableError):
        fetch(tmp_path / "file" / "models", mirror.url, model())


def registry(*models: Model) -> dict[str, Model]:
    return {entry.name: entry for entry in models}


def test_the_best_free_general_model_is_downloaded(tmp_path: Path, mirror: Mirror) -> None:
    paid, special, first, second = (
        model("paid", commercial_use=False),
        model("special", general=False),
        model("first"),
        model("second"),
    )
    for entry in (paid, special, first, second):
        mirror.serve(entry)
    choice = best_available(source_of(tmp_path, mirror.url, paid, special, first, second))
    assert choice == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["first.onnx"]


def test_a_model_that_is_here_is_preferred_to_a_better_one_that_is_not(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model("better"))
    (tmp_path / "here.onnx").write_bytes(CONTENT)
    assert best_available(source_of(tmp_path, mirror.url, model("better"), model("here"))) == "here"
    assert mirror.asked.total() == 0


def test_a_model_that_the_mirror_lacks_gives_way_to_the_next(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model("second"))
    assert best_available(source_of(tmp_path, mirror.url, model("first"), model("second"))) == "second"


def test_a_model_too_large_for_the_memory_is_passed_over(tmp_path: Path, mirror: Mirror) -> None:
    mirror.serve(model("giant"))
    mirror.serve(model("second"))
    giant = model("giant", memory_bytes=1 << 60)
    (tmp_path / "giant.onnx").write_bytes(CONTENT)
    assert best_available(source_of(tmp_path, mirror.url, giant, model("second"))) == "second"


def test_a_huge_download_is_never_made_unasked(tmp_path: Path, mirror: Mirror) -> None:
    huge = model("huge", bytes=900_000_000)
    mirror.serve(huge)
    assert best_available(source_of(tmp_path, mirror.url, huge)) == CLASSICAL
    assert mirror.asked.total() == 0


BETTER, LAST = model("better"), model(BUNDLED)


@pytest.fixture
def bundled_only(tmp_path: Path, mirror: Mirror) -> ModelSource:
    """A source that has the bundled weights, and can download those of a better model."""
    mirror.serve(BETTER)
    folder = tmp_path / "bundled"
    folder.mkdir()
    (folder / f"{BUNDLED}.onnx").write_bytes(CONTENT)
    return ModelSource((tmp_path / "cache",), mirror.url, 10, registry(BETTER, LAST), bundled=folder)


def test_a_better_model_that_can_be_downloaded_is_preferred_to_the_bundled_one(bundled_only: ModelSource) -> None:
    seen: list[tuple[str, int, int]] = []
    assert best_available(bundled_only, lambda *progress: seen.append(progress)) == "better"
    assert seen[-1] == ("better", len(CONTENT), len(CONTENT))
    assert bundled_only.find("better") == bundled_only.destination("better")


def test_the_bundled_model_is_the_default_without_a_mirror_and_at_once(bundled_only: ModelSource, nowhere: str) -> None:
    started = time.monotonic()
    assert best_available(replace(bundled_only, mirror=nowhere)) == BUNDLED
    assert time.monotonic() - started < 2


def test_a_name_that_does_not_resolve_is_found_out_in_time(
    bundled_only: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    started = time.monotonic()
    assert best_available(replace(bundled_only, mirror="https://mirror.invalid/models")) == BUNDLED
    assert time.monotonic() - started < 6


def test_nothing_is_downloaded_if_the_caller_forbids_it(bundled_only: ModelSource, mirror: Mirror) -> None:
    assert best_available(bundled_only, download=False) == BUNDLED
    assert mirror.asked.total() == 0


def test_a_missing_bundled_file_is_downloaded_like_others(
    bundled_only: ModelSource, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.files.clear()
    mirror.serve(LAST)
    assert best_available(replace(bundled_only, bundled=tmp_path / "nothing")) == BUNDLED
    assert bundled_only.destination(BUNDLED).read_bytes() == CONTENT


def test_without_weights_the_built_in_segmenter_is_chosen_at_once(tmp_path: Path, nowhere: str) -> None:
    started = time.monotonic()
    assert best_available(ModelSource((tmp_path,), nowhere, 60, bundled=tmp_path)) == CLASSICAL
    assert time.monotonic() - started < 2


def test_a_tampered_file_is_not_passed_over_in_silence(tmp_path: Path, nowhere: str) -> None:
    (tmp_path / "small.onnx").write_bytes(b"tampered with")
    with pytest.raises(WeightsHashMismatchError):
        best_available(ModelSource((tmp_path,), nowhere, 1, registry(model())))


def test_what_can_be_chosen_is_what_is_here_and_else_what_is_not_too_large_to_fetch(tmp_path: Path) -> None:
    entries = [model("huge", bytes=900_000_000), model("small"), model("paid", commercial_use=False)]
    source = ModelSource((tmp_path,), registry=registry(*entries))
    assert [entry.name for entry in candidates(source)] == ["small"]
    (tmp_path / "huge.onnx").write_bytes(CONTENT)
    assert [entry.name for entry in candidates(source)] == ["huge"]


def test_the_first_directory_that_has_a_file_is_used_and_a_missing_one_is_put_into_the_last(
    tmp_path: Path, mirror: Mirror
) -> None:
    image, cache = tmp_path / "image", tmp_path / "cache"
    image.mkdir()
    (image / "baked.onnx").write_bytes(CONTENT)
    mirror.serve(model("other"))
    source = ModelSource((image, cache), mirror.url, 10, registry(model("baked"), model("other")))
    assert source.path("baked") == image / "baked.onnx"
    assert source.path("other") == cache / "other.onnx"


def test_a_file_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "small.onnx").mkdir()
    with pytest.raises(WeightsUnavailableError, match="cannot be read"):
        ModelSource((tmp_path,), registry=registry(model())).path("small")


def test_a_custom_model_comes_from_its_own_place_whatever_the_mirror(tmp_path: Path) -> None:
    source = ModelSource((tmp_path,), "https://mirror.example", registry=with_custom(json.dumps([CUSTOM])))
    assert source.url(source.registry["products-v2"]) == CUSTOM["uri"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


@given(
    st.text(st.characters(), min_size=1)
    | ANYTHING.map(json.dumps)
    | st.dictionaries(st.sampled_from([*CUSTOM, "mean", "std", "licence"]), ANYTHING).map(
        lambda change: json.dumps([{**CUSTOM, **change}])
    )
    | st.sampled_from(["[" * 100_000, "\udcff", "\ud800", "[1e999]", "[" + "9" * 5000 + "]"])
)
def test_any_text_describes_models_that_stay_in_their_directory_or_is_refused(text: str) -> None:
    try:
        found = with_custom(text)
    except InvalidOptionsError as error:
        assert error.field.startswith("PBR_CUSTOM_MODELS")
        return
    source = ModelSource((Path("models"),), registry=found)
    assert all(source.destination(name).resolve().parent == Path("models").resolve() for name in found)
