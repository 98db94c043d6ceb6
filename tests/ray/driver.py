"""A cluster of Ray of several node processes on this machine, with regard on it: a process that does as it is told.

It reads commands and writes answers, a JSON a line; see cluster.Cluster, which starts it. Ray's own processes end with
it.
"""

import json
import sys
import time
from typing import Any

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve._private.api import serve_start
from ray.serve.config import gRPCOptions
from ray.serve.schema import ServeDeploySchema


class Driver:
    """The cluster: a head, where the proxy is, and workers of one CPU and one GPU each, on which replicas are."""

    def __init__(self, workers: int) -> None:
        args = {"num_cpus": 0, "object_store_memory": 10**8, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=args)
        of_worker = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 10**8}  # GPUs that Ray counts; there are none
        self.workers = [self.cluster.add_node(**of_worker) for _ in range(workers)]
        ray.init(address=self.cluster.address, namespace="serve", log_to_driver=False, logging_level="ERROR")

    def deploy(self, config: dict[str, Any]) -> None:
        """Start Serve, and deploy a configuration as `serve run` does; see `wait`."""
        schema = ServeDeploySchema.model_validate(config)
        client = serve_start(
            http_options=schema.http_options.model_dump(),
            proxy_location=schema.proxy_location,
            grpc_options=gRPCOptions(**schema.grpc_options.model_dump()),
        )
        client.deploy_apps(schema, _blocking=False)

    def status(self, name: str) -> dict[str, Any]:
        """Say what there is of an application: its state, replicas by their states, and why."""
        application = serve.status().applications[name]
        deployment = application.deployments.get("regard")
        return {
            "status": str(application.status.value),
            "message": application.message + (deployment.message if deployment else ""),
            "replicas": dict(deployment.replica_states) if deployment else {},
        }

    def kill(self) -> None:
        """Kill all processes of one worker node that is not the last one added, at once."""
        self.cluster.remove_node(self.workers.pop(0), allow_graceful=False)

    def shutdown(self) -> None:
        """End everything."""
        serve.shutdown()
        ray.shutdown()
        self.cluster.shutdown()


def main() -> None:
    """Do as commands say until there are none."""
    driver = Driver(int(sys.argv[1]))
    _say({"ready": True})
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        began = time.monotonic()
        answer = getattr(driver, name)(*arguments)
        _say({"answer": answer, "seconds": time.monotonic() - began})
        if name == "shutdown":
            return


def _say(answer: dict[str, Any]) -> None:
    print("\n@" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
