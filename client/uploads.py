"""The state of an uploaded object: its newest version, and whether it has a result."""

from dataclasses import dataclass
from typing import Any, Final

from client.stack import Stack
from functions.contracts.failure_report import source_of
from functions.contracts.object_keys import sidecar_keys

# HeadObject has no error body: S3 answers 400 to a key that it cannot store, such as ../a.jpg.
_ABSENT: Final = ("400", "404", "NoSuchKey")


@dataclass(frozen=True)
class UploadedObject:
    """One version of an object in the uploads bucket.

    Attributes:
        key: object key.
        version_id: object version; None if the object was deleted.
        newest: whether this is the newest version. Results of older versions would overwrite the newest one's result.
        result_by: name of the execution that wrote this version's result; None if there is no result.
    """

    key: str
    version_id: str | None
    newest: bool
    result_by: str | None


def look_up(stack: Stack, execution_input: Any) -> UploadedObject | None:
    """Return the uploaded object that an execution input refers to, or None if it refers to none of this stack.

    An input without a version refers to the newest version.

    Raises:
        StorageDeniedError: if the credentials do not allow reading the results bucket.
    """
    source = source_of(execution_input)
    key = source["key"]
    if not key or source["bucket"] != stack.outputs["UploadsBucket"]:
        return None
    newest_id = _newest_version(stack, key)
    version_id = source["version_id"] or newest_id
    sidecars = (stack.document(name, required_access=True) or {} for name in sidecar_keys(key))
    own = (sidecar for sidecar in sidecars if source_of(sidecar) == {**source, "version_id": version_id})
    return UploadedObject(
        key=key,
        version_id=version_id,
        newest=version_id == newest_id,
        result_by=next((sidecar["execution"]["name"] for sidecar in own), None),
    )


def _newest_version(stack: Stack, key: str) -> str | None:
    from botocore.exceptions import ClientError

    try:
        return stack.s3.head_object(Bucket=stack.outputs["UploadsBucket"], Key=key).get("VersionId")
    except ClientError as error:
        if error.response["Error"]["Code"] not in _ABSENT:
            raise
        return None
