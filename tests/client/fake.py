"""A regard server with canned answers and made-up attention on a free port: the client's tests talk to real gRPC."""

import io
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regard.v1 import regard_pb2 as rpc
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceServicer, add_RegardServiceServicer_to_server

WIDTH, HEIGHT = 90, 40
NUM_LAYERS, NUM_HEADS = 12, 3
GRID = pb.PatchGrid(
    prefix_tokens=1,
    rows=2,
    cols=3,
    patch_size=16,
    image_width=WIDTH,
    image_height=HEIGHT,
    box=pb.Box(left=15, top=0, right=75, bottom=40),
)
WORDS = ["[CLS]", "cats", "sit", "##ting", "[SEP]"]
RELEVANCE_OF_TEXT = (0.25, -1.5, 0.5, 2.0, -0.125)
OF_TOKENS = np.array([[0, 4, -1, 0.5, 0.25]] * 4, np.float32) + np.arange(4, dtype=np.float32)[:, np.newaxis]
PAIRS = np.random.default_rng(5).standard_normal((5, 5)).astype(np.float32)
RELEVANCE_OF_IMAGE = (0.5, 1.0, -2.0, 0.25, 0.0, 0.75, 3.0)
VERSIONS = [
    rpc.VersionState(model="words", version="1", state="READY"),
    rpc.VersionState(model="words", version="2", state="UNAVAILABLE", reason="weights.bin: changed or damaged"),
]
TIMINGS = pb.Timings(decode_ns=1, queue_ns=2, compute_ns=3, encode_ns=4, batch_size=5)
_ROLLOUT, _ENTROPY, _DISTANCE = (
    pb.ATTENTION_MEASURE_ROLLOUT,
    pb.ATTENTION_MEASURE_ENTROPY,
    pb.ATTENTION_MEASURE_DISTANCE,
)
_REDUCTIONS: dict[int, Any] = {
    pb.HEAD_REDUCTION_MEAN: np.mean,
    pb.HEAD_REDUCTION_MAX: np.max,
    pb.HEAD_REDUCTION_MIN: np.min,
}

Trailers = tuple[tuple[str, str], ...]
Refusal = tuple[grpc.StatusCode, str, Trailers]


def free_address() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def float_tensor(array: NDArray[Any], dtype: int = pb.DATA_TYPE_FLOAT32) -> pb.Tensor:
    """Write weights as float32 (float16 if asked) the way a server does."""
    half = dtype == pb.DATA_TYPE_FLOAT16
    return pb.Tensor(
        dtype=pb.DATA_TYPE_FLOAT16 if half else pb.DATA_TYPE_FLOAT32,
        shape=array.shape,
        data=array.astype("<f2" if half else "<f4").tobytes(),
    )


def weights(num_queries: int, num_keys: int) -> NDArray[np.float32]:
    """Return attention [NUM_HEADS, Q, K], all different, whose rows sum to 1."""
    raw = 1 + np.arange(NUM_HEADS * num_queries * num_keys, dtype=np.float32).reshape(NUM_HEADS, num_queries, num_keys)
    shares: NDArray[np.float32] = raw / raw.sum(-1, keepdims=True)
    return shares


def photo_bytes(orientation: int = 1) -> bytes:
    """Return a PNG that is 90 x 40 pixels once its EXIF orientation is applied."""
    turned = orientation in (5, 6, 7, 8)
    image = Image.new("RGB", (HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT), (128, 128, 128))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    return file.getvalue()


