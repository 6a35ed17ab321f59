"""LocalStack for the tests: a process of its own Python environment, with all its files in a temporary directory."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SERVER: Final = Path(__file__).with_name("server.py")
PYTHON: Final = Path(sys.prefix) / "localstack/bin/python"
_START_S: Final = 120.0


@contextmanager
def localstack(mock_config: Path) -> Iterator[str]:
    """Yield the endpoint of a LocalStack that starts empty, reads these mocked cases, and ends with the block.

    Raises:
        RuntimeError: it does not start; the message has the end of its log.
    """
    if not PYTHON.exists():
        raise RuntimeError(f"{PYTHON} does not exist. Run: make test-localstack")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="localstack-") as home, Path(home, "log").open("w+b") as log:
        process = subprocess.Popen(
            [PYTHON, SERVER],
            cwd=home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": home,
                "TMPDIR": home,
                "FILESYSTEM_ROOT": home,
                "GATEWAY_LISTEN": f"127.0.0.1:{port}",
                "SFN_MOCK_CONFIG": str(mock_config),
                "S3_SKIP_SIGNATURE_VALIDATION": "0",
                # No usage statistics, downloads or DNS server.
                "DISABLE_EVENTS": "1",
                "SKIP_SSL_CERT_DOWNLOAD": "1",
                "DNS_ADDRESS": "0",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            endpoint_url = f"http://localhost:{port}"
            if not _answers(f"{endpoint_url}/_localstack/health", process):
                raise RuntimeError(f"LocalStack does not start: {Path(log.name).read_text()[-2000:]}")
            yield endpoint_url
        finally:
            process.kill()  # there is nothing to save, and freeing its memory would take seconds
            process.wait()


def _answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return True
    return False
