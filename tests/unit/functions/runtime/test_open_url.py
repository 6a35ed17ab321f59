import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from functions.runtime.download import DownloadError, TransientDownloadError, UnreachableError
from functions.runtime.weights import bucket_and_key, open_url
from functions.segment.config import SegmentationConfig

CONTENT = b"weights" * 300_000


class Bucket:
    """An S3 that holds files by path, and answers what it is told to before it serves them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.errors: list[tuple[int, str]] = []
        self.breaks_off = False


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = bucket.files.get(self.path)
            if content and (requested := self.headers["Range"]):
                content = content[int(requested.removeprefix("bytes=").removesuffix("-")) :]
            status, code = bucket.errors.pop(0) if bucket.errors else (200, "") if content else (404, "NoSuchKey")
            body = content if status == 200 and content else f"<Error><Code>{code}</Code></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if bucket.breaks_off else body)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    yield bucket
    server.shutdown()
    server.server_close()
    thread.join()


def read(url: str, start: int = 0) -> bytes:
    return b"".join(open_url(url, 5, start))


def test_an_object_is_read_from_its_bucket(s3: Bucket) -> None:
    s3.files["/models/nets/a.onnx"] = CONTENT
    assert read("s3://models/nets/a.onnx") == CONTENT
    assert read("s3://models/nets/a.onnx", 1_000_001) == CONTENT[1_000_001:]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, "NoSuchKey"), DownloadError),
        ((403, "AccessDenied"), DownloadError),
        ((503, "SlowDown"), TransientDownloadError),
        ((500, "InternalError"), TransientDownloadError),
    ],
    ids=str,
)
def test_what_s3_answers_says_whether_another_try_may_help(
    s3: Bucket, answer: tuple[int, str], error: type[DownloadError]
) -> None:
    s3.errors = [answer]
    with pytest.raises(DownloadError, match="s3://models/a") as caught:
        read("s3://models/a.onnx")
    assert type(caught.value) is error


def test_an_object_that_breaks_off_may_be_read_again(s3: Bucket) -> None:
    s3.files["/models/a.onnx"], s3.breaks_off = CONTENT, True
    with pytest.raises(TransientDownloadError):
        read("s3://models/a.onnx")


def test_a_bucket_that_nobody_answers_for_is_unreachable(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError):
        read("s3://models/a.onnx")


@pytest.mark.parametrize("url", ["s3://", "s3://models", "s3://not a bucket/a.onnx"])
def test_what_names_no_object_is_no_untyped_error(s3: Bucket, url: str) -> None:
    with pytest.raises(DownloadError):
        read(url)


def test_a_file_of_this_machine_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a network.onnx"
    path.write_bytes(CONTENT)
    assert read(path.as_uri()) == CONTENT
    assert read(path.as_uri(), 1_000_001) == CONTENT[1_000_001:]


def test_a_file_that_is_not_there_is_a_failed_download(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"nothing\.onnx") as caught:
        read((tmp_path / "nothing.onnx").as_uri())
    assert type(caught.value) is DownloadError, "the next file may be there"


def test_nobody_answering_on_the_web_is_unreachable() -> None:
    with pytest.raises(UnreachableError):
        read("http://127.0.0.1:9/a.onnx")


@pytest.mark.parametrize("url", ["ftp://host/a.onnx", "a.onnx", ""])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(DownloadError, match="s3://"):
        read(url)


@pytest.mark.parametrize(
    ("url", "place"),
    [("s3://bucket/a/b%20c.onnx", ("bucket", "a/b%20c.onnx")), ("s3://bucket", ("bucket", ""))],
)
def test_a_key_is_taken_as_it_stands(url: str, place: tuple[str, str]) -> None:
    assert bucket_and_key(url) == place


def test_the_hosts_of_segmentation_fetch_verify_and_keep_what_lies_in_a_bucket(s3: Bucket, tmp_path: Path) -> None:
    s3.files["/models/mine.onnx"] = CONTENT
    s3.errors = [(503, "SlowDown")]
    described = {
        "name": "mine",
        "uri": "s3://models/mine.onnx",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "bytes": len(CONTENT),
        "input_px": 64,
    }
    config = SegmentationConfig(
        work_bucket="work",
        pbr_model_dir=f"{tmp_path / 'image'}:{tmp_path / 'cache'}",
        pbr_custom_models=json.dumps([described]),
    )
    assert config.networks().source.path("mine") == tmp_path / "cache" / "mine.onnx"
    assert (tmp_path / "cache" / "mine.onnx").read_bytes() == CONTENT
