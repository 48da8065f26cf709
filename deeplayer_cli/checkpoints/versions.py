"""The versions of the packages that deeplayer uses: what it requires, and what is known to clash."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE = "deeplayer"
_DEVELOPMENT = "dev"


@dataclass(frozen=True)
class Clash:
    """Versions of a package with which something does not work.

    Attributes:
        package: its name.
        versions: the version, as a specifier ``==VERSION``.
        reason: what does not work.
    """

    package: str
    versions: str
    reason: str


CLASHES = (Clash("sentencepiece", "==0.2.2", "it refuses the tokenizer of checkpoints with InternLM2"),)


def installed(package: str) -> str | None:
    """Return the version of an installed package; None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def version_problems() -> Iterator[str]:
    """Yield a sentence for each required package that is missing or too old, and for each clash."""
    for requirement in _requirements():
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        here = installed(requirement.name)
        if here is None:
            yield f"{requirement.name} is not installed"
        elif not requirement.specifier.contains(here, prereleases=True):
            yield f"{requirement.name} {here} is here, and {requirement.specifier} is needed"
    for clash in CLASHES:
        here = installed(clash.package)
        if here is not None and SpecifierSet(clash.versions).contains(here, prereleases=True):
            yield f"{clash.package} {here}: {clash.reason}; install another version than {clash.versions[2:]}"


def missing_extras() -> Mapping[str, list[str]]:
    """Return the packages of each extra that are not installed."""
    missing: dict[str, list[str]] = {}
    for requirement in _requirements():
        named = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker))
        if named and named[1] != _DEVELOPMENT and installed(requirement.name) is None:
            missing.setdefault(named[1], []).append(requirement.name)
    return missing


def _requirements() -> list[Requirement]:
    """Return what deeplayer requires; nothing if it runs from a folder without being installed."""
    try:
        return [Requirement(line) for line in requires(PACKAGE) or []]
    except PackageNotFoundError:
        return []
