"""The exporter needs nothing but what its extra installs: images and machines may have that alone."""

import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys

from packaging.requirements import Requirement

import export

# grpcio, transformers and httpx import these where they are, and do without where they are not.
TRIED = {"grpcio-health-checking", "grpcio-reflection", "grpcio-tools", "psutil", "colorama"}
TRIED |= {"brotli", "h2", "hpack", "hyperframe", "sniffio"}


def import_all() -> set[str]:
    """Import every module of the exporter; returns the files of all that was loaded with them."""
    for module in pkgutil.walk_packages(export.__path__, "export."):
        importlib.import_module(module.name)
    return {str(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}


def test_its_extra_holds_what_it_imports() -> None:
    """Of all distributions here, those that it loads something of are required by regard[export]."""
    code = "from tests.export.test_requirements import import_all; print(*import_all(), sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    files = set(loaded.splitlines())
    needed = {
        normalised(distribution.name)
        for distribution in importlib.metadata.distributions()
        if any(str(distribution.locate_file(file)) in files for file in distribution.files or ())
    }
    assert {"torch", "onnx", "numpy", "googleapis-common-protos"} <= needed
    assert needed - required_by("regard", "export") - TRIED == set()


def required_by(name: str, *extras: str) -> set[str]:
    """A distribution, and what it requires, and so on."""
    found, waiting = set[tuple[str, tuple[str, ...]]](), [(normalised(name), extras)]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        try:
            lines = importlib.metadata.requires(one[0]) or []
        except importlib.metadata.PackageNotFoundError:  # for other systems, or left out by a constraint
            continue
        for requirement in map(Requirement, lines):
            environments = [{"extra": extra} for extra in ("", *one[1])]
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                waiting.append((normalised(requirement.name), tuple(sorted(requirement.extras))))
    return {name for name, _ in found}


def normalised(name: str) -> str:
    """A name as package indexes compare it (PEP 503)."""
    return name.lower().replace("_", "-").replace(".", "-")
