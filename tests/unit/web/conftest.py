"""Keeps Streamlit's traces out of the other tests of a process."""

import sys

import pytest


@pytest.fixture(autouse=True)
def main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore ``__main__``: AppTest leaves its script there, and multiprocessing would run it in a spawned process."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
