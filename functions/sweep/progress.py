"""How far the sweep has come, stored in the work bucket between runs."""

from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from core.errors import InvalidRequestError, SourceNotFoundError
from functions.runtime.handler import logger
from functions.runtime.store import Store

KEY: Final = "sweep/progress.json"

FIRST_WINDOW: Final = timedelta(days=1)
"""The first pass looks at the uploads of the last day."""


class Progress(BaseModel):
    """A pass: one listing of all uploads, which looks at those of a window of time. It takes several runs if needed.

    Attributes:
        since: start of the window.
        until: its end, exclusive.
        after: key after which the next run continues; empty at the start of the pass.
        first_open: earliest time in the window of an upload that has no outcome yet; None if all have one.
    """

    model_config = ConfigDict(frozen=True)

    since: AwareDatetime
    until: AwareDatetime
    after: str = ""
    first_open: AwareDatetime | None = None

    def next(self, until: datetime) -> "Progress":
        """Return the pass after this one. It looks again at the uploads that had no outcome."""
        return Progress(since=self.first_open or self.until, until=max(until, self.until))

    def advanced(self, after: str, open_since: datetime | None = None) -> "Progress":
        """Return the progress once all uploads up to a key have been looked at.

        Args:
            after: the key.
            open_since: time in the window for which the upload of the key was looked at, if it has no outcome yet.
        """
        times = [time for time in (self.first_open, open_since) if time]
        return self.model_copy(update={"after": after, "first_open": min(times, default=None)})


class _Stored(BaseModel):
    """The stored object: the pass, and whether it is complete."""

    progress: Progress
    complete: bool


def resume(store: Store, bucket: str, until: datetime) -> Progress:
    """Return the pass to continue, or a new one if the last one is complete, or its object is not valid.

    Args:
        store: S3.
        bucket: the work bucket.
        until: end of the window of a new pass.
    """
    try:
        stored = _Stored.model_validate_json(store.fetch(bucket, KEY).data)
    except SourceNotFoundError:
        return Progress(since=until - FIRST_WINDOW, until=until)
    except ValidationError as error:
        logger.warning("invalid progress", extra={"object": f"s3://{bucket}/{KEY}", "problem": str(error)})
        return Progress(since=until - FIRST_WINDOW, until=until)
    return stored.progress.next(until) if stored.complete else stored.progress


def begin(store: Store, bucket: str, since: datetime, until: datetime) -> Progress:
    """Return a new pass from this time on. Its window includes that of the pass that it replaces.

    Args:
        store: S3.
        bucket: the work bucket.
        since: start of the window.
        until: its end.

    Raises:
        InvalidRequestError: the window is empty.
    """
    if since >= until:
        raise InvalidRequestError(
            "The window of time is empty",
            field="since",
            value=since.isoformat(),
            remedy=f"Use a time before {until.isoformat()}, which is min_age_s before now.",
        )
    replaced = resume(store, bucket, until)
    return Progress(since=min(since, replaced.since), until=max(until, replaced.until))


def save(store: Store, bucket: str, progress: Progress, *, complete: bool) -> None:
    """Store the progress of a pass."""
    document = _Stored(progress=progress, complete=complete).model_dump_json()
    store.put(bucket, KEY, document.encode(), "application/json")
