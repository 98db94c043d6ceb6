"""Makes a release: `make release VERSION=x.y.z` checks, writes version and changelog, builds, commits and tags."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
BRANCH, UNRELEASED = "main", "## Unreleased"


class NotReleasable(Exception):
    """The checkout cannot be released as it is; nothing was changed."""


def main() -> None:
    """Release the version that the command line names.

    Raises:
        SystemExit: It cannot be released, or a check failed.
    """
    today = datetime.now(UTC).date()
    try:
        tag = release(ROOT, sys.argv[1] if len(sys.argv) > 1 else "", today, lambda target: _run(ROOT, "make", target))
    except NotReleasable as error:
        sys.exit(f"not released: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"not released: {' '.join(error.cmd)} failed")
    print(f"{tag} is tagged, and dist/ has its files. Nothing was pushed: git push --atomic origin {BRANCH} {tag}")


def release(root: Path, version: str, today: date, make: Callable[[str], object]) -> str:
    """Release a version; where anything fails, the checkout is as it was.

    Args:
        root: The checkout.
        version: x.y.z, not lower than the one in pyproject.toml.
        today: For the changelog.
        make: Runs one of the Makefile's targets; raises where it fails.

    Returns:
        The tag.

    Raises:
        NotReleasable: Says what is in the way.
    """
    tag = f"v{version}"
    _check(root, version, tag)
    make("check")
    make("proto-breaking")
    project, changelog, manifests = root / "pyproject.toml", root / "CHANGELOG.md", (root / "deploy").rglob("*.yaml")
    before = {file: file.read_text() for file in (project, changelog, *manifests)}
    try:
        project.write_text(with_version(before[project], version))
        changelog.write_text(with_section(before[changelog], version, today))
        for file in before.keys() - {project, changelog}:
            file.write_text(with_tags(before[file], version))
        make("dist")
        _run(root, "git", "commit", "--quiet", "--all", "--message", f"regard {version}")
    except BaseException:
        for file, text in before.items():
            file.write_text(text)
        raise
    _run(root, "git", "tag", "--annotate", tag, "--message", f"regard {version}")
    return tag


def _check(root: Path, version: str, tag: str) -> None:
    """Refuse what would have to be taken back: a wrong version, branch, tag or changelog, or work not committed."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise NotReleasable(f"VERSION is {version!r}; expected three numbers, such as 0.2.0")
    current = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if _numbers(version) < _numbers(current):
        raise NotReleasable(f"VERSION is {version}; expected {current}, which pyproject.toml has, or a higher one")
    branch = _run(root, "git", "branch", "--show-current")
    if branch != BRANCH:
        raise NotReleasable(f"the branch is {branch or 'none'}; expected {BRANCH}")
    if changed := _run(root, "git", "status", "--porcelain"):
        raise NotReleasable(f"not everything is committed:\n{changed}")
    if _run(root, "git", "tag", "--list", tag):
        raise NotReleasable(f"{tag} is tagged already")
    if not _unreleased((root / "CHANGELOG.md").read_text()).strip():
        raise NotReleasable(f"CHANGELOG.md has nothing under '{UNRELEASED}'")


def with_version(project: str, version: str) -> str:
    """Return pyproject.toml's text with another version in [project]."""
    changed = re.sub(r'(?ms)^(\[project\]\n.*?^version = )"[^"]*"', rf'\g<1>"{version}"', project, count=1)
    if tomllib.loads(changed)["project"]["version"] != version:
        raise NotReleasable("pyproject.toml has no line 'version = \"...\"' in [project]")
    return changed


def with_section(changelog: str, version: str, today: date) -> str:
    """Return the changelog with what was unreleased under the version, and nothing unreleased."""
    return changelog.replace(f"{UNRELEASED}\n", f"{UNRELEASED}\n\n## {version} - {today.isoformat()}\n", 1)


def with_tags(manifest: str, version: str) -> str:
    """Return a manifest that asks for the version's images, or a chart that is of this version."""
    manifest = re.sub(r"(?m)^(.*\bimage: regard-[a-z-]+):\S+", rf"\g<1>:{version}", manifest)
    return re.sub(r"(?m)^((?:appV|v)ersion): .*", rf"\g<1>: {version}", manifest)


def _unreleased(changelog: str) -> str:
    _, _, after = changelog.partition(f"{UNRELEASED}\n")
    return re.split(r"(?m)^## ", after)[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _run(root: Path, *command: str) -> str:
    """Run a command; git's output is returned, make's is shown."""
    shown = None if command[0] == "make" else subprocess.PIPE
    done = subprocess.run(command, cwd=root, stdout=shown, text=True, check=True)  # noqa: S603 -- our own commands
    return (done.stdout or "").strip()


if __name__ == "__main__":
    main()
