"""The end of the last digest's window of time, stored in the work bucket."""

from datetime import datetime
from typing import Final

from pydantic import AwareDatetime, BaseModel, ValidationError

from core.errors import SourceNotFoundError
from functions.runtime.handler import logger
from functions.runtime.store import Store

KEY: Final = "digest/last.json"


class _Window(BaseModel):
    """A window of time whose digest has been published."""

    until: AwareDatetime


def last_end(store: Store, bucket: str) -> datetime | None:
    """Return the end of the last digest's window; None before the first digest, or if its object is not valid.

    Args:
        store: S3.
        bucket: the work bucket.
    """
    try:
        return _Window.model_validate_json(store.fetch(bucket, KEY).data).until
    except SourceNotFoundError:
        return None
    except ValidationError as error:
        logger.warning("invalid window", extra={"object": f"s3://{bucket}/{KEY}", "problem": str(error)})
        return None


def save(store: Store, bucket: str, until: datetime) -> None:
    """Store the end of a window whose digest has been published."""
    store.put(bucket, KEY, _Window(until=until).model_dump_json().encode(), "application/json")
