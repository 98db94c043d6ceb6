"""`make release` in a repository of its own; the checks and the build, which take long, are only noted."""

import shutil
import subprocess
import tomllib
from datetime import date
from pathlib import Path

import pytest

from deploy.release import NotReleasable, release

GIT = shutil.which("git") or "git"
TODAY = date(2026, 11, 28)
PROJECT = '[tool.other]\nversion = "7"\n\n[project]\nname = "regard"\nversion = "0.1.0"\n\n[tool.more]\nversion = "8"\n'
CHANGELOG = "# Changelog\n\n## Unreleased\n\n### Added\n- A thing.\n\n## 0.0.9 - 2026-01-01\n\n- The first.\n"
MANIFEST = "containers:\n  - name: regard\n    image: regard-server:0.1.0\n  - image: envoyproxy/envoy:v1.35.0\n"
CHART = "apiVersion: v2\nname: regard\nversion: 0.1.0\nappVersion: 0.1.0\n"
FILES = {
    "pyproject.toml": PROJECT,
    "CHANGELOG.md": CHANGELOG,
    "deploy/base/regard.yaml": MANIFEST,
    "deploy/helm/Chart.yaml": CHART,
}


class Repository:
    """A checkout on main with all that a release touches, and the targets of make that were run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[str] = []
        self.git("init", "--quiet", "--initial-branch", "main")
        self.git("config", "user.name", "A Maintainer")
        self.git("config", "user.email", "maintainer@example.org")
        self.git("config", "commit.gpgsign", "false")
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            self.commit(name, text)

    def git(self, *arguments: str) -> str:
        done = subprocess.run([GIT, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)
        self.git("add", name)
        self.git("commit", "--quiet", "--message", f"{name} is written")

    def release(self, version: str) -> str:
        return release(self.root, version, TODAY, self.made.append)

    def is_untouched(self) -> bool:
        texts = {name: (self.root / name).read_text() for name in FILES}
        return texts == FILES and not self.git("status", "--porcelain") and not self.git("tag")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository that can be released."""
    return Repository(tmp_path)


def test_a_release_is_checked_built_committed_and_tagged(repository: Repository) -> None:
    """In this order; the tag is on the commit that has the version, and everything is committed."""
    assert repository.release("0.2.0") == "v0.2.0"
    assert repository.made == ["check", "proto-breaking", "dist"]
    assert repository.git("rev-parse", "v0.2.0^{commit}") == repository.git("rev-parse", "main")
    assert repository.git("log", "-1", "--format=%s") == "regard 0.2.0"
    assert repository.git("cat-file", "-t", "v0.2.0") == "tag"
    assert repository.git("status", "--porcelain") == ""


def test_the_version_is_written_where_the_project_has_it_and_nowhere_else(repository: Repository) -> None:
    """Other tables of pyproject.toml have versions, too."""
    repository.release("0.2.0")
    project = tomllib.loads((repository.root / "pyproject.toml").read_text())
    assert (project["project"]["version"], project["tool"]) == (
        "0.2.0",
        {"other": {"version": "7"}, "more": {"version": "8"}},
    )


def test_manifests_ask_for_the_images_of_the_version(repository: Repository) -> None:
    """Those of others keep their tags."""
    repository.release("0.2.0")
    manifest = (repository.root / "deploy" / "base" / "regard.yaml").read_text()
    assert manifest == MANIFEST.replace("regard-server:0.1.0", "regard-server:0.2.0")
    chart = (repository.root / "deploy" / "helm" / "Chart.yaml").read_text()
    assert chart == CHART.replace("0.1.0", "0.2.0")


def test_what_was_unreleased_stands_under_the_version(repository: Repository) -> None:
    """And the next changes have a section that is empty."""
    repository.release("0.2.0")
    assert (repository.root / "CHANGELOG.md").read_text() == CHANGELOG.replace(
        "## Unreleased\n", "## Unreleased\n\n## 0.2.0 - 2026-11-28\n"
    )


def test_the_version_of_the_project_can_be_released_once(repository: Repository) -> None:
    """The first release is the version that is there already."""
    assert repository.release("0.1.0") == "v0.1.0"
    repository.commit("CHANGELOG.md", CHANGELOG)
    with pytest.raises(NotReleasable, match=r"v0\.1\.0 is tagged already"):
        repository.release("0.1.0")


@pytest.mark.parametrize("version", ["", "1.0", "v1.0.0", "1.0.0rc1", "01.0.0", "1.0.0\n"])
def test_what_is_no_version_is_refused(repository: Repository, version: str) -> None:
    """Three numbers, as SemVer has them."""
    with pytest.raises(NotReleasable, match="expected three numbers"):
        repository.release(version)


def test_a_lower_version_is_refused(repository: Repository) -> None:
    """By its numbers: 0.0.10 is lower than 0.1.0."""
    with pytest.raises(NotReleasable, match=r"VERSION is 0\.0\.10; expected 0\.1\.0"):
        repository.release("0.0.10")


def test_work_that_is_not_committed_is_refused(repository: Repository) -> None:
    """A new file as well: it would be in the wheel and not in the tag."""
    (repository.root / "new.py").write_text("")
    with pytest.raises(NotReleasable, match=r"new\.py"):
        repository.release("0.2.0")
    assert repository.made == []


def test_another_branch_is_refused(repository: Repository) -> None:
    """Releases are made of main."""
    repository.git("checkout", "--quiet", "-b", "other")
    with pytest.raises(NotReleasable, match="the branch is other; expected main"):
        repository.release("0.2.0")


def test_nothing_new_is_refused(repository: Repository) -> None:
    """What stands under earlier versions does not count."""
    repository.commit("CHANGELOG.md", CHANGELOG.replace("### Added\n- A thing.\n\n", ""))
    with pytest.raises(NotReleasable, match="has nothing under '## Unreleased'"):
        repository.release("0.2.0")


@pytest.mark.parametrize("failing", ["check", "proto-breaking", "dist"])
def test_where_something_fails_the_checkout_is_as_it_was(repository: Repository, failing: str) -> None:
    """Nothing has to be taken back by hand."""

    def make(target: str) -> None:
        if target == failing:
            raise subprocess.CalledProcessError(2, ["make", target])

    with pytest.raises(subprocess.CalledProcessError):
        release(repository.root, "0.2.0", TODAY, make)
    assert repository.is_untouched()
