"""Templates as they are deployed: with the image of the functions."""

import hashlib
import re
import shutil
from pathlib import Path
from typing import Final

from samcli.yamlhelper import yaml_dump
from samtranslator.yaml_helper import yaml_parse

WRITTEN: Final = ".aws-sam/deploy"
_MACHINES: Final = "statemachine"
_NESTED: Final = re.compile(r"^ +Location: (infrastructure/[\w-]+\.yaml)$", re.MULTILINE)


def write(project: Path, image_uri: str) -> None:
    """Write the templates of the stack, nested ones included, whose functions run an image of the registry."""
    shutil.rmtree(project / WRITTEN, ignore_errors=True)
    for path in _templates(project):
        template = yaml_parse((project / path).read_text())
        for resource in template["Resources"].values():
            if resource.get("Properties", {}).get("PackageType") == "Image":
                resource["Properties"]["ImageUri"] = image_uri
        if path == "template.yaml":
            template.setdefault("Metadata", {})["Source"] = digest(project)
        written = project / WRITTEN / path
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(yaml_dump(template))
    shutil.copytree(project / _MACHINES, project / WRITTEN / _MACHINES)


def digest(project: Path) -> str:
    """Return a hash of the templates and state machines, which the metadata of a deployed template names."""
    found = hashlib.sha256()
    for path in [*_templates(project), *sorted(f"{_MACHINES}/{one.name}" for one in (project / _MACHINES).iterdir())]:
        found.update(f"{path}\n".encode() + (project / path).read_bytes())
    return found.hexdigest()


def _templates(project: Path) -> list[str]:
    return ["template.yaml", *_NESTED.findall((project / "template.yaml").read_text())]
