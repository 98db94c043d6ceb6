"""BentoML: a batchable API; rows as base64 in JSON, for a batchable API takes a list and its server no bare bytes."""
# mypy: ignore-errors

import base64
import json
import os
from pathlib import Path

import bentoml
import common

SETTINGS = common.Settings()


@bentoml.service(
    workers=SETTINGS.runs,
    logging={"access": {"enabled": False}},
    traffic={"timeout": 60},
)
class Embed:
    """Embeds batches."""

    def __init__(self):
        self._embed = common.Embedder(SETTINGS)

    @bentoml.api(batchable=True, max_batch_size=SETTINGS.max_batch)
    def embed(self, rows: list[str]) -> list[str]:
        """A batch."""
        embeddings = self._embed([common.read_row(base64.b64decode(row), SETTINGS.kind) for row in rows])
        return [base64.b64encode(one.tobytes()).decode() for one in embeddings]


def serve(settings):
    """Become BentoML's own command, which serves until killed."""
    command = ["bentoml", "serve", "serve_bentoml:Embed", "--host", "127.0.0.1", "--port", str(settings.port)]
    os.chdir(Path(__file__).parent)
    os.execvp(command[0], command)  # noqa: S606 -- our own


def make_body(arrays):
    """A list of one row."""
    return json.dumps({"rows": [base64.b64encode(common.write_row(arrays)).decode()]}).encode()


def ask(url, body):
    """As JSON."""
    return common.post(url, body, "application/json")


def read(answer):
    """A list of one embedding."""
    return common.read_embedding(base64.b64decode(json.loads(answer)[0]))


if __name__ == "__main__":
    common.main(serve, make_body, ask, read)
