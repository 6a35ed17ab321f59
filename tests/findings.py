"""Lint the templates and the Dockerfile with checkov and cfn-lint, and their exemptions: part of ``make lint``.

checkov does not evaluate conditions: ``Fn::If`` counts as a value. It therefore gets the resources as CloudFormation
creates them, with the roles and permissions that SAM generates, and with the parameters that harden a stack.
A finding without an exemption is a problem, and so is an exemption without a finding. Exemptions for checkov are in
tests/findings.toml, those for cfn-lint in the metadata of the templates. Metadata of resources exempt nothing.
"""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from tests.conftest import ROOT
from tests.unit.template.test_template import (
    ASYNC,
    FARGATE,
    MODELS,
    OPEN,
    OWN_GPU,
    PRIVATE,
    PROTECTED,
    REALTIME,
    REPLICATED_WITH_KEY,
    TEMPLATE,
    Stack,
    translated,
)

ACCEPTED: Final = ROOT / "tests/findings.toml"
TEMPLATES: Final = (TEMPLATE, *sorted((ROOT / "infrastructure").glob("*.yaml")))

HARDENED: Final = {
    **PROTECTED,
    **REPLICATED_WITH_KEY,
    "FunctionConcurrency": "20",
    "PermissionsBoundaryArn": "arn:aws:iam::123456789012:policy/boundary",
}
STACKS: Final = (
    {**HARDENED, **FARGATE, **REALTIME, **MODELS[1], **OPEN, "BulkSourceBuckets": "archive"},
    {**HARDENED, **OWN_GPU, **ASYNC, **PRIVATE},
)
"""Parameters that together create nearly all resources."""

REGIONS: Final = ("eu-west-1", "us-east-1")
FRAMEWORKS: Final = ("cloudformation", "dockerfile")


class Finding(NamedTuple):
    """A check of checkov that fails for a resource, given by its logical ID."""

    check: str
    resource: str


class Exemption(NamedTuple):
    """A check that may fail for some resources; without a list, for all."""

    check: str
    reason: str
    resources: Sequence[str] = ()


def main() -> int:
    """Print each problem; return 1 if there is one."""
    findings = _checkov()
    accepted = [Exemption(**given) for given in tomllib.loads(ACCEPTED.read_text())["accepted"]]
    templates = {str(path.relative_to(ROOT)): translated(path) for path in TEMPLATES}
    problems = [*compare(findings, accepted), *exempt_resources(templates), *_cfn_lint(templates)]
    print(*problems, f"checkov: {len(findings)} findings, {len(accepted)} exemptions", sep="\n")
    return int(bool(problems))


def compare(findings: Mapping[Finding, str], accepted: Iterable[Exemption]) -> Iterator[str]:
    """Yield the findings, given with their description, that are not accepted, and the exemptions without a finding."""
    unexplained = dict(findings)
    for check, _, resources in accepted:
        failing = {finding.resource for finding in findings if finding.check == check}
        for resource in resources or failing or ["any resource"]:
            if resource not in failing:
                yield f"{check} does not fail for {resource}. Remove it from {ACCEPTED.name}."
            unexplained.pop(Finding(check, resource), None)
    for (check, resource), description in sorted(unexplained.items()):
        yield f"{check} {resource}: {description}. Fix it, or accept it with a reason in {ACCEPTED.name}."


def findings_of(results: Mapping[str, Any]) -> dict[Finding, str]:
    """Return the description of each finding in results of checkov. Checks that a resource skips are findings, too."""
    return {
        Finding(check["check_id"], check["resource"].rstrip(".").rpartition(".")[2]): check["check_name"]
        for check in (*results["failed_checks"], *results["skipped_checks"])
    }


def exempt_resources(templates: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the resources of templates, given by their path, that have exemptions for cfn-lint."""
    for place, template in templates.items():
        for name, resource in template["Resources"].items():
            if "cfn-lint" in resource.get("Metadata", {}):
                yield f"{place}: {name} has exemptions. Use ignore_checks of the template, with a reason."


def _checkov() -> dict[Finding, str]:
    """Return the description of each finding."""
    with TemporaryDirectory() as folder:
        files = ["Dockerfile"]
        for name, resources in _created().items():
            files.append(f"{folder}/{name}.json")
            Path(files[-1]).write_text(json.dumps({"Resources": resources}))
        command = ["checkov/bin/checkov", "--skip-download", "--framework", *FRAMEWORKS, "--output", "json", "--file"]
        reports = {report["check_type"]: report["results"] for report in _output(*command, *files)}
    unread = [file for results in reports.values() for file in results["parsing_errors"]]
    if unread or reports.keys() != set(FRAMEWORKS):
        raise SystemExit(f"checkov has results for {sorted(reports)}, and cannot read {unread}.")
    return {finding: name for results in reports.values() for finding, name in findings_of(results).items()}


def _created() -> dict[str, dict[str, Any]]:
    """Return the resources of STACKS by a name, and those that none of these creates, as the templates declare them."""
    created = {f"stack-{number}": Stack(parameters).resources for number, parameters in enumerate(STACKS)}
    names = set().union(*created.values())
    for path in TEMPLATES:
        resources = translated(path)["Resources"]
        created[path.stem] = {name: resources[name] for name in resources.keys() - names}
    return {name: resources for name, resources in created.items() if resources}


def _cfn_lint(templates: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the findings that no template ignores, and the checks that a template ignores without need."""
    ignored = {
        (place, check)
        for place, template in templates.items()
        for check in template.get("Metadata", {}).get("cfn-lint", {}).get("config", {}).get("ignore_checks", [])
    }
    mandatory = ["--mandatory-checks", *{check for _, check in ignored}] if ignored else []
    command = ["bin/cfn-lint", "--include-checks", "I", *mandatory, "--regions", *REGIONS, "--format", "json", "--"]
    needed = set()
    for problem in _output(*command, *templates):
        place, check = problem["Filename"], problem["Rule"]["Id"]
        needed.add((place, check))
        if (place, check) not in ignored:
            yield f"{place}:{problem['Location']['Start']['LineNumber']}: {check} {problem['Message']}"
    for place, check in sorted(ignored - needed):
        yield f"{place}: {check} does not fail. Remove it from ignore_checks."


def _output(program: str, *arguments: str) -> Any:
    """Return what a program of the virtual environment prints as JSON."""
    run = subprocess.run(
        [str(Path(sys.prefix, program)), *arguments],
        env={**os.environ, "CKV_SKIP_PACKAGE_UPDATE_CHECK": "true"},  # checkov asks the package index otherwise
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    try:
        return json.loads(run.stdout)
    except ValueError:
        raise SystemExit(f"{program} failed with status {run.returncode}:\n{run.stdout}{run.stderr}") from None


if __name__ == "__main__":
    sys.exit(main())
