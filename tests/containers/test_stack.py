"""Images that are really built and a stack that really runs: `make test-containers`, where a Docker engine is there.

Images from registries are pulled by compose as usual; what is there already under the same tag is taken. Where a build
needs other options to reach a package index, DOCKER_BUILD_OPTIONS holds them.
"""

import json
import os
import shlex
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import regard
from deploy import dashboard
from regard.v1 import regard_pb2 as api
from regard.v1.regard_pb2_grpc import RegardServiceStub
from tests.faults.callers import Callers, wait_until
from tests.processes import ROOT

pytestmark = pytest.mark.containers
DOCKER = shutil.which("docker") or ""
MOST_MEGABYTES = 600
SERVER, BALANCED, METRICS, PROMETHEUS, PAGE = (
    "127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:9090", "127.0.0.1:9091", "127.0.0.1:8080",
)  # fmt: skip


def run(*arguments: str, check: bool = True) -> str:
    """Run docker."""
    done = subprocess.run([DOCKER, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, (
        f"docker {' '.join(arguments)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    )
    return done.stdout


@pytest.fixture(scope="module")
def images() -> Iterator[None]:
    """The images of the compose file, built."""
    if not DOCKER or subprocess.run([DOCKER, "version"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers")
    for target in ("server", "explore", "load"):
        build(target)
    yield


def build(target: str) -> None:
    """Build an image."""
    options = shlex.split(os.environ.get("DOCKER_BUILD_OPTIONS", ""))
    run("build", *options, "--target", target, "--tag", f"regard-{target}", ".")


@pytest.fixture
def stack(images: None) -> Iterator[Callable[..., None]]:
    """Starts services of the compose file; everything is taken down at the end."""

    def up(*services: str, profile: str = "") -> None:
        profiles = ["--profile", profile] if profile else []
        run("compose", *profiles, "up", "--detach", "--wait", "--no-build", *services)

    yield up
    run("compose", "--profile", "replicas", "--profile", "load", "down", "--volumes", "--timeout", "60")


def fetch(url: str) -> str:
    """A page's text."""
    with urllib.request.urlopen(f"http://{url}", timeout=10) as page:
        return str(page.read().decode())


def ask_prometheus(query: str) -> list[dict[str, Any]]:
    """Samples of a query that are numbers."""
    answer = json.loads(fetch(f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
    assert answer["status"] == "success", answer
    return [sample for sample in answer["data"]["result"] if sample["value"][1] != "NaN"]


def test_the_serving_image_is_small_and_has_no_compiler_or_torch(images: None) -> None:
    """And does not run as root."""
    described = json.loads(run("image", "inspect", "regard-server"))[0]
    print(f"regard-server: {described['Size'] / 1e6:.0f} MB")
    assert described["Size"] < MOST_MEGABYTES * 1e6
    assert described["Config"]["User"] == "10001"
    look = "import importlib.util, shutil; print([n for n in ('torch', 'onnx', 'transformers', 'pip')"
    look += " if importlib.util.find_spec(n)], [c for c in ('gcc', 'cc', 'make') if shutil.which(c)])"
    assert run("run", "--rm", "--entrypoint", "python", "regard-server", "-c", look).strip() == "[] []"


def test_what_the_exporters_image_makes_is_served(
    stack: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported by the user who asks, on a read-only root; read by the server's user."""
    build("export")
    tmp_path.chmod(0o755)
    user = f"{os.getuid()}:{os.getgid()}"
    command = ["run", "--rm", "--read-only", "--tmpfs=/tmp", "--user", user, "--volume", f"{tmp_path}:/models"]
    run(*command, "regard-export", "fashion", "--name", "clothes", "--out", "/models")
    monkeypatch.setenv("MODELS", str(tmp_path))
    stack("server")
    with regard.Client(SERVER) as client:
        assert [model.name for model in client.models()] == ["clothes"]


def test_the_cuda_image_refuses_to_start_where_there_is_no_gpu(images: None) -> None:
    """It does not fall back in silence; the libraries of CUDA and cuDNN are there."""
    build("server-cuda")
    command = [DOCKER, "run", "--rm", "--env", "REGARD_ALLOW_INSECURE=true", "regard-server-cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--device: cuda: no NVIDIA driver" in done.stderr
    look = "import onnxruntime; onnxruntime.preload_dlls(); maps = open('/proc/self/maps').read(); "
    look += "print([n for n in ('cublas', 'cudart', 'cudnn', 'cufft') if f'/lib{n}.so' not in maps])"
    assert run("run", "--rm", "--entrypoint", "python", "regard-server-cuda", "-c", look).strip() == "[]"


def test_the_stack_answers_is_scraped_and_every_query_of_the_dashboard_has_data(stack: Callable[..., None]) -> None:
    """Server, page and Prometheus, asked from outside; the container cannot write but in /tmp."""
    stack("server", "explore", "prometheus")
    write = [DOCKER, "compose", "exec", "--no-TTY", "server", "python", "-c", "import sys; open(sys.argv[1], 'w')"]
    for path, allowed in (("/tmp/x", True), ("/app/x", False), ("/opt/regard/x", False)):  # noqa: S108 -- its own
        done = subprocess.run([*write, path], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == allowed, done.stderr
        assert allowed or "Read-only file system" in done.stderr
    inspected = json.loads(run("inspect", run("compose", "ps", "--quiet", "server").strip()))[0]
    assert inspected["State"]["Health"]["Status"] == "healthy"
    assert "regard" in fetch(f"{PAGE}/")
    assert json.loads(fetch(f"{PAGE}/api/models"))
    ended = threading.Event()

    def ask() -> None:
        with regard.Client(SERVER) as client:
            attention = regard.AttentionRequest(layers=(-1,), rows=(0,))
            while not ended.is_set():
                client.classify(image=ROOT / "examples" / "clothing" / "sneaker.png", attention=attention)
                client.classify(image=ROOT / "examples" / "clothing" / "bag.png")

    callers = [threading.Thread(target=ask) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        assert "regard_requests_total" in fetch(f"{METRICS}/metrics")
        quiet = {query for query in dashboard.queries() if "regard_refused_total" in query}
        waiting = [query for query in dashboard.queries() if query not in quiet]
        wait_until(lambda: not [query for query in waiting if not ask_prometheus(query)], seconds=150)
        for query in quiet:
            ask_prometheus(query)  # nobody is refused here: no data, and no error
    finally:
        ended.set()
        for caller in callers:
            caller.join()
    rules = json.loads(fetch(f"{PROMETHEUS}/api/v1/rules"))["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
    assert not [rule for group in rules for rule in group["rules"] if rule.get("state") == "firing"]


def test_stopped_under_load_it_fails_no_accepted_request(stack: Callable[..., None]) -> None:
    """SIGTERM to PID 1: it drains and ends by itself, with code 0, within its time."""
    stack("server")
    outcomes = Counter[str]()

    def ask() -> None:
        with regard.Client(SERVER) as client:
            while not outcomes["stopped"]:
                try:
                    client.classify(image=ROOT / "examples" / "clothing" / "sneaker.png")
                    outcomes["OK"] += 1
                except regard.RegardError as error:
                    outcomes[error.code.name] += 1
                    outcomes["stopped"] = 1

    callers = [threading.Thread(target=ask) for _ in range(6)]
    for caller in callers:
        caller.start()
    wait_until(lambda: outcomes["OK"] > 50)
    container = run("compose", "ps", "--quiet", "server").strip()
    began = time.monotonic()
    run("compose", "stop", "server")
    took = time.monotonic() - began
    for caller in callers:
        caller.join()
    assert json.loads(run("inspect", container))[0]["State"]["ExitCode"] == 0
    assert took < 30
    assert outcomes.keys() <= {"OK", "UNAVAILABLE", "stopped"}


def classify(stub: RegardServiceStub) -> None:
    """What a caller asks of the embedded model."""
    image = (ROOT / "examples" / "clothing" / "sneaker.png").read_bytes()
    stub.Classify(api.ClassifyRequest(image=image), timeout=60)


def test_a_replica_that_is_killed_is_not_missed(stack: Callable[..., None]) -> None:
    """Two behind Envoy, calls spread over both; one is killed under load, and every call is answered."""
    stack("envoy", profile="replicas")
    callers = Callers(BALANCED, 4, "{}", classify)
    wait_until(lambda: callers.codes["OK"] > 100)
    replicas = run("compose", "--profile", "replicas", "ps", "--quiet", "replica").split()
    look = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/metrics').read().decode())"
    counts = [run("exec", one, "python", "-c", look) for one in replicas]
    assert len(replicas) == 2
    assert all('regard_requests_total{code="OK",method="Classify"' in text for text in counts)
    answered = callers.codes["OK"]
    run("kill", "--signal", "KILL", replicas[0])
    wait_until(lambda: callers.codes["OK"] > answered + 200)
    assert set(callers.end()) == {"OK"}, callers.messages


def test_the_load_test_writes_its_report(stack: Callable[..., None], tmp_path: Path) -> None:
    """Users of every RPC, for ten seconds; who runs them is not root."""
    stack("server")
    profile = ("compose", "--profile", "load")
    run(*profile, "run", "--name", "regard-load-test", "--no-deps", "load", "--headless", "--host=server:8001",
        "--users=5", "--spawn-rate=5", "--run-time=10s", "--html=/reports/report.html", "--only-summary")  # fmt: skip
    try:
        run("cp", "regard-load-test:/reports/report.html", str(tmp_path))
        assert json.loads(run("inspect", "regard-load-test"))[0]["Config"]["User"] == "10001"
    finally:
        run("rm", "--force", "regard-load-test")
    assert "Classify" in (tmp_path / "report.html").read_text()