def models() -> list[pb.Model]:
    """Return what this server claims to serve, sorted by name."""
    layers = [
        pb.AttentionLayer(layer=number, kind=pb.ATTENTION_KIND_SELF, num_heads=NUM_HEADS)
        for number in range(NUM_LAYERS)
    ]
    grid = pb.PatchGrid(prefix_tokens=1, rows=2, cols=3, patch_size=16)
    pixels = pb.TensorSpec(
        name="pixel_values", dtype=pb.DATA_TYPE_FLOAT32, shape=[-1, 3, 32, 48], axes=["batch", "", "", ""]
    )
    image = {
        "version": "1",
        "modality": pb.MODALITY_IMAGE,
        "attention_layers": layers,
        "patches": grid,
        "device": "CPU",
        "max_inputs": 3,
    }
    methods = [pb.RELEVANCE_METHOD_UNSPECIFIED, pb.RELEVANCE_METHOD_GENATT]
    explained = image | {"can_explain": True, "can_explain_layers": True, "relevance_methods": methods}
    text = {
        "max_inputs": 3,
        "version": "2",
        "modality": pb.MODALITY_TEXT,
        "attention_layers": layers,
        "max_tokens": 256,
    }
    text |= {"hidden_state_layers": [pb.HiddenStateLayer(layer=layer, dim=2) for layer in range(3)]}
    text |= {"matryoshka_dims": [2]}
    text |= {"prompts": {"query": "query: "}, "default_prompt": "query", "similarity": "cosine"}
    text |= {"takes_pairs": True, "can_rank": True, "activation": "sigmoid"}
    labels = ["cat", "[dog]", "bird"]
    return [
        pb.Model(name="fashion", family="vit", can_classify=True, labels=labels, can_embed=True, **image),  # type: ignore[arg-type]
        pb.Model(name="minilm", family="bert", can_embed=True, embedding_dim=4, embedding_normalized=True, **text),  # type: ignore[arg-type]
        pb.Model(name="photos", family="vit", can_classify=True, labels=labels, inputs=[pixels], **explained),  # type: ignore[arg-type]
        pb.Model(name="tensors", version="1", family="bert", device="CUDA:0"),
        pb.Model(
            name="late",
            version="1",
            can_embed=True,
            can_rank=True,
            token_vector_dim=4,
            query_tokens=8,
            document_tokens=9,
            max_inputs=3,
        ),
        pb.Model(name="words", family="bert", can_embed=True, embedding_dim=5, embedding_sparse=True, **text),  # type: ignore[arg-type]
    ]


def towers() -> pb.Model:
    """Return a model of two towers, which are like two of the others."""
    parts = {model.modality: model for model in models() if model.name in ("minilm", "fashion")}
    both = pb.Towers(
        text=parts[pb.MODALITY_TEXT],
        image=parts[pb.MODALITY_IMAGE],
        logit_scale=10,
        logit_bias=-1,
        activation="sigmoid",
        label_template="a photo of a {}.",
        can_align=True,
    )
    for part in (both.text, both.image):
        part.name, part.can_classify, part.can_embed = "pair", False, True
        del part.labels[:]
    return pb.Model(
        name="pair",
        version="1",
        family="clip",
        modality=pb.MODALITY_TEXT_OR_IMAGE,
        can_embed=True,
        embedding_dim=4,
        max_tokens=77,
        towers=both,
    )


def writer() -> pb.Model:
    """Return a model that writes."""
    how = pb.Generation(
        num_layers=3,
        num_heads=NUM_HEADS,
        max_tokens=64,
        starts=["plain"],
        default_start="plain",
        num_beams=1,
        length_penalty=0.5,
        vocab_size=50,
        can_explain=True,
    )
    return pb.Model(name="g2p", version="1", family="regard", modality=pb.MODALITY_TEXT, max_tokens=32, generation=how)


