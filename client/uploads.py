"""What has become of an uploaded object, one version of one key: what is done for it again depends on that."""

from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from client.stack import Stack
from functions.contracts.failure_report import source_of
from functions.contracts.object_keys import sidecar_key

_ABSENT: Final = ("400", "404", "NoSuchKey")  # HEAD has no words: 400 is a key that S3 cannot have, as ../a.jpg


@dataclass(frozen=True)
class UploadedObject:
    """One version of one key of the uploads bucket.

    Attributes:
        key: its key.
        version_id: its version; None where the bucket has none of that key any more.
        newest: whether it is what the key names today; an older version's result would lie where the newer one's does.
        result_by: name of the execution that made the result it has; None while it has none.
    """

    key: str
    version_id: str | None
    newest: bool
    result_by: str | None


def look_up(stack: Stack, execution_input: Any) -> UploadedObject | None:
    """Return the object that an execution with this input works on; None where the input names none of this stack.

    An input without a version means the newest one.

    Raises:
        StorageDeniedError: whether it has a result is not to be seen with one's rights.
    """
    source = source_of(execution_input)
    key = source["key"]
    if not key or source["bucket"] != stack.outputs["UploadsBucket"]:
        return None
    newest_id = _newest_version(stack, key)
    version_id = source["version_id"] or newest_id
    sidecar = stack.document(sidecar_key(key), must_know=True) or {}
    has_result = source_of(sidecar) == {**source, "version_id": version_id}
    return UploadedObject(
        key=key,
        version_id=version_id,
        newest=version_id == newest_id,
        result_by=sidecar["execution"]["name"] if has_result else None,
    )


def _newest_version(stack: Stack, key: str) -> str | None:
    try:
        return stack.s3.head_object(Bucket=stack.outputs["UploadsBucket"], Key=key).get("VersionId")
    except ClientError as error:
        if error.response["Error"]["Code"] not in _ABSENT:
            raise
        return None
