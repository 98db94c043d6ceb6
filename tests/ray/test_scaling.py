"""Several replicas on several nodes: a model is replaced, load rises and falls, a node dies, and no call fails."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ray.cluster import Cluster, running_cluster
from tests.ray.load import loading
from tests.server.api.open_inference.messages import make_request
from tests.server.api.open_inference.test_reload import publish

ONE = make_request("plus", x=np.zeros((1, 2), np.float32))
SINGLE = make_request("fashion", pixel_values=np.zeros((1, 1, 28, 28), np.float32))
MANY = make_request("fashion", pixel_values=np.zeros((32, 1, 28, 28), np.float32))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Start a head, where the proxy is, and three nodes of one CPU."""
    with running_cluster(3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that adds the number of its version, with one version."""
    folder = tmp_path_factory.mktemp("models") / "plus"
    folder.mkdir()
    publish(folder, 1)
    return folder


async def test_a_model_is_replaced_on_all_replicas_and_no_call_fails(cluster: Cluster, folder: Path) -> None:
    """By user_config: a version that cannot be loaded replaces nothing, nor does a name that is none."""
    options: dict[str, Any] = {"arguments": {"models": str(folder.parent)}, "num_replicas": 3}
    cluster.deploy(**options, user_config={"revision": 1})
    cluster.until(replicas=3)
    async with loading(cluster.address, ONE) as load:
        await load.more(100)
        publish(folder, 2, broken=True)
        await asyncio.to_thread(cluster.deploy, **options, user_config={"revision": 2})
        await asyncio.to_thread(cluster.until, replicas=3)
        await load.more(100)
        await asyncio.to_thread(cluster.deploy, **options, user_config={"models": ["pluss"]})
        await asyncio.to_thread(cluster.until, replicas=3)
        await load.more(100)
        assert set(load.answers) == {1.0}
        publish(folder, 3)
        await asyncio.to_thread(cluster.deploy, **options, user_config={"revision": 3})
        await load.until(lambda: len(load.answers) > 300 and set(load.answers[-300:]) == {3.0})
        await asyncio.to_thread(cluster.until, replicas=3)
    assert (load.failures, set(load.answers)) == ([], {1.0, 3.0})


async def test_replicas_are_added_while_work_waits_and_taken_away_when_none_does(cluster: Cluster) -> None:
    """By what replicas say of seconds that wait; a single caller goes on while two of three end."""
    scaling = {"max_replicas": 3, "upscale_delay_s": 0, "downscale_delay_s": 5}
    cluster.deploy(autoscaling_config=scaling)
    cluster.until(replicas=1)
    async with loading(cluster.address, MANY, callers=32) as load:
        await asyncio.to_thread(cluster.until, replicas=3)
        await load.more(100)
    async with loading(cluster.address, SINGLE, callers=1) as lighter:
        await asyncio.to_thread(cluster.until, replicas=1)
        await lighter.more(100)
    assert (load.failures, lighter.failures) == ([], [])


async def test_a_node_dies_and_no_call_fails(cluster: Cluster, folder: Path, record_property: Any) -> None:
    """Under load of 16 callers, who repeat what was on its way; how long throughput takes to be back is recorded."""
    cluster.deploy(arguments={"models": str(folder.parent)}, num_replicas=3, user_config={})
    cluster.until(replicas=3)
    loop = asyncio.get_running_loop()
    async with loading(cluster.address, ONE) as load:
        await load.more(500)
        began = loop.time()
        await load.until(lambda: loop.time() - began >= 4.0)
        before = load.rate(began, loop.time())
        died = loop.time()
        await asyncio.to_thread(cluster.tell, "kill")
        await asyncio.to_thread(cluster.until_running, 2)  # until Ray has noticed, load goes on
        await load.until(lambda: load.back(died, 0.9 * before, loop.time()) is not None)
        await load.more(500)
        seconds = load.back(died, 0.9 * before, loop.time())
    record_property("seconds_to_90_percent", seconds)
    print(f"{before:.0f} answers a second before; 90 % of that {seconds:.1f} s after a node had died")
    assert load.failures == []
