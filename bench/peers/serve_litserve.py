"""LitServe: FastAPI in front of a worker process, batches, bare bytes in and out."""
# mypy: ignore-errors

from typing import Annotated

import common
import litserve
from fastapi import Body, Response


class Embed(litserve.LitAPI):
    """Embeds batches."""

    def setup(self, device):
        """Load the graph, in the worker."""
        settings = common.Settings()
        self._kind = settings.kind
        self._embed = common.Embedder(settings)

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]):
        """Bare bytes to a row."""
        return common.read_row(request, self._kind)

    def batch(self, inputs):
        """Rows stay a list: the embedder pads."""
        return inputs

    def predict(self, x):
        """A batch."""
        return self._embed(x)

    def unbatch(self, output):
        """Embeddings one by one."""
        return list(output)

    def encode_response(self, output):
        """An embedding to bare bytes."""
        return Response(output.tobytes(), media_type="application/octet-stream")


def serve(settings):
    """Serve until killed."""
    api = Embed(max_batch_size=settings.max_batch, batch_timeout=common.MAX_DELAY_MS / 1e3)
    workers = settings.runs
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(host="127.0.0.1", port=settings.port, log_level="warning", access_log=False, generate_client_file=False)


if __name__ == "__main__":
    common.main(serve)
