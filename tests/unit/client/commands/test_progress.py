from typing import Any

import pytest

from client.commands.progress import result_summary


def sidecar(**facts: Any) -> dict[str, Any]:
    return {
        "image": {"format": "png", "width": 60, "height": 40, "bytes": 12_345},
        "model": {"name": "u2net", "host": "ecs"},
        "quality": {"score": 0.9},
        "cache": {"hit": False},
        **facts,
    }


def test_result_summary() -> None:
    assert result_summary(sidecar(escalation=None)) == ["png 60 x 40", "12 kB", "u2net on ecs", "quality 0.90"]
    assert result_summary(sidecar(cache={"hit": True}))[-1] == "from the cache"


@pytest.mark.parametrize(("kept", "said"), [("first", "not kept"), ("second", "kept")])
def test_result_summary_has_the_second_attempt(kept: str, said: str) -> None:
    facts = result_summary(sidecar(escalation={"model": "birefnet-general", "kept": kept}))
    assert facts[-1] == f"second attempt on birefnet-general {said}"
