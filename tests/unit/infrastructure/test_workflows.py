"""Workflows of GitHub: what actionlint and zizmor in ``make lint`` do not check."""

import re
from typing import Any, Final

import pytest
import yaml

from tests.conftest import ROOT

WORKFLOWS: Final[dict[str, dict[str, Any]]] = {
    path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / ".github/workflows").glob("*.yml"))
}
ACTIONS: Final = sorted((ROOT / ".github").rglob("*.yml"))
DELIVER: Final = WORKFLOWS["deliver.yml"]
STEPS: Final[list[dict[str, Any]]] = WORKFLOWS["deploy.yml"]["jobs"]["deploy"]["steps"]


def position(text: str, steps: list[dict[str, Any]] = STEPS) -> int:
    """Return the number of the first step that contains a text."""
    return next(number for number, step in enumerate(steps) if text in str(step))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_jobs_have_a_time_limit_and_no_permissions_but_their_own(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {}
    for job in WORKFLOWS[name]["jobs"].values():
        assert "timeout-minutes" in job or "uses" in job


@pytest.mark.parametrize("path", ACTIONS, ids=[str(path.relative_to(ROOT)) for path in ACTIONS])
def test_no_workflow_has_stored_credentials(path: Any) -> None:
    assert set(re.findall(r"secrets\.(\w+)", path.read_text())) <= {"GITHUB_TOKEN"}
    assert not re.search(r"aws-(access-key-id|secret-access-key)", path.read_text())


@pytest.mark.parametrize("path", ACTIONS, ids=[str(path.relative_to(ROOT)) for path in ACTIONS])
def test_actions_of_others_are_pinned_by_commit(path: Any) -> None:
    for action in re.findall(r"uses: (\S+)", path.read_text()):
        assert action.startswith("$/") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action


def test_deliveries_never_overlap_and_none_is_cancelled() -> None:
    assert DELIVER["concurrency"] == {"group": "deliver", "cancel-in-progress": False}


def test_production_follows_staging_which_follows_the_build_which_follows_the_tests() -> None:
    needs = {name: job.get("needs") for name, job in DELIVER["jobs"].items()}
    assert needs == {
        "test": None,
        "build": "test",
        "attest": "build",
        "staging": ["build", "attest"],
        "production": ["build", "staging"],
    }
    assert DELIVER["jobs"]["production"]["with"]["environment"] == "production"
    for name in ("build", "staging", "production"):
        assert DELIVER["jobs"][name]["if"] == "${{ !cancelled() && !failure() }}"


@pytest.mark.parametrize("steps", [DELIVER["jobs"]["build"]["steps"], STEPS], ids=["build", "deploy"])
def test_no_code_of_a_commit_runs_before_it_is_known_to_be_of_main(steps: list[dict[str, Any]]) -> None:
    check = position("git merge-base --is-ancestor", steps)
    assert ["uses" in step for step in steps[:check]] == [True] and "ref" not in steps[0]["with"]
    assert check < position("make setup", steps) < position("role-to-assume", steps)


def test_images_are_built_for_the_stacks_that_are_deployed_and_no_others_are_deployed() -> None:
    jobs = DELIVER["jobs"]
    build = jobs["build"]["steps"][position("make images", jobs["build"]["steps"])]
    assert build["env"]["ENVS"] == " ".join(jobs[name]["with"]["stacks"] for name in ("staging", "production"))
    verified = STEPS[position("cosign verify-attestation")]["env"]["IMAGES"]
    deployed = STEPS[position("make deploy-all")]
    assert deployed["env"]["VERIFIED"] == verified == "${{ inputs.images }}"
    assert deployed["run"].startswith('echo "$VERIFIED" > "$LISTED"')


def test_images_are_attested_only_after_the_scan_and_verified_before_the_deployment() -> None:
    attesting = DELIVER["jobs"]["attest"]["steps"]
    scans = [number for number, step in enumerate(attesting) if "actions/scan" in step.get("uses", "")]
    assert [attesting[number]["if"] for number in scans] == ["matrix.flavor == 'gpu'", "matrix.flavor != 'gpu'"]
    assert max(scans) < position("cosign attest", attesting)
    assert position("cosign verify-attestation") < position("make deploy-all")
    [identity] = re.findall(r"--certificate-identity \"(\S+)\"", str(STEPS[position("cosign verify")]["run"]))
    assert identity.endswith("/.github/workflows/deliver.yml@refs/heads/main")


def test_images_of_a_delivery_by_hand_are_not_attested_anew() -> None:
    attesting = [name for name, job in DELIVER["jobs"].items() if "cosign attest" in str(job)]
    assert attesting == ["attest"]
    assert DELIVER["jobs"]["attest"]["if"] == "github.event_name == 'push'"
