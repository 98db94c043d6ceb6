"""The hosted workflow and .ci/run call the same targets of make, and these are there."""

import re
import shutil
import subprocess

import yaml

from tests.processes import ROOT

MAKE = shutil.which("make") or "make"
WORKFLOWS = ROOT / ".github" / "workflows"
HOSTED_ONLY = {"image", "test-containers", "audit"}  # need a Docker engine, or look for what others publish


def hosted() -> set[str]:
    """Targets that the workflows run."""
    jobs = [job for file in WORKFLOWS.glob("*.yml") for job in yaml.safe_load(file.read_text())["jobs"].values()]
    commands = "\n".join(step.get("run", "") for job in jobs for step in job["steps"])
    return set(re.findall(r"^make ([a-z-]+)(?: [A-Z_]+=\S+)*$", commands, re.MULTILINE))


def ours() -> set[str]:
    """Targets that .ci/run runs."""
    lists = re.findall(r"^ *[a-z]+_steps\+?=\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    return {target for targets in lists for target in targets.split()}


def test_the_workflow_runs_what_ci_runs() -> None:
    """A check that is added to one is added to the other."""
    assert ours()
    assert hosted() == ours() | HOSTED_ONLY


def test_every_target_that_is_run_is_in_the_makefile() -> None:
    """Make knows them, without running them."""
    for target in hosted():
        done = subprocess.run([MAKE, "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_python_that_is_declared_is_tried() -> None:
    """From requires-python to the newest that the classifiers name, if they name any."""
    job = yaml.safe_load((WORKFLOWS / "checks.yml").read_text())["jobs"]["test"]
    tried = job["strategy"]["matrix"]["python"]
    project = (ROOT / "pyproject.toml").read_text()
    declared = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert f'requires-python = ">={tried[0]}"' in project
    assert not declared or tried == declared
