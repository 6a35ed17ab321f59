"""Components of the page for what Streamlit does not have."""

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__).parent


@cache
def component(name: str) -> Any:
    """Return the component whose script and style are ``name.js`` and ``name.css`` in this directory."""
    script, style = (_HERE / f"{name}.{kind}" for kind in ("js", "css"))
    return st.components.v2.component(f"pbr.{name}", js=script.read_text(), css=style.read_text())