class FakeServer(RegardServiceServicer):
    """Records requests and gives canned answers, an error, or, while held, none.

    Attributes:
        address: Where it listens.
        requests: All received, in order.
        error: Status and message to answer instead.
        held: While set, answers wait for `released`.
        trailers: What goes with an error.
        judge: Says by a request which error, with trailers, to answer instead; None for none.
        has_towers: Whether it serves a model of two towers besides.
        has_writer: Whether it serves a model that writes besides.
        breaks_off: Whether a text that is streamed ends without its last message.
        arrived: Set once a request has come.
    """

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[Any] = []
        self.error: tuple[grpc.StatusCode, str] | None = None
        self.held = False
        self.arrived = threading.Event()
        self.released = threading.Event()
        self.truncated = False
        self.has_towers = self.has_writer = self.breaks_off = False
        self.trailers: Trailers = ()
        self.judge: Callable[[Any, grpc.ServicerContext], Refusal | None] = lambda request, context: None

    def Predict(self, request: rpc.PredictRequest, context: grpc.ServicerContext) -> rpc.PredictResponse:  # noqa: N802
        """Send every input back as an output."""
        self._receive(request, context)
        attention = None
        if request.HasField("attention"):
            layer = pb.LayerAttention(layer=0, kind=pb.ATTENTION_KIND_CROSS, axes=["batch", "head", "query", "key"])
            layer.weights.CopyFrom(float_tensor(weights(2, 5)[np.newaxis]))
            attention = pb.Attention(layers=[layer])
        return rpc.PredictResponse(
            model="tensors",
            version="1",
            outputs=request.inputs,
            attention=attention,
            timings=TIMINGS,
            hidden_states=_hidden_states(request),
        )

    def Compare(self, request: rpc.CompareRequest, context: grpc.ServicerContext) -> rpc.CompareResponse:  # noqa: N802
        """Say 1.5."""
        self._receive(request, context)
        answer = rpc.CompareResponse(model="pairs", version="1", similarity=1.5, timings=TIMINGS)
        if not request.HasField("relevance"):
            return answer
        why = answer.relevance
        for side, given in ((why.first, request.first), (why.second, request.second)):
            wanted = pb.RelevanceRequest(drop_special=request.relevance.drop_special)
            side.CopyFrom(_explained(wanted, of_image=given.WhichOneof("input") == "image"))
            side.ClearField("label")
        if request.relevance.pairs:
            why.pairs.CopyFrom(float_tensor(PAIRS))
            why.unpaired, why.error, why.relative_error = 0.25, 2e-7, 4.2e-8
        return answer

    def Classify(self, request: rpc.ClassifyRequest, context: grpc.ServicerContext) -> rpc.ClassifyResponse:  # noqa: N802
        """Say cat."""
        self._receive(request, context)
        labels = [
            rpc.Label(index=0, name="cat", probability=0.75),
            rpc.Label(index=1, name="[dog]", probability=0.25),
        ][: request.top_k]
        for label in labels if request.candidate_labels else ():
            label.name = request.candidate_labels[label.index]
        if count := max(len(request.texts.items), len(request.images.items), len(request.pairs.items)):
            each = [
                rpc.ClassifyResult(
                    labels=labels,
                    truncated=self.truncated,
                    attention=_attention(request),
                    hidden_states=_hidden_states(request),
                    relevance=_relevance(request),
                    relevances=_relevances(request),
                )
                for _ in range(count)
            ]
            return rpc.ClassifyResponse(model=request.model or "photos", version="1", results=each, timings=TIMINGS)
        return rpc.ClassifyResponse(
            model=request.model or "photos",
            version="1",
            labels=labels,
            truncated=self.truncated,
            attention=_attention(request),
            timings=TIMINGS,
            hidden_states=_hidden_states(request),
            relevance=_relevance(request),
            relevances=_relevances(request),
        )

    def Embed(self, request: rpc.EmbedRequest, context: grpc.ServicerContext) -> rpc.EmbedResponse:  # noqa: N802
        """Turn the text's first letter into a direction."""
        self._receive(request, context)
        if request.WhichOneof("input") == "texts":
            each = [_embed_one(request, number, text) for number, text in enumerate(request.texts.items)]
            return rpc.EmbedResponse(model=request.model or "minilm", version="2", results=each, timings=TIMINGS)
        vector = np.eye(4)[ord(request.text[0]) % 4 if request.text else 0]
        return rpc.EmbedResponse(
            model=request.model or "minilm",
            version="2",
            **_vector(request, vector),
            truncated=self.truncated,
            attention=_attention(request),
            timings=TIMINGS,
            hidden_states=_hidden_states(request),
        )

    def Rank(self, request: rpc.RankRequest, context: grpc.ServicerContext) -> rpc.RankResponse:  # noqa: N802
        """Score a document by the place of its first letter in the alphabet; nothing for one that is "bad"."""
        self._receive(request, context)
        scores = {number: ord(text[0]) / 128 for number, text in enumerate(request.documents.items) if text != "bad"}
        order = sorted(scores, key=lambda number: -scores[number])[: request.top_k or None]
        ranked = [
            rpc.RankedDocument(
                index=number, score=scores[number], truncated=self.truncated, attention=_attention(request)
            )
            for number in order
        ]
        ranked += [
            rpc.RankedDocument(index=number, error=pb.InputError(code=3, message=f"documents[{number}]: bad"))
            for number, text in enumerate(request.documents.items)
            if text == "bad"
        ]
        answer = rpc.RankResponse(model=request.model or "minilm", version="2", documents=ranked, timings=TIMINGS)
        if request.token_matches:
            answer.query_tokens.CopyFrom(_tokens(WORDS[1:3]))
            for one in answer.documents:
                matches = rpc.TokenMatches(found=[1, 0], similarities=[0.5, 0.25], document_tokens=_tokens(WORDS[2:4]))
                one.token_matches.CopyFrom(matches)
        return answer

    def Align(self, request: rpc.AlignRequest, context: grpc.ServicerContext) -> rpc.AlignResponse:  # noqa: N802
        """Let every word answer to the patch of its place."""
        self._receive(request, context)
        similarities = np.eye(len(WORDS), 6) / 2 - 0.25
        tokens = [
            pb.Token(id=place, text=word, special=word.startswith("["), start=0, end=0)
            for place, word in enumerate(WORDS)
        ]
        found = pb.SimilarityMap(
            tokens=pb.TokenSequence(tokens=tokens),
            patches=GRID,
            similarities=float_tensor(similarities),
            text_similarities=float_tensor(similarities[2]),
            similarity=0.125,
        )
        return rpc.AlignResponse(
            model=request.model or "pair", version="1", map=found, truncated=self.truncated, timings=TIMINGS
        )

    def Attend(  # noqa: N802
        self, request: rpc.AttendRequest, context: grpc.ServicerContext
    ) -> Iterator[rpc.AttendResponse]:
        """Send an image's or a pair's layers as Classify does; else two in eight bits, the second with its largest."""
        self._receive(request, context)
        if request.WhichOneof("input") in ("image", "pair"):
            whole = _attention(request) or pb.Attention()
            layers = list(whole.layers)
            for each in layers:
                del whole.layers[:]
                whole.layers.append(each)
                yield rpc.AttendResponse(attention=whole)
            return
        layer = pb.LayerAttention(layer=0, axes=["head", "query", "key"], heads=[0], queries=[0], scale=0.5)
        layer.weights.CopyFrom(pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[1, 1, 2], data=b"\x00\x02"))
        tokens = pb.TokenSequence(tokens=[pb.Token(id=7, text="a")])
        yield rpc.AttendResponse(attention=pb.Attention(layers=[layer], tokens=tokens), truncated=self.truncated)
        layer.layer, layer.axes[2] = 1, "top"
        layer.indices.CopyFrom(pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=[1, 1, 2], data=b"\x01\0\0\0\0\0\0\0"))
        yield rpc.AttendResponse(attention=pb.Attention(layers=[layer]))

    def Generate(  # noqa: N802
        self, request: rpc.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[rpc.GenerateResponse]:
        """Write three phonemes and the end; once two are sent, the rest waits while answers are held."""
        self._note(request, context)
        start, end = _generation_start(request, truncated=self.truncated), _generation_end(request)
        if self.error is not None:
            context.abort(*self.error)
        yield rpc.GenerateResponse(start=start)
        if request.num_beams <= 1:
            for number, token in enumerate(end.results[0].tokens):
                if self.held and number == 2:
                    self.released.wait()
                yield rpc.GenerateResponse(token=token)
            del end.results[0].tokens[:]
        if not self.breaks_off:
            yield rpc.GenerateResponse(end=end)

    def GenerateText(  # noqa: N802
        self, request: rpc.GenerateRequest, context: grpc.ServicerContext
    ) -> rpc.GenerateTextResponse:
        """Likewise, at once."""
        self._receive(request, context)
        return rpc.GenerateTextResponse(
            start=_generation_start(request, truncated=self.truncated), end=_generation_end(request)
        )

    def ListModels(self, request: rpc.ListModelsRequest, context: grpc.ServicerContext) -> rpc.ListModelsResponse:  # noqa: N802
        """List the canned models."""
        self._receive(request, context)
        return rpc.ListModelsResponse(models=self._models(), versions=VERSIONS)

    def GetModel(self, request: rpc.GetModelRequest, context: grpc.ServicerContext) -> rpc.GetModelResponse:  # noqa: N802
        """Describe one of them."""
        self._receive(request, context)
        served = {model.name: model for model in self._models()}
        if request.model not in served:
            context.abort(grpc.StatusCode.NOT_FOUND, f"model: {request.model!r} is not served")
        return rpc.GetModelResponse(model=served[request.model])

    def LoadModel(self, request: rpc.LoadModelRequest, context: grpc.ServicerContext) -> rpc.LoadModelResponse:  # noqa: N802
        """Answer with the model of that name."""
        self._receive(request, context)
        return rpc.LoadModelResponse(model=next(model for model in models() if model.name == request.model))

    def UnloadModel(  # noqa: N802
        self, request: rpc.UnloadModelRequest, context: grpc.ServicerContext
    ) -> rpc.UnloadModelResponse:
        """Answer."""
        self._receive(request, context)
        return rpc.UnloadModelResponse()

    def _models(self) -> list[pb.Model]:
        return [*models(), *([towers()] if self.has_towers else []), *([writer()] if self.has_writer else [])]

    def _note(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.arrived.set()

    def _receive(self, request: Any, context: grpc.ServicerContext) -> None:
        self._note(request, context)
        if self.held:
            self.released.wait()
        if self.error is not None:
            context.set_trailing_metadata(self.trailers)
            context.abort(*self.error)
        if refusal := self.judge(request, context):
            context.set_trailing_metadata(refusal[2])
            context.abort(*refusal[:2])


@contextmanager
def serving() -> Iterator[FakeServer]:
    """Run a fake server for the length of a with block."""
    fake = FakeServer()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    add_RegardServiceServicer_to_server(fake, server)
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield fake
    finally:
        fake.released.set()
        server.stop(None).wait()


def _relevance(request: rpc.ClassifyRequest) -> pb.Relevance | None:
    """Explain one label, where no more are asked for."""
    asked = request.relevance
    return _explain(request) if request.HasField("relevance") and not asked.labels and not asked.top else None


def _relevances(request: rpc.ClassifyRequest) -> list[pb.Relevance]:
    """Explain each of several, named or the most probable."""
    asked, found = request.relevance, []
    for label in asked.labels or ["cat", "[dog]"][: asked.top]:
        one = _explain(request)
        one.label = label
        found.append(one)
    return found


def _explain(request: rpc.ClassifyRequest) -> pb.Relevance:
    """Explain with numbers that add up to 3 of an image, and to 1.5 of a text; without special ones, to as much."""
    return _explained(request.relevance, of_image=request.WhichOneof("input") in ("image", "images"))


def _explained(asked: pb.RelevanceRequest, *, of_image: bool) -> pb.Relevance:
    values, rest = (RELEVANCE_OF_IMAGE, -0.5) if of_image else (RELEVANCE_OF_TEXT, 0.375)
    positions = list(range(1, 7 if of_image else 4)) if asked.drop_special else []
    sent = np.array([values[place] for place in positions] or values)
    found = pb.Relevance(
        label=asked.label or "cat",
        against=asked.against,
        score=sum(values) + rest,
        values=float_tensor(sent),
        positions=positions,
        unsent=sum(values) - float(sent.sum()),
        rest=rest,
        method=asked.method,
        words=[] if of_image else [[-1, 0, 1, 1, -1][place] for place in positions or range(5)],
    )
    if asked.method in (pb.RELEVANCE_METHOD_UNSPECIFIED, pb.RELEVANCE_METHOD_INTEGRATED_GRADIENTS):
        found.error, found.relative_error = 2e-7, 4.2e-8
    if asked.method == pb.RELEVANCE_METHOD_INTEGRATED_GRADIENTS:
        found.baseline = -0.25
    if asked.by_layer:
        found.by_layer.CopyFrom(_by_layer(np.array(values), positions, found.score))
    if of_image:
        found.patches.CopyFrom(GRID)
        return found
    places = [(0, 0), (0, 4), (5, 8), (8, 12), (0, 0)]
    for number, (word, (start, end)) in enumerate(zip(WORDS, places, strict=True)):
        found.tokens.tokens.append(pb.Token(id=number, text=word, start=start, end=end, special=not end))
    return found


def _by_layer(values: NDArray[np.float64], positions: list[int], score: float) -> pb.LayerRelevance:
    """What enters, half of it behind the first layer, and all behind the second at the first position."""
    depths = np.stack([values, values / 2, np.where(np.arange(len(values)) == 0, values.sum(), 0)])
    sent = depths[:, positions] if positions else depths
    return pb.LayerRelevance(
        values=float_tensor(sent),
        unsent=depths.sum(1) - sent.sum(1),
        added=score - depths.sum(1),
        relative_error=[1e-8, 2e-8, 3e-8],
    )


def step_weights(step: int) -> NDArray[np.float32]:
    """Return what a step of the writer attends to, [NUM_HEADS, 5]: most of all to one token, another for each step."""
    raw = 1 + np.arange(NUM_HEADS * len(WORDS), dtype=np.float32).reshape(NUM_HEADS, -1)
    raw[:, step + 1] += 50
    shares: NDArray[np.float32] = raw / raw.sum(-1, keepdims=True)
    return shares


def _generation_start(request: rpc.GenerateRequest, *, truncated: bool) -> rpc.GenerationStart:
    start = rpc.GenerationStart(model=request.model or "g2p", version="1", truncated=truncated)
    if any(request.HasField(field) for field in ("cross_attention", "self_attention", "relevance")):
        start.source.CopyFrom(_tokens(WORDS))
    return start


def _generation_end(request: rpc.GenerateRequest) -> rpc.GenerationEnd:
    """Write "K AE T", or what is to be scored, with what each step attends to in one layer; other beams are shorter."""
    reason = rpc.FINISH_REASON_TARGET if request.target else rpc.FINISH_REASON_END
    tokens = [
        _generated(request, step, text) for step, text in enumerate([*(request.target or "K AE T").split(" "), ""])
    ]
    results = [rpc.GeneratedText(text="K AE T", log_probability=-1.5, finish_reason=reason, tokens=tokens)]
    results += [
        rpc.GeneratedText(text="K AE", log_probability=-2.5, finish_reason=rpc.FINISH_REASON_LENGTH, tokens=tokens[:2])
        for _ in range(request.num_results - 1)
    ]
    timings = rpc.GenerationTimings(
        decode_ns=1, encode_ns=2, first_token_ns=3_000_000, total_ns=6_000_000, steps=len(tokens)
    )
    end = rpc.GenerationEnd(results=results, timings=timings, start=request.start or "plain")
    if request.HasField("relevance"):
        end.relevance.CopyFrom(_token_relevance(request, results[0]))
    return end


def _token_relevance(request: rpc.GenerateRequest, result: rpc.GeneratedText) -> rpc.GenerationRelevance:
    """Explain tokens by OF_TOKENS, and by -0.5 for each token before."""
    chosen = list(request.relevance.tokens) or list(range(len(result.tokens)))
    names = [token.text.strip() or "</s>" for token in result.tokens]
    why = rpc.GenerationRelevance(tokens=chosen, labels=[names[place] for place in chosen])
    why.target_tokens.extend(["<s>", *names[:-1]])
    why.num_start_tokens = 1
    why.source_words.extend([-1, 0, 1, 1, -1])
    source = OF_TOKENS[chosen]
    target = -0.5 * np.tri(len(names), dtype=np.float32)[chosen]
    why.source.CopyFrom(float_tensor(source))
    why.target.CopyFrom(float_tensor(target))
    why.rest.extend([0.125] * len(chosen))
    why.score.extend((source.sum(1) + target.sum(1) + np.float32(0.125)).tolist())
    why.error.extend([2e-7] * len(chosen))
    why.relative_error.extend([3e-8] * len(chosen))
    return why


def _generated(request: rpc.GenerateRequest, step: int, text: str) -> rpc.GeneratedToken:
    token = rpc.GeneratedToken(token=step + 3, text=f"{' ' if step and text else ''}{text}", log_probability=-0.25)
    for number in range(request.alternatives):
        token.alternatives.add(token=number, text=f"<{number}>", log_probability=-1.0 - number)
    if request.HasField("cross_attention"):
        asked = request.cross_attention
        layer = token.attention.add(layer=asked.layers[0] % 3 if asked.layers else 2, kind=pb.ATTENTION_KIND_CROSS)
        layer.heads.extend(asked.heads or range(NUM_HEADS))
        layer.axes.extend(["key"] if asked.head_reduction else ["head", "key"])
        chosen = step_weights(min(step, 3))[list(layer.heads)]
        layer.weights.CopyFrom(float_tensor(chosen.mean(axis=0) if asked.head_reduction else chosen))
    if request.HasField("self_attention"):
        layer = token.attention.add(layer=0, kind=pb.ATTENTION_KIND_CAUSAL, axes=["head", "key"], heads=[0])
        layer.weights.CopyFrom(float_tensor(np.full((1, step + 1), 1 / (step + 1))))
    return token


def _tokens(words: Sequence[str]) -> pb.TokenSequence:
    return pb.TokenSequence(tokens=[pb.Token(id=7, text=word) for word in words])


def _embed_one(request: rpc.EmbedRequest, number: int, text: str) -> rpc.EmbedResult:
    """What Embed gives one of several texts; nothing for one that is "bad"."""
    if text == "bad":
        return rpc.EmbedResult(error=pb.InputError(code=3, message=f"texts[{number}]: bad; expected a good one"))
    vector = np.eye(4)[ord(text[0]) % 4]
    attention = _statistics(request, text) if request.attention.statistics else None
    return rpc.EmbedResult(**_vector(request, vector), hidden_states=_hidden_states(request), attention=attention)


def statistics_of(text: str, layers: Sequence[int], count: int) -> NDArray[np.float32]:
    """Return what this server counts in a text, [layer, NUM_HEADS, statistic]: more in long texts and late layers."""
    numbers = np.add.outer(layers, np.add.outer(np.arange(NUM_HEADS) / 10, np.arange(count) / 100)) + len(text)
    return numbers.astype(np.float32)


def _statistics(request: rpc.EmbedRequest, text: str) -> pb.Attention:
    asked, message = request.attention, pb.Attention()
    layers = list(asked.layers) or list(range(NUM_LAYERS))
    for layer, numbers in zip(layers, statistics_of(text, layers, len(asked.statistics)), strict=True):
        of_all = asked.measure == pb.ATTENTION_MEASURE_CONTRIBUTION
        axes = ["statistic"] if of_all else ["head", "statistic"]
        one = message.layers.add(layer=layer, axes=axes, heads=range(NUM_HEADS))
        one.statistics.extend(asked.statistics)
        one.weights.CopyFrom(float_tensor(numbers[0] if of_all else numbers))
    return message


def _vector(request: rpc.EmbedRequest, vector: NDArray[Any]) -> dict[str, Any]:
    """Write a vector as it is asked for, repeated up to the dimensions: eight bits with a scale of 2."""
    if request.model == "late":
        words = WORDS[1:3] if request.role == rpc.TEXT_ROLE_QUERY else WORDS[1:4]
        return {"token_vectors": rpc.TokenVectors(vectors=float_tensor(np.eye(len(words), 4)), tokens=_tokens(words))}
    if request.model == "words":
        values = (1.0, 3.0, 0.5)[: request.max_terms or None]
        terms = WORDS[1 : 1 + len(values)] if request.with_terms else []
        return {"sparse": rpc.SparseVector(dim=5, indices=range(1, 1 + len(values)), values=values, terms=terms)}
    if request.dimensions:
        vector = np.resize(vector, request.dimensions)
    if request.vector_format == rpc.VECTOR_FORMAT_INT8:
        data = vector.astype(np.int8).tobytes()
        return {"vector": pb.Tensor(dtype=pb.DATA_TYPE_INT8, shape=vector.shape, data=data), "vector_scale": 2}
    if request.vector_format == rpc.VECTOR_FORMAT_BINARY:
        bits = np.packbits(vector > 0)
        return {"vector": pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=bits.shape, data=bits.tobytes())}
    half = request.vector_format == rpc.VECTOR_FORMAT_FLOAT16
    return {"vector": float_tensor(vector, pb.DATA_TYPE_FLOAT16 if half else pb.DATA_TYPE_FLOAT32)}


def state(layer: int) -> NDArray[np.float32]:
    """Return what this server calls the hidden states of a layer, [5, 2]."""
    return 100 * layer + np.arange(10, dtype=np.float32).reshape(5, 2)


def _hidden_states(request: rpc.PredictRequest | rpc.ClassifyRequest | rpc.EmbedRequest) -> pb.HiddenStates | None:
    """Answer a request for hidden states, if there is one: five vectors a layer, or the first of them."""
    if not request.HasField("hidden_states"):
        return None
    wanted, message = request.hidden_states, pb.HiddenStates()
    for layer in wanted.layers or range(3):
        one = message.layers.add(layer=layer % 3, axes=["dim"] if wanted.pooling else ["position", "dim"])
        values = state(layer % 3)[0] if wanted.pooling else state(layer % 3)
        one.positions.extend(wanted.positions)
        one.values.CopyFrom(float_tensor(values, wanted.dtype))
        if wanted.dtype == pb.DATA_TYPE_UINT8:
            steps = np.zeros(values.shape, np.uint8) + np.array([0, 255], np.uint8)
            one.values.CopyFrom(pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=values.shape, data=steps.tobytes()))
            one.scales.CopyFrom(float_tensor((values[..., 1] - values[..., 0]) / 255))
            one.offsets.CopyFrom(float_tensor(values[..., 0]))
    if not wanted.pooling:
        message.tokens.CopyFrom(pb.TokenSequence(tokens=[pb.Token(id=7, text=word) for word in WORDS]))
    return message


