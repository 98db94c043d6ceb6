"""Ray Serve: an HTTP proxy in front of a replica, serve.batch, bare bytes in and out."""
# mypy: ignore-errors

import asyncio

import common
import ray
from ray import serve as ray_serve
from starlette.requests import Request
from starlette.responses import Response


@ray_serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
class Embed:
    """Embeds batches."""

    def __init__(self):
        settings = common.Settings()
        self._kind = settings.kind
        self._embed = common.Embedder(settings)
        self.embed.set_max_batch_size(settings.max_batch)

    @ray_serve.batch(max_batch_size=32, batch_wait_timeout_s=common.MAX_DELAY_MS / 1e3)
    async def embed(self, rows):
        """A batch, in a thread so that the next one gathers meanwhile."""
        return list(await asyncio.to_thread(self._embed, rows))

    async def __call__(self, request: Request) -> Response:
        """Bare bytes to bare bytes."""
        embedding = await self.embed(common.read_row(await request.body(), self._kind))
        return Response(embedding.tobytes(), media_type="application/octet-stream")


def serve(settings):
    """Serve until killed."""
    ray.init(num_cpus=settings.threads, include_dashboard=False)
    ray_serve.start(
        http_options={"host": "127.0.0.1", "port": settings.port}, logging_config={"enable_access_log": False}
    )
    replicas = settings.runs
    ray_serve.run(Embed.options(num_replicas=replicas).bind(), blocking=True)


if __name__ == "__main__":
    common.main(serve)
