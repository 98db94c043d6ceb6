"""Pins what regard is checked with: `make lock` makes constraints.txt and requirements-server.txt from pyproject.toml.

constraints.txt has every extra and group, without hashes: torch has other files for CPUs than for GPUs.
requirements-server.txt has what a server needs, with the hash of every file.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
_COMPILE = (
    *(sys.executable, "-m", "piptools", "compile", "--quiet", "--strip-extras", "--allow-unsafe", "--no-header"),
    *("--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links", "--no-annotate"),
)
_HEADER = "# Made by `make lock` from pyproject.toml; what is here stays until it no longer fits.\n"


def main() -> int:
    """Write both files; further arguments go to pip-compile, such as --upgrade-package NAME."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as groups:
        groups.write("\n".join(requirements_of_groups()))
        groups.flush()
        compile_to("constraints.txt", "--all-extras", groups.name, *sys.argv[1:])
    extras = ("--extra", "server", "--extra", "trace")
    compile_to("requirements-server.txt", *extras, "--generate-hashes", "--constraint", "constraints.txt")
    return 0


def requirements_of_groups() -> list[str]:
    """What development and documentation need; pip-compile does not read dependency groups."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    return [requirement for group in groups.values() for requirement in group]


def compile_to(name: str, *arguments: str) -> None:
    """Run pip-compile over pyproject.toml."""
    command = [*_COMPILE, "--output-file", name, "pyproject.toml", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603 -- our own
    path = ROOT / name
    path.write_text(_HEADER + path.read_text().removeprefix(_HEADER))


if __name__ == "__main__":
    sys.exit(main())
