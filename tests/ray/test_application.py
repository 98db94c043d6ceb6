"""What can be said of an application without a cluster."""

import asyncio
import logging
import math
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from server.errors import EngineFault
from server.transport.ray.settings import config_of
from tests.processes import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, when it is imported


def test_as_many_replicas_are_wanted_as_are_busy_for_seven_tenths() -> None:
    """Those that have not yet reported are taken for as busy; without any report nothing changes."""
    wanted = import_module("regard.ray").replicas_for_utilization
    context = SimpleNamespace(aggregated_metrics={"utilization": {"a": 2.0, "b": 1.5}}, current_num_replicas=4)
    assert wanted(context)[0] == pytest.approx(10)
    assert wanted(SimpleNamespace(aggregated_metrics=None, target_num_replicas=3)) == (3, {})


@pytest.mark.parametrize(("is_direct", "seconds"), [(True, 42.0), (False, 12.0)])
def test_a_replica_that_ends_has_time_for_its_calls_behind_that_for_proxies_to_leave_it_out(
    is_direct: bool, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty seconds, which are Ray's, where proxies call it directly, and then --drain-seconds."""
    on_ray = import_module("server.on_ray")
    monkeypatch.setattr(on_ray, "RAY_SERVE_ENABLE_DIRECT_INGRESS", is_direct)
    monkeypatch.setattr(on_ray, "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", 30.0)
    found = on_ray.application(import_module("regard.ray").Replica, {"allow_insecure": True, "drain_seconds": 12})
    assert found._bound_deployment._deployment_config.graceful_shutdown_timeout_s == seconds


@pytest.mark.parametrize("name", ["serve", "gpus"])
def test_the_files_to_deploy_are_what_ray_and_the_server_take(name: str) -> None:
    """As Ray's schema has it; and applications of a file fit one GPU together, if they name one at all."""
    schema = import_module("ray.serve.schema").ServeDeploySchema
    config = schema.model_validate(yaml.safe_load((ROOT / "deploy" / "ray" / f"{name}.yaml").read_text()))
    for application in config.applications:
        config_of(application.args)
    gpus = [one.deployments[0].ray_actor_options.num_gpus for one in config.applications]
    assert gpus == ([0.5, 0.5] if name == "gpus" else [None])


def test_the_server_is_on_the_path_of_processes_that_use_it_alone(tmp_path: Path) -> None:
    """Whoever imports regard.ray may have a module named server; Ray's processes get the replica by its name."""
    script = """if True:
        import sys
        before = list(sys.path)
        import regard.ray
        assert sys.path == before and sys.argv[1] not in before and "server" not in sys.modules
        from ray import cloudpickle
        pickled = cloudpickle.dumps(regard.ray.Replica)
        assert set(before) <= set(sys.path) and sys.argv[1] in sys.path
        assert b"regard.ray" in pickled and len(pickled) < 100
        assert cloudpickle.loads(pickled) is regard.ray.Replica
        assert not hasattr(regard.ray, "Other")
    """
    variables = os.environ | {"PYTHONPATH": str(ROOT / "client"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", script, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_direct", [False, True])
def test_rays_controller_is_told_of_changes_and_now_and_then(is_direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells every proxy each time; one that could not be reached is told again, and for HAProxy none is."""
    on_ray: Any = import_module("server.on_ray")
    told, now, fails = list[list[str]](), [100.0], [False]

    def record(info: Any) -> None:
        if fails[0]:
            raise RuntimeError("no controller")
        assert info.replica_id == "this one"
        told.append(info.multiplexed_model_ids)

    monkeypatch.setattr(on_ray, "RAY_SERVE_ENABLE_DIRECT_INGRESS", is_direct)
    monkeypatch.setattr(on_ray, "_get_global_client", lambda: SimpleNamespace(record_request_routing_info=record))
    monkeypatch.setattr(on_ray, "time", SimpleNamespace(monotonic=lambda: now[0]))
    replica = SimpleNamespace(_context=SimpleNamespace(replica_id="this one"), _told=[], _told_at=-math.inf)

    def tell(*names: str) -> int:
        before = len(told)
        on_ray.Replica._tell_loaded(replica, list(names))
        return len(told) - before

    counts = [tell(), tell("a"), tell("a"), tell("a", "b")]
    now[0] += 61
    counts.append(tell("a", "b"))
    fails[0] = True
    counts.append(tell("a"))
    fails[0] = False
    counts += [tell("a"), tell("a")]
    assert counts == ([0] * 8 if is_direct else [1, 1, 0, 1, 1, 0, 1, 0])


async def test_what_ends_a_server_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has started, nobody waits for it; the check of its health says that the log has it."""

    class Server:
        started = None

        async def __aenter__(self) -> "Server":
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def start(self, stop: asyncio.Event) -> bool:
            return True

        async def run(self, stop: asyncio.Event) -> None:
            raise RuntimeError("a wheel came off")

    on_ray: Any = import_module("server.on_ray")
    monkeypatch.setattr(on_ray, "announce", lambda how, started: None)
    replica = SimpleNamespace(_server=Server(), _stop=asyncio.Event(), _config=SimpleNamespace(log_format="text"))
    started = asyncio.get_running_loop().create_future()
    replica._living = asyncio.create_task(on_ray.Replica._live(replica, started))
    with caplog.at_level(logging.ERROR), pytest.raises(RuntimeError):
        await replica._living
    assert "a wheel came off" in caplog.text
    with pytest.raises(EngineFault, match="its log says why"):
        await on_ray.Replica.check_health(replica)
