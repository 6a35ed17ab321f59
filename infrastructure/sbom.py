"""Write the software bill of materials of each image in CycloneDX's format: ``make sbom``.

A bill lists what the project puts into the image: base image, Python packages and weights. Scanners of images find the
Debian packages of the base image.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from core.segmentation.registry import BUNDLED, MODELS
from infrastructure.licenses import IMAGES, Licenses, Package, locked

_LICENSES: Final = LicenseFactory()


def bill(lock: str, project: Path) -> Bom:
    """Return the bill of the image that installs a lock file, e.g. ``runtime``."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    image = Component(
        type=ComponentType.CONTAINER,
        name=f"{about['name']}:{IMAGES[lock]}",
        version=about["version"],
        licenses=[_LICENSES.make_from_string(about["license"])],
    )
    licenses = Licenses(project / "requirements/licenses.toml")
    packages = locked(project / f"requirements/{lock}.lock")
    parts = [_base(project / "Dockerfile"), *(_library(one, licenses.of(one)) for one in packages)]
    if lock != "web":
        parts.append(_weights())
    bom = Bom(components=parts)
    bom.metadata.component = image
    bom.register_dependency(image, parts)
    return bom


def _library(package: Package, license_expression: str) -> Component:
    archives = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(f"https://pypi.org/project/{package.name}/{package.version}/#files"),
        comment="The archive that is installed has one of these hashes.",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one) for one in package.sha256],
    )
    url = PackageURL("pypi", None, package.name, package.version)
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=url,
        bom_ref=str(url),
        licenses=[_LICENSES.make_from_string(license_expression)],
        external_references=[archives],
    )


def _base(dockerfile: Path) -> Component:
    [base] = re.findall(r"^FROM (\S+/(\w+)):(\S+)@sha256:(\w+)", dockerfile.read_text(), re.MULTILINE)
    repository, name, tag, sha256 = base
    url = PackageURL("oci", None, name, f"sha256:{sha256}", {"repository_url": repository, "tag": tag})
    return Component(
        type=ComponentType.CONTAINER,
        name=repository,
        version=tag,
        purl=url,
        bom_ref=str(url),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )


def _weights() -> Component:
    model = MODELS[BUNDLED]
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model.file,
        bom_ref=model.file,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model.sha256)],
        licenses=[_LICENSES.make_from_string(model.licence)],
    )


def main(project: Path) -> None:
    """Write and validate the bills of all images in ``out/sbom``."""
    for lock, flavor in IMAGES.items():
        text = JsonV1Dot6(bill(lock, project)).output_as_string(indent=2)
        if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
            sys.exit(f"The bill of {flavor} is not valid CycloneDX: {error}")
        path = project / f"out/sbom/{flavor}.cdx.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        print(path)


if __name__ == "__main__":
    main(Path())
