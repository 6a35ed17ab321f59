import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from client.batch import Outcome
from client.commands.console import ERR, silenced
from client.commands.progress import open_files, print_json, print_summary, progress, result_summary
from client.errors import JobFailedError, JobFailure
from client.history import StageEvent
from client.outputs import SavedResult
from tests.conftest import ROOT


def sidecar(**facts: Any) -> dict[str, Any]:
    return {
        "image": {"format": "png", "width": 60, "height": 40, "bytes": 12_345},
        "model": {"name": "u2net", "host": "ecs"},
        "quality": {"score": 0.9, "review": False, "reasons": []},
        "cache": {"hit": False},
        "warnings": [],
        **facts,
    }


def test_result_summary() -> None:
    assert result_summary(sidecar(), verbose=False) == ["60 x 40", "quality 0.90"]
    assert result_summary(sidecar(escalation=None), verbose=True) == [
        "png 60 x 40",
        "12 kB",
        "u2net on ecs",
        "quality 0.90",
    ]
    assert result_summary(sidecar(cache={"hit": True}), verbose=False)[-1] == "from the cache"


@pytest.mark.parametrize(("kept", "said"), [("first", "not kept"), ("second", "kept")])
def test_result_summary_has_the_second_attempt(kept: str, said: str) -> None:
    facts = result_summary(sidecar(escalation={"model": "birefnet-general", "kept": kept}), verbose=True)
    assert facts[-1] == f"second attempt on birefnet-general {said}"


def done(**facts: Any) -> Outcome:
    saved = SavedResult(Path("out/a.jpg.png"), Path("out/a.jpg.png.json"), sidecar(**facts))
    return Outcome("a.jpg", "x/a.jpg", "6f3a", 2.11, saved)


def failed() -> Outcome:
    report = JobFailure("Validate", "EmptyImageError", "The file is empty", "source.bytes", 0, "Send another.", "key")
    return Outcome("b.jpg", "b.jpg", "7c21", 0.5, error=JobFailedError(report))


REVIEW = {"score": 0.2, "review": True, "reasons": ["similar_colors", "looks_differ"]}
STAGE = StageEvent("Validate", "finished", 0.1)


def test_one_line_per_image(capsys: pytest.CaptureFixture[str]) -> None:
    context, listener = progress()
    with context:
        listener.stage("a.jpg", STAGE)
        listener.ended(done())
        listener.ended(failed())
    assert capsys.readouterr().err.splitlines() == [
        "done    a.jpg -> out/a.jpg.png  60 x 40, quality 0.90, 2.1 s",
        "failed  b.jpg  Validate: The file is empty (source.bytes: 0). Send another.",
    ]


def test_a_request_for_review_and_warnings_follow_their_image(capsys: pytest.CaptureFixture[str]) -> None:
    progress()[1].ended(done(quality=REVIEW, warnings=["The ECS worker failed"]))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "        warning: manual review recommended: subject and background have similar colors; repeated predictions "
        "gave different subjects",
        "        warning: The ECS worker failed",
    ]


def test_verbose_prints_all_stages(capsys: pytest.CaptureFixture[str]) -> None:
    progress(verbose=True)[1].stage("a.jpg", STAGE)
    assert capsys.readouterr().err.split() == ["a.jpg", "Validate", "finished", "0.10", "s"]


def test_quiet_prints_only_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with silenced(quiet=True):
        listener = progress(quiet=True)[1]
        listener.ended(done(warnings=["The ECS worker failed"]))
        listener.ended(failed())
        print_summary([done(), failed()], 3.0)
    assert capsys.readouterr().err.splitlines() == [
        "failed  b.jpg  Validate: The file is empty (source.bytes: 0). Send another."
    ]
    assert not ERR.quiet


def test_summary_of_several_images(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary([done(), done(quality=REVIEW), failed()], 12.4)
    assert capsys.readouterr().err == "2 done, 1 to review, 1 failed, 12 s\n"
    print_summary([done()], 1.0)
    assert capsys.readouterr().err == ""


def test_json_has_one_line_per_image(capsys: pytest.CaptureFixture[str]) -> None:
    listener = progress(as_json=True)[1]
    listener.ended(done(quality=REVIEW, warnings=["w" * 500]))
    listener.ended(failed())
    output = capsys.readouterr()
    first, second = (json.loads(line) for line in output.out.splitlines())
    assert output.err == "" and first == {
        "input": "x/a.jpg",
        "status": "done",
        "result": "out/a.jpg.png",
        "sidecar": "out/a.jpg.png.json",
        "comparison": None,
        "seconds": 2.11,
        "execution": "6f3a",
        "cached": False,
        "quality": 0.2,
        "review": True,
        "reasons": ["similar_colors", "looks_differ"],
        "warnings": ["w" * 500],
        "error": None,
    }
    assert second.keys() == first.keys() and (second["status"], second["result"]) == ("failed", None)
    assert second["error"] == {
        "stage": "Validate",
        "error": "EmptyImageError",
        "message": "The file is empty",
        "field": "source.bytes",
        "value": 0,
        "remedy": "Send another.",
    }


def test_every_field_of_the_json_is_documented() -> None:
    page = (ROOT / "docs/reference/result.md").read_text().partition("## Command line")[2]
    for name in done().to_json():
        assert f"`{name}`" in page


def test_json_of_an_error_outside_the_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    error = FileNotFoundError(2, "No such file or directory", "c.jpg")
    print_json(Outcome("c.jpg", "c.jpg", error=error))
    found = json.loads(capsys.readouterr().out)["error"]
    assert (found["error"], found["message"], found["value"]) == (
        "FileNotFoundError",
        "No such file or directory",
        "c.jpg",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the viewer is xdg-open")
def test_the_viewer_opens_a_few_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    viewer = tmp_path / "xdg-open"
    viewer.write_text(f"#!/bin/sh\ntouch {tmp_path}/opened-$(basename $1)\n")
    viewer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    open_files([Path(f"{number}.png") for number in range(6)])
    assert "first 5 of 6" in capsys.readouterr().err
    deadline = time.monotonic() + 10
    while len(list(tmp_path.glob("opened-*"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(path.name for path in tmp_path.glob("opened-*")) == [f"opened-{number}.png" for number in range(5)]


@pytest.mark.skipif(sys.platform != "linux", reason="the viewer is xdg-open")
def test_a_missing_viewer_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    open_files([Path("a.png"), Path("b.png")])
    assert capsys.readouterr().err == "warning: No image viewer was found. Open a.png yourself.\n"