def _attention(
    request: rpc.ClassifyRequest | rpc.EmbedRequest | rpc.AttendRequest | rpc.RankRequest,
) -> pb.Attention | None:
    """Answer an attention request, if there is one, as a server would; of a pair, the second text begins at "sit"."""
    if not request.HasField("attention"):
        return None
    is_rank = isinstance(request, rpc.RankRequest)
    if not is_rank and request.WhichOneof("input") == "image":
        length = GRID.prefix_tokens + GRID.rows * GRID.cols
        return pb.Attention(layers=_attend(request.attention, length, range(GRID.prefix_tokens)), patches=GRID)
    tokens = [
        pb.Token(id=number, text=word, start=number, end=number + 1, special=word[0] == "[")
        for number, word in enumerate(WORDS)
    ]
    if is_rank or request.WhichOneof("input") in ("pair", "pairs"):
        for token, of_text in zip(tokens[1:4], (1, 2, 2), strict=True):
            token.of_text = of_text  # type: ignore[assignment]
    special = [number for number, token in enumerate(tokens) if token.special]
    layers = _attend(request.attention, len(tokens), special)
    return pb.Attention(layers=layers, tokens=pb.TokenSequence(tokens=tokens))


def _attend(wanted: pb.AttentionRequest, length: int, special: Sequence[int]) -> list[pb.LayerAttention]:
    """Answer an attention request about so many positions; all layers look alike."""
    layers = [layer % NUM_LAYERS for layer in wanted.layers] or list(range(NUM_LAYERS))
    if wanted.measure == _ROLLOUT:
        return [_layer(wanted, layers[-1], length, special, covered=layers)]
    return [_layer(wanted, layer, length, special) for layer in layers]


