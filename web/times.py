"""Times as the user of a session reads them."""

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st


def local_time(at: datetime, *, whole: bool = False) -> str:
    """Return a time in the time zone of the browser.

    Args:
        at: the time.
        whole: with date and zone; otherwise the date is left out if it is today.
    """
    zone = _zone()
    there = at.astimezone(zone)
    if whole:
        return f"{there:%Y-%m-%d %H:%M:%S} {there.tzname()}"
    return f"{there:%H:%M:%S}" if there.date() == datetime.now(zone).date() else f"{there:%Y-%m-%d %H:%M:%S}"


def _zone() -> ZoneInfo:
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):  # a browser may know a newer zone
        return ZoneInfo("UTC")
