"""Users for Locust: every RPC of regard.v1 but management, in the shares of a mixed service.

`locust --locustfile deploy/load/locustfile.py --host HOST:PORT`, or `docker compose --profile load up`. A user asks for
what the server has: photographs where a model takes images, texts where one takes texts. REGARD_CA, REGARD_TOKEN and
REGARD_TOKEN_FILE are read as by the command line. Refusals of a full server count as failures, named by their code.
"""

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental.gevent
import numpy as np
from locust import User, constant_pacing, events, task
from PIL import Image

import regard
from regard.identity import read_identity

grpc.experimental.gevent.init_gevent()
TEXTS = (
    "A quiet film that stays with you.",
    "Two hours that I would like to have back.",
    "The cat sat on the mat. " * 8,
)


def make_photo() -> bytes:
    """A photograph's worth of noise over a slope, 256 pixels wide, as JPEG."""
    slope = np.linspace(0, 200, 256)[None, :, None] + np.random.default_rng(0).normal(0, 20, (256, 256, 3))
    file = io.BytesIO()
    Image.fromarray(slope.clip(0, 255).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


class Asking(User):
    """A user who asks once a second, whatever the answers take."""

    wait_time = constant_pacing(float(os.environ.get("PACING_SECONDS", "1")))

    def on_start(self) -> None:
        """Connect, and see what there is."""
        authority, token_file = (os.environ.get(name) for name in ("REGARD_CA", "REGARD_TOKEN_FILE"))
        identity = read_identity(
            Path(authority) if authority else None,
            token_file=Path(token_file) if token_file else None,
            environment=os.environ,
        )
        self.client = regard.Client(self.host, credentials=identity.credentials, token=identity.token)
        self.photo, self.asked = make_photo(), 0
        models = self.client.models()
        self.texts = [model for model in models if model.modality == "text"]
        self.images = [model for model in models if model.modality == "image"]

    def on_stop(self) -> None:
        """Hang up."""
        self.client.close()

    @task(10)
    def embed(self) -> None:
        """The vector of a text."""
        self._ask("Embed", [model for model in self.texts if model.can_embed], self.client.embed)

    @task(5)
    def classify(self) -> None:
        """The kind of an image."""
        self._ask("Classify", [model for model in self.images if model.can_classify], self.client.classify)

    @task(2)
    def look(self) -> None:
        """A vector, and the last layer's first row."""
        asked = regard.AttentionRequest(layers=(-1,), rows=(0,))
        models = [model for model in (*self.texts, *self.images) if model.attention_layers and model.can_embed]
        self._ask("Embed, with a row of attention", models, self.client.embed, attention=asked)

    @task(1)
    def attend(self) -> None:
        """Every layer, one a message."""
        models = [model for model in (*self.texts, *self.images) if model.attention_layers]
        self._ask("Attend", models, lambda **how: list(self.client.attend(**how)))

    @task(2)
    def predict(self) -> None:
        """Arrays of the caller's own."""
        if self.texts:
            ids = np.full((1, 16), 5)
            inputs = {spec.name: np.ones_like(ids) if "mask" in spec.name else ids for spec in self.texts[0].inputs}
            self._measure("Predict", lambda: self.client.predict(inputs, model=self.texts[0].name))

    @task(1)
    def describe(self) -> None:
        """What a model is."""
        self._measure("GetModel", lambda: self.client.model((*self.texts, *self.images)[0].name))

    @task(1)
    def list(self) -> None:
        """What is served."""
        self._measure("ListModels", self.client.models)

    def _ask(self, name: str, models: Sequence[regard.Model], call: Any, **how: Any) -> None:
        if not models:
            return
        self.asked += 1
        model = models[self.asked % len(models)]
        text = {"text": TEXTS[self.asked % len(TEXTS)], "truncate": True}
        given = text if model.modality == "text" else {"image": self.photo}
        self._measure(name, lambda: call(model=model.name, **given, **how))

    def _measure(self, name: str, call: Any) -> None:
        began, error = time.perf_counter(), None
        try:
            call()
        except regard.RegardError as raised:
            error = RuntimeError(f"{raised.code.name}: {raised.message[:80]}")
        milliseconds = (time.perf_counter() - began) * 1e3
        events.request.fire(
            request_type="gRPC", name=name, response_time=milliseconds, response_length=0, exception=error, context={}
        )
