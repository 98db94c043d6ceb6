"""Mosec: an HTTP front written in Rust, dynamic batches, bare bytes in and out."""
# mypy: ignore-errors

import sys

import common
from mosec import Server, Worker


class Embed(Worker):
    """Embeds batches."""

    def __init__(self):
        super().__init__()
        settings = common.Settings()
        self._kind = settings.kind
        self._embed = common.Embedder(settings)

    def deserialize(self, data):
        """Bare bytes to a row."""
        return common.read_row(data, self._kind)

    def serialize(self, data):
        """An embedding to bare bytes."""
        return data.tobytes()

    def forward(self, data):
        """A batch."""
        return list(self._embed(data))


def serve(settings):
    """Serve until killed."""
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(settings.port), "--log-level", "warning"]
    server = Server()
    num = settings.runs
    server.append_worker(Embed, num=num, max_batch_size=settings.max_batch, max_wait_time=common.MAX_DELAY_MS)
    server.run()


if __name__ == "__main__":
    common.main(serve)
