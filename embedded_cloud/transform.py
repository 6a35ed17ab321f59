"""SageMaker Batch Transform: sends the objects of a job to its container, and writes the responses to S3.

The container runs once, however many instances the job has. Fields that AWS has and this does not support fail the job.
"""

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from embedded_cloud.processes import ContainerResponse, Endpoint
from functions.runtime.weights import bucket_and_key

_TIMEOUT_S: Final = 600.0
_PAYLOAD_MB: Final = 6
_OK: Final = 200


class TransformFailedError(Exception):
    """The job failed; its text is the ``FailureReason``."""


@dataclass(frozen=True)
class TransformSettings:
    """How a job reads, sends and writes; field names are those of CreateTransformJob."""

    source: Mapping[str, Any]
    output: Mapping[str, Any]
    client: Mapping[str, Any]
    strategy: str
    concurrency: int
    payload_mb: int | None

    @property
    def split(self) -> str:
        """``SplitType``."""
        return str(self.source.get("SplitType") or "None")


@dataclass
class Transform:
    """A transform job.

    Attributes:
        settings: of the job.
        container: serves the model.
        s3: S3 client.
        log: called with each line.
    """

    settings: TransformSettings
    container: Endpoint
    s3: Any
    log: Callable[[str], None]
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Process all objects. Those that fail have no output, and do not stop the others.

        Raises:
            TransformFailedError: an object failed, or the container does not start.
        """
        try:
            self._check()
            failed = [uri for uri, key in self._objects() if not self._transform(uri, key)]
        finally:
            self.container.close()
        if failed and not self.is_stopped:
            raise TransformFailedError(f"ClientError: See job logs for more information: {failed[0]}")

    @property
    def is_stopped(self) -> bool:
        """Whether the job was stopped."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End the job."""
        self._stopped.set()
        self.container.close()

    def _check(self) -> None:
        if self.settings.split not in ("None", "Line"):
            raise TransformFailedError(f"The embedded cloud does not support SplitType {self.settings.split}")
        if self.container.get("/ping").status != _OK and not self.is_stopped:
            raise TransformFailedError("AlgorithmError: The container did not start. See job logs for more information")
        answer = self.container.get("/execution-parameters")
        offered = json.loads(answer.body) if answer.status == _OK else {}
        self._concurrency = self.settings.concurrency or offered.get("MaxConcurrentTransforms", 1)
        self._strategy = self.settings.strategy or offered.get("BatchStrategy", "MULTI_RECORD")
        given = self.settings.payload_mb
        self._payload_bytes = (offered.get("MaxPayloadInMB", _PAYLOAD_MB) if given is None else given) << 20

    def _objects(self) -> Iterator[tuple[str, str]]:
        """Yield the URI of each object, and the end of the key of its output."""
        source = self.settings.source["DataSource"]["S3DataSource"]
        bucket, prefix = bucket_and_key(source["S3Uri"])
        if source["S3DataType"] == "ManifestFile":
            first, *names = json.loads(self._read(bucket, prefix))
            yield from ((first["prefix"] + name, name) for name in names)
            return
        folder = prefix[: prefix.rfind("/") + 1]
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", []):
                if not found["Key"].endswith("/"):
                    yield f"s3://{bucket}/{found['Key']}", found["Key"].removeprefix(folder)

    def _read(self, bucket: str, key: str) -> bytes:
        data: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return gzip.decompress(data) if self.settings.source.get("CompressionType") == "Gzip" else data

    def _transform(self, uri: str, name: str) -> bool:
        """Send an object, and write the responses; return False if a request failed."""
        if self.is_stopped:
            return False
        requests = list(self._requests(self._read(*bucket_and_key(uri))))
        with ThreadPoolExecutor(self._concurrency) as pool:
            answers = list(pool.map(self._send, requests))
        bad = next((answer for answer in answers if not answer.ok), None)
        if bad is not None:
            self.log(f"[sagemaker logs]: {uri}: Bad HTTP status received from algorithm: {bad.status}")
            self.log(f"[sagemaker logs]: {uri}: {bad.body.decode(errors='replace')}")
            return False
        bucket, folder = bucket_and_key(f"{self.settings.output['S3OutputPath'].rstrip('/')}/")
        end = b"\n" if self.settings.output.get("AssembleWith") == "Line" else b""
        body = b"".join(answer.body + end for answer in answers)
        self.s3.put_object(Bucket=bucket, Key=f"{folder}{name}.out", Body=body)
        return True

    def _requests(self, data: bytes) -> Iterator[bytes]:
        if self.settings.split == "None":
            yield data
            return
        several = self._strategy.replace("_", "").lower() == "multirecord"
        batch = b""
        for line in data.splitlines(keepends=True):
            if batch and (not several or len(batch) + len(line) > self._payload_bytes):
                yield batch
                batch = b""
            batch += line
        if batch:
            yield batch

    def _send(self, body: bytes) -> ContainerResponse:
        types = {"Content-Type": self.settings.source.get("ContentType"), "Accept": self.settings.output.get("Accept")}
        headers = {name: value for name, value in types.items() if value}
        if self._payload_bytes and len(body) > self._payload_bytes:
            return ContainerResponse(413, "text/plain", b"The payload is larger than MaxPayloadInMB")
        timeout_s = float(self.settings.client.get("InvocationsTimeoutInSeconds", _TIMEOUT_S))
        answer = ContainerResponse(0, "text/plain", b"The job was stopped")
        for _ in range(1 + int(self.settings.client.get("InvocationsMaxRetries", 0))):
            if self.is_stopped:
                break
            answer = self.container.invoke(body, headers, timeout_s)
            if answer.ok or 400 <= answer.status < 500:
                break
        return answer
