"""The stack that the page shows, and the user of the current session."""

import os
from typing import Final

import streamlit as st

from client.jobs import JobClient
from client.stack import DEFAULT_NAME, Stack
from web.users import User, user_of

_KEPT_S: Final = 300  # parameters and outputs change with a deployment


@st.cache_resource(ttl=_KEPT_S, show_spinner=False)
def stack() -> Stack:
    """Return the stack: ``PBR_STACK``, at ``AWS_ENDPOINT_URL`` if that is set.

    Raises:
        StackUnavailableError: it does not exist or does not respond.
    """
    return Stack.connect(
        os.environ.get("PBR_STACK") or DEFAULT_NAME,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL"),
    )


@st.cache_resource(ttl=_KEPT_S, show_spinner=False)
def jobs() -> JobClient:
    """Return the client for uploads, which all sessions share: one scan finds the executions of all of them."""
    return JobClient(stack())


def user() -> User:
    """Return the user of the current session."""
    return user_of(st.context.headers, st.context.cookies)