def _layer(
    wanted: pb.AttentionRequest, number: int, length: int, special: Sequence[int], covered: Sequence[int] = ()
) -> pb.LayerAttention:
    heads = list(wanted.heads) or list(range(NUM_HEADS))
    ordinary = [position for position in range(length) if position not in special]
    queries = [0] if wanted.cls_only else list(wanted.rows) or list(range(length))
    queries, keys = (ordinary, ordinary) if wanted.drop_special else (queries, list(wanted.keys))
    chosen = weights(length, length)[heads][:, queries][:, :, keys or slice(None)]
    if wanted.renormalize:
        chosen = chosen / chosen.sum(-1, keepdims=True)
    message = pb.LayerAttention(
        layer=number,
        kind=pb.ATTENTION_KIND_SELF,
        heads=heads,
        queries=queries,
        keys=keys,
        measure=wanted.measure,
        covered_layers=covered,
    )
    _fill(message, wanted, chosen)
    return message


def _fill(message: pb.LayerAttention, wanted: pb.AttentionRequest, chosen: NDArray[np.float32]) -> None:
    """Measure, reduce, and keep the largest."""
    values, axes = _measure(wanted, message, chosen)
    if wanted.measure == _ROLLOUT or wanted.head_reduction in _REDUCTIONS:
        values = _REDUCTIONS.get(wanted.head_reduction, np.mean)(values, axis=0)
        axes = axes[1:]
    if wanted.top_k and axes[-1:] == ["key"]:
        places = np.argsort(-values, axis=-1)[..., : wanted.top_k]
        values = np.take_along_axis(values, places, axis=-1)
        indices = np.asarray(message.keys or range(chosen.shape[-1]), dtype="<i4")[places]
        message.indices.CopyFrom(pb.Tensor(dtype=pb.DATA_TYPE_INT32, shape=indices.shape, data=indices.tobytes()))
        axes[-1] = "top"
    message.axes.extend(axes)
    message.weights.CopyFrom(float_tensor(values, wanted.dtype))


def _measure(
    wanted: pb.AttentionRequest, message: pb.LayerAttention, chosen: NDArray[np.float32]
) -> tuple[NDArray[Any], list[str]]:
    if wanted.measure == _ENTROPY:
        return -(chosen * np.log(chosen)).sum(-1), ["head", "query"]
    if wanted.measure == _DISTANCE:
        return 10.0 * message.layer + np.asarray(message.heads), ["head"]
    return chosen, ["head", "query", "key"]
