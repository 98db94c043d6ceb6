"""Callers who hang up: half of a thousand requests are cancelled while they wait. A program of its own.

It prints how many of them the server had to cancel, and how many of these it computed all the same.
"""

import argparse
import asyncio
import json
import urllib.request

import grpc
from prometheus_client.parser import text_string_to_metric_families

from bench.workloads import TEXT, make_requests
from regard.v1.regard_pb2_grpc import RegardServiceStub

_REQUESTS = 1000


async def main() -> None:
    """Print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("metrics")
    args = parser.parse_args()
    request = make_requests(TEXT.model, TEXT.size, "none")[0]
    async with grpc.aio.insecure_channel(args.address) as channel:
        stub = RegardServiceStub(channel)
        calls = [stub.Predict(request) for _ in range(_REQUESTS)]
        while await asyncio.to_thread(read, args.metrics, "regard_scheduler_received_total") < _REQUESTS:
            pass  # the server is taking them in
        for call in calls[1::2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    cancelled = round(read(args.metrics, "regard_scheduler_outcomes_total", outcome="cancelled"))
    dropped = round(read(args.metrics, "regard_dropped_total", reason="cancelled"))
    print(json.dumps({"cancelled": cancelled, "computed": cancelled - dropped}))


def read(url: str, name: str, **labels: str) -> float:
    """Read one sample of the server's metrics, or the sum of all that the labels fit; 0 where there is none."""
    with urllib.request.urlopen(url) as page:  # noqa: S310 -- the server that was just started
        families = text_string_to_metric_families(page.read().decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


if __name__ == "__main__":
    asyncio.run(main())
