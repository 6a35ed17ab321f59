"""Findings of checkov and their exemptions. ``make lint`` runs checkov itself."""

import pytest

from tests.findings import Exemption, Finding, compare, exempt_resources, findings_of

FINDINGS = {Finding("CKV_1", "Bucket"): "Ensure a lock", Finding("CKV_1", "Queue"): "Ensure a lock"}


@pytest.mark.parametrize("resources", [(), ("Bucket", "Queue")])
def test_exempt_findings_are_no_problem(resources):
    assert not list(compare(FINDINGS, [Exemption("CKV_1", "why", resources)]))


def test_a_finding_without_exemption_is_a_problem():
    [problem] = compare(FINDINGS, [Exemption("CKV_1", "why", ["Bucket"])])
    assert problem.startswith("CKV_1 Queue: Ensure a lock.")


@pytest.mark.parametrize(
    ("exemption", "named"),
    [(Exemption("CKV_1", "why", ["Table"]), "Table"), (Exemption("CKV_2", "why"), "any resource")],
)
def test_an_exemption_without_finding_is_a_problem(exemption, named):
    problems = compare(FINDINGS, [Exemption("CKV_1", "why"), exemption])
    assert list(problems) == [f"{exemption.check} does not fail for {named}. Remove it from findings.toml."]


def test_a_check_that_a_resource_skips_is_a_finding():
    failed, skipped = (
        {"check_id": "CKV_1", "resource": f"AWS::S3::Bucket.{name}", "check_name": "Ensure a lock"}
        for name in ("Bucket", "Queue")
    )
    assert findings_of({"passed_checks": [], "failed_checks": [failed], "skipped_checks": [skipped]}) == FINDINGS


def test_metadata_of_a_resource_exempts_nothing():
    ignoring = {"Metadata": {"cfn-lint": {"config": {"ignore_checks": ["W1"]}}}}
    template = {"Resources": {"Bucket": ignoring, "Queue": {"Metadata": {"SamResourceId": "Queue"}}, "Table": {}}}
    [problem] = exempt_resources({"a.yaml": template})
    assert problem.startswith("a.yaml: Bucket has exemptions.")


def test_an_exemption_has_a_reason():
    with pytest.raises(TypeError, match="reason"):
        Exemption(check="CKV_1")
