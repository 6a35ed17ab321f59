"""The licenses of all locked packages, and which are allowed: ``python -m infrastructure.licenses``, in ``make lint``.

``requirements/licenses.toml`` says which licenses are allowed, and why a package may have another.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

from license_expression import ExpressionError, get_spdx_licensing
from packaging.requirements import Requirement

IMAGES: Final = {"runtime": "cpu", "gpu": "gpu", "web": "web"}
"""Lock files of images, and the target of the Dockerfile that installs them."""

_IMAGE: Final = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.12.0",
    "python_version": "3.12",
    "sys_platform": "linux",
}
"""Where the packages of images are installed: the base image of the Dockerfile."""


class LicenseError(Exception):
    """The license of a package is unknown; the message has the remedy."""


@dataclass(frozen=True)
class Package:
    """A pinned package.

    Attributes:
        name: as in the lock file.
        version: its version.
        sha256: hashes of the archives that may be installed.
    """

    name: str
    version: str
    sha256: tuple[str, ...]


def locked(lock: Path) -> Iterator[Package]:
    """Yield the packages of a lock file that are installed in its image; those of ``dev.lock``, on this machine."""
    environment = dict(_IMAGE) if lock.stem in IMAGES else None
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pinned, *hashes = re.split(r"\s+--hash=sha256:", line.strip())
        requirement = Requirement(pinned)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield Package(requirement.name, str(requirement.specifier).removeprefix("=="), tuple(hashes))


@dataclass(frozen=True)
class Rule:
    """A package whose license needs a reason.

    Attributes:
        name: of the package, or a pattern of names such as ``nvidia-*``.
        license: SPDX expression.
        reason: why it may be used.
    """

    name: str
    license: str
    reason: str

    def concerns(self, package: Package) -> bool:
        """Return whether this is a rule for the package."""
        return fnmatchcase(package.name, self.name)


class Licenses:
    """The rules of a ``licenses.toml``."""

    def __init__(self, path: Path) -> None:
        rules = tomllib.loads(path.read_text())
        self._allowed = set(rules["allowed"])
        self._names: dict[str, str] = rules["names"]
        self._packages = [Rule(**rule) for rule in rules["packages"]]

    def of(self, package: Package) -> str:
        """Return the SPDX expression of a package's license: that of the rules, or else of its installed metadata.

        The installed version may differ from the image's, because lock files have other versions for other Pythons.

        Raises:
            LicenseError: the package is not installed, or its metadata have no known license.
        """
        if rule := self._rule(package):
            return rule.license
        try:
            installed = metadata.metadata(package.name)
        except metadata.PackageNotFoundError:
            raise LicenseError("is not installed. Run make setup, or add it to requirements/licenses.toml.") from None
        said = [*installed.get_all("License-Expression", ()), *installed.get_all("License", ())]
        classifiers = [text for text in installed.get_all("Classifier", ()) if text.startswith("License ::")]
        known = [self._names[text] for text in classifiers if text in self._names]
        for text in (*said, " AND ".join(known)):
            expression: str = self._names.get(text, text)
            if self._is_known(expression):
                return expression
        raise LicenseError(f"has no known license: {said + classifiers}. Add it to requirements/licenses.toml.")

    def refusal(self, package: Package) -> str:
        """Return why a package may not be used; empty if it may."""
        try:
            licenses = _keys(self.of(package))
        except LicenseError as error:
            return str(error)
        if self._rule(package) or not (other := licenses - self._allowed):
            return ""
        return f"has the license {', '.join(sorted(other))}. Use another package, or add a reason to licenses.toml."

    def unused(self, packages: set[Package]) -> list[str]:
        """Return the names of rules that concern no package."""
        return [rule.name for rule in self._packages if not any(rule.concerns(one) for one in packages)]

    def _rule(self, package: Package) -> Rule | None:
        return next((rule for rule in self._packages if rule.concerns(package)), None)

    def _is_known(self, expression: str) -> bool:
        try:
            keys = _keys(expression)
        except ExpressionError:
            return False
        return bool(keys) and all(key in _licensing().known_symbols or key in self._allowed for key in keys)


_licensing: Final = cache(get_spdx_licensing)  # takes a second


def _keys(expression: str) -> set[str]:
    """Return the licenses and exceptions in an SPDX expression."""
    return set(_licensing().license_keys(_licensing().parse(expression)))


def problems(folder: Path) -> list[str]:
    """Return what is wrong with the licenses of the lock files in a folder with a ``licenses.toml``."""
    rules = Licenses(folder / "licenses.toml")
    packages = {package for name in (*IMAGES, "dev") for package in locked(folder / f"{name}.lock")}
    refused = [f"{one.name} {one.version} {why}" for one in packages if (why := rules.refusal(one))]
    return sorted(refused) + [f"{name}: no package has this name. Remove it." for name in rules.unused(packages)]


if __name__ == "__main__":
    if found := problems(Path("requirements")):
        sys.exit("\n".join(found))
