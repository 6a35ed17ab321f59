import re

import yaml

from client.history import StageEvent
from tests.conftest import ROOT
from web import stages
from web.removals import Removal, State

DEFINITION = yaml.safe_load((ROOT / "statemachine/remove_background.asl.yaml").read_text())


def shown(image: Removal) -> list[tuple[str, str, str]]:
    return re.findall(r'<li class="(\w+)"><span>(.*?)</span><span>(.*?)</span>', stages.listed(image))


def running(*events: StageEvent) -> Removal:
    return Removal("cup.jpg", {}, state=State.RUNNING, stages=events)


def test_each_stage_has_words() -> None:
    states = DEFINITION["States"]
    assert set(stages.NAMES) == {name for name in states if states[name]["Type"] in ("Task", "Wait", "Parallel")}


def test_stages_have_a_time_when_they_end_and_the_main_ones_are_ahead() -> None:
    image = running(StageEvent("Validate", "finished", 0.25), StageEvent("SegmentOnEcs", "started", 0))
    assert shown(image) == [
        ("past", "Upload", ""),
        ("past", "Check the image", "0.2 s"),
        ("current", "Find the subject on ECS", ""),
        ("next", "Refine the edge", ""),
        ("next", "Write the result", ""),
    ]


def test_nothing_is_ahead_of_a_known_result() -> None:
    image = running(StageEvent("Validate", "finished", 0.1), StageEvent("ServeCached", "started", 0))
    assert [state for state, _, _ in shown(image)] == ["past", "past", "current"]


def test_names_are_text() -> None:
    image = Removal("<img src=x>.png", {}, stages=(StageEvent("<b>", "retried", 1),))
    assert "<img" not in stages.listed(image) and "<b>" not in stages.listed(image)
