"""Show an error: what is wrong, where, and the remedy."""

from typing import Any

import streamlit as st

from client.errors import failure_of


def show(error: Exception) -> bool:
    """Show an expected error on the page.

    Returns:
        False for an unexpected one, which is not shown: Streamlit logs it, and shows its own message.
    """
    known = failure_of(error)
    if known is None:
        return False
    box(known.error, known.message, known.field, known.value, known.remedy)
    return True


def box(error: str, message: str, field: str | None, value: Any, remedy: str) -> None:
    """Show the facts of an error.

    Args:
        error: class name of the error.
        message: what is wrong.
        field: the input at fault; None if the error is not about an input.
        value: value of that input.
        remedy: what the reader can do.
    """
    st.error(f"**{literal(message)}**\n\n{literal(remedy)}", icon=":material/error:")
    where = f"{field}: {value}" if field else ""
    st.markdown(f":small[{' · '.join(literal(part) for part in (error, where) if part)}]")  # a caption is too faint


def literal(text: str) -> str:
    """Return Markdown that shows a text as it is, in one line: names and values come from uploads."""
    line = " ".join(text.split())
    return "".join(f"\\{char}" if char in r"\`*_{}[]()#+-.!|<>:$~&" else char for char in line)
