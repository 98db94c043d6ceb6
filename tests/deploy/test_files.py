"""What lies in deploy/ fits together; promtool, where it is there, checks the rules and runs their tests."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy import dashboard
from server.telemetry.metrics import Metrics
from tests.processes import ROOT

PROMETHEUS, KUBERNETES = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "kubernetes"
MAKE, PROMTOOL, KUBECTL = (shutil.which(command) or "" for command in ("make", "promtool", "kubectl"))
KUBERNETES_VERSION = "1.33"
OVERLAYS = ("base", "models", "gpu")


def rules() -> list[dict[str, Any]]:
    """All rules, recorded and alerts."""
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def names_in(query: str) -> set[str]:
    """Metrics that a query asks for."""
    return set(re.findall(r"\b(?:regard|process)_[a-z_]+\b|\bregard:[a-z0-9_:]+", query))


def known() -> set[str]:
    """Metrics that the server has, and those that are recorded."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    families = Metrics().registry.collect()
    return {f"{family.name}{ending}" for family in families for ending in endings[family.type]} | recorded


def test_the_committed_dashboard_is_the_one_that_is_written() -> None:
    """`python -m deploy.dashboard` was run after its last change."""
    assert json.loads(dashboard.FILE.read_text()) == dashboard.make_dashboard()


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    """A metric that was renamed would leave a chart empty and an alert silent."""
    asked = {name for query in (*(rule["expr"] for rule in rules()), *dashboard.queries()) for name in names_in(query)}
    assert asked
    assert asked - known() == set()


def test_every_alert_has_its_page_in_the_runbook() -> None:
    """And every page its alert."""
    alerts = [rule for rule in rules() if "alert" in rule]
    headings = re.findall(r"^## (Regard\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in alerts)
    for rule in alerts:
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_replicas_on_ray_are_scraped_as_the_rules_expect() -> None:
    """By the same job, with the same rules."""
    ours, other = (yaml.safe_load((PROMETHEUS / name).read_text()) for name in ("ray.yml", "prometheus.yml"))
    assert ours["rule_files"] == other["rule_files"]
    assert [one["job_name"] for one in ours["scrape_configs"]] == [one["job_name"] for one in other["scrape_configs"]]
    assert all("http_sd_configs" in one for one in ours["scrape_configs"])


@pytest.mark.skipif(not PROMTOOL, reason="no promtool (Debian: prometheus)")
def test_promtool_accepts_configuration_and_rules() -> None:
    """With the rules' own tests: each alert fires when it should."""
    done = subprocess.run([MAKE, "rules-check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def manifests() -> list[tuple[Path, dict[str, Any]]]:
    """Every manifest for Kubernetes."""
    files = sorted(KUBERNETES.rglob("*.yaml"))
    return [(file, one) for file in files for one in yaml.safe_load_all(file.read_text()) if one]


def test_manifests_fit_the_schemas_of_kubernetes() -> None:
    """All kinds that Kubernetes has itself; kustomizations have a schema of their own."""
    whole = [one for file, one in manifests() if file.name not in ("kustomization.yaml", "patch.yaml")]
    assert len(whole) == 6
    for manifest in whole:
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_does_not_lie_within_what_it_builds_on(overlay: str) -> None:
    """Which kustomize refuses as a cycle."""
    folder = (KUBERNETES / overlay).resolve()
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    for resource in [(folder / one).resolve() for one in resources]:
        assert resource.exists()
        assert not folder.is_relative_to(resource)


@pytest.mark.skipif(not KUBECTL, reason="no kubectl")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_builds_each_overlay(overlay: str) -> None:
    """What would be applied fits the schemas, too."""
    done = subprocess.run([KUBECTL, "kustomize", KUBERNETES / overlay], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    for manifest in built.values():
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    pod = built["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert ("/models" in mounted, "PersistentVolumeClaim" in built) == (overlay != "base", overlay != "base")
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay == "gpu")


def test_pods_are_as_closed_as_the_compose_file() -> None:
    """No root, nothing to write but /tmp, no capabilities; probes and limits are there."""
    (deployment,) = (one for file, one in manifests() if one["kind"] == "Deployment" and file.name != "patch.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert container["resources"]["limits"]["memory"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("server", "explore", "replica"):
        assert (services[name]["read_only"], services[name]["cap_drop"]) == (True, ["ALL"])
    assert all(service.get("restart") == "unless-stopped" for name, service in services.items() if name != "load")


def test_images_are_pinned() -> None:
    """Nothing runs as latest but what is built here."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    pulled = [service["image"] for service in services.values() if "build" not in service]
    assert len(pulled) == 3
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in pulled)
