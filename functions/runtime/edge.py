"""CloudFront before the HTTP API: which requests came through it, and the URLs by which it serves results.

Its secret is a JSON object, the same in all Regions; ``make deploy-edge`` writes it:

* ``url``: base URL of the edge, e.g. ``https://api.example.com``.
* ``origin_secret``: CloudFront sends it in :data:`HEADER` with each request to the API.
* ``previous_origin_secret``: also accepted, while CloudFront still sends it. Optional.
* ``key_pair_id``, ``private_key``: sign URLs of results. The key is RSA, in PEM.
"""

import hmac
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError
from botocore.signers import CloudFrontSigner
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from functions.contracts.errors import SecretUnavailableError
from functions.runtime.config import Config
from functions.runtime.handler import logger
from functions.runtime.store import Store

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

HEADER: Final = "x-origin-verify"

_CACHED_FOR_S: Final = 300
_READ_AGAIN_AFTER_S: Final = 60
"""A request with another secret makes the function read the secret again, at most this often: it may have changed."""


class EdgeConfig(Config):
    """The edge of a stack.

    Attributes:
        edge_secret_arn: ARN of the edge's secret in this Region; empty if the stack has no edge.
        aws_region: this Region.
    """

    edge_secret_arn: str = ""
    aws_region: str = ""


class Keys(BaseModel):
    """The secret of the edge."""

    model_config = ConfigDict(frozen=True)

    url: str
    origin_secret: SecretStr
    previous_origin_secret: SecretStr = SecretStr("")
    key_pair_id: str
    private_key: SecretStr

    def accepts(self, value: str) -> bool:
        """Return whether CloudFront sends this value in :data:`HEADER`."""
        accepted = (self.origin_secret.get_secret_value(), self.previous_origin_secret.get_secret_value())
        return any(one and hmac.compare_digest(one.encode(), value.encode()) for one in accepted)

    @cached_property
    def signer(self) -> CloudFrontSigner:
        """Signs URLs of CloudFront."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA1
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key: Any = load_pem_private_key(self.private_key.get_secret_value().encode(), password=None)
        # CloudFront verifies signatures of SHA-1 only.
        return CloudFrontSigner(self.key_pair_id, lambda message: key.sign(message, PKCS1v15(), SHA1()))  # noqa: S303


class Edge:
    """The edge before the API of this Region.

    Args:
        secret_arn: ARN of its secret.
        region: Region of the results.
        client: client of Secrets Manager.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        secret_arn: str,
        region: str,
        client: "SecretsManagerClient",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arn, self._region, self._client, self._clock = secret_arn, region, client, clock
        self._keys: Keys | None = None
        self._read_at = 0.0

    def sent(self, value: str) -> bool:
        """Return whether a request with this value in :data:`HEADER` came through the edge.

        Raises:
            SecretUnavailableError: the secret cannot be read, or is incomplete, and none is known.
        """
        if self._current(_CACHED_FOR_S).accepts(value):
            return True
        return bool(value) and self._current(_READ_AGAIN_AFTER_S).accepts(value)

    def url(self, key: str, version_id: str | None, seconds: int) -> str:
        """Return a signed URL of a result.

        Args:
            key: key in the bucket of results.
            version_id: version; None for the newest at the time of the request.
            seconds: lifetime in seconds.

        Raises:
            SecretUnavailableError: the secret cannot be read, or is incomplete, and none is known.
        """
        keys = self._current(_CACHED_FOR_S)
        version = f"?versionId={quote(version_id, safe='')}" if version_id else ""
        url = f"{keys.url}/images/{self._region}/{quote(key, safe='/~')}{version}"
        ends_at = datetime.now(UTC) + timedelta(seconds=seconds)
        return str(keys.signer.generate_presigned_url(url, date_less_than=ends_at))

    def _current(self, age_s: float) -> Keys:
        """Return the secret, read again if it was read longer ago than this."""
        if self._keys is None or self._clock() - self._read_at >= age_s:
            try:
                self._keys = self._read()
            except SecretUnavailableError:
                if self._keys is None:
                    raise
                logger.warning("the secret of the edge cannot be read; the last known one is used", exc_info=True)
            self._read_at = self._clock()
        return self._keys

    def _read(self) -> Keys:
        try:
            text = self._client.get_secret_value(SecretId=self._arn).get("SecretString", "")
            return Keys.model_validate(json.loads(text))
        except (BotoCoreError, ClientError, ValueError) as error:
            raise SecretUnavailableError(
                "The secret of the edge cannot be read, or is incomplete",
                field="EDGE_SECRET_ARN",
                value=self._arn,
                remedy="Run make deploy-edge, and check that the function's role may read the secret.",
            ) from (None if isinstance(error, ValidationError) else error)  # that one shows the secret


def result_url(location: Mapping[str, Any], store: Store, edge: Edge | None, seconds: int) -> str:
    """Return a signed URL of a result: that of the edge if there is one, or that of S3.

    Args:
        location: ``bucket``, ``key`` and ``version_id`` of the result, as in its sidecar.
        store: signs URLs of S3.
        edge: the edge of the stack.
        seconds: lifetime in seconds.
    """
    bucket, key, version_id = location["bucket"], location["key"], location["version_id"]
    return edge.url(key, version_id, seconds) if edge else store.url(bucket, key, version_id, seconds)
