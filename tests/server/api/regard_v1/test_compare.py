"""Compare through regard.v1: how similar two inputs are, what each position did for it, and what pairs of them did."""

from pathlib import Path

import grpc
import numpy as np
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.open_inference import open_inference_pb2 as oip
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.tensors import read_tensor
from server.auth.quota import Quota
from tests.golden import GOLDEN_WINDOWS
from tests.server.api.reference import TOLERANCE
from tests.server.api.towers import link_models, picture
from tests.server.asking import refused, samples, until, values_of
from tests.server.conftest import Running, Serve

PHOTO, CAT, DOG = picture(), "the cat sat on the mat", "it was a very good dog"
SIDES = [
    ("tiny-text", api.CompareInput(text=CAT), api.CompareInput(text=DOG)),
    ("tiny-clip", api.CompareInput(text=CAT), api.CompareInput(image=PHOTO)),
    ("tiny-clip", api.CompareInput(image=PHOTO), api.CompareInput(text=DOG)),
    ("tiny-siglip", api.CompareInput(image=PHOTO), api.CompareInput(text=CAT)),
]


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of two towers, and others, one of which does not explain similarities."""
    folder = link_models(tmp_path_factory.mktemp("models"))
    (folder / "tiny-swin").symlink_to(GOLDEN_WINDOWS / "tiny-swin")
    return folder


def asked(model: str, first: api.CompareInput, second: api.CompareInput, **wanted: bool) -> api.CompareRequest:
    """Of two inputs, with reasons."""
    why = pb.SimilarityRelevanceRequest(**wanted)
    return api.CompareRequest(model=model, first=first, second=second, relevance=why)


async def vector_of(running: Running, model: str, one: api.CompareInput) -> np.ndarray:
    """As Embed gives it."""
    content = {"text": one.text} if one.text else {"image": one.image}
    answer = await running.stub.Embed(api.EmbedRequest(model=model, **content))
    return read_tensor("vector", answer.vector)


def assert_adds_up(message: pb.Relevance, similarity: float) -> None:
    """To the similarity, as it says itself."""
    total = float(values_of(message).sum()) + message.unsent + message.rest
    assert total == pytest.approx(similarity, abs=TOLERANCE)
    assert message.score == pytest.approx(similarity, abs=TOLERANCE)
    assert message.relative_error < TOLERANCE


@pytest.mark.parametrize(("model", "first", "second"), SIDES)
async def test_both_sides_make_up_the_similarity(
    model: str, first: api.CompareInput, second: api.CompareInput, running: Running
) -> None:
    """Which is that of the vectors; parts say of each position what its relevance does."""
    vectors = [await vector_of(running, model, one) for one in (first, second)]
    similarity = float(vectors[0] @ vectors[1] / np.prod([np.linalg.norm(one) for one in vectors]))
    plain = await running.stub.Compare(api.CompareRequest(model=model, first=first, second=second))
    assert plain.similarity == pytest.approx(similarity, abs=TOLERANCE)
    assert not plain.HasField("relevance")
    sides = (await running.stub.Compare(asked(model, first, second))).relevance
    pairs = (await running.stub.Compare(asked(model, first, second, pairs=True))).relevance
    assert not sides.HasField("pairs")
    for one, other in ((sides.first, pairs.first), (sides.second, pairs.second)):
        assert_adds_up(one, similarity)
        assert_adds_up(other, similarity)
        assert np.abs(values_of(one)).max() > 1e-3
        np.testing.assert_allclose(values_of(one), values_of(other), rtol=0, atol=TOLERANCE)
        assert one.rest == pytest.approx(other.rest, abs=TOLERANCE)
    for message, given in ((pairs.first, first), (pairs.second, second)):
        assert message.WhichOneof("of") == ("tokens" if given.text else "patches")
        counted = (
            len(message.tokens.tokens) or message.patches.prefix_tokens + message.patches.rows * message.patches.cols
        )
        assert values_of(message).shape == (counted,)


@pytest.mark.parametrize(("model", "first", "second"), SIDES)
async def test_pairs_make_up_the_similarity(
    model: str, first: api.CompareInput, second: api.CompareInput, running: Running
) -> None:
    """With what is in none; turned around where the inputs are."""
    answer = await running.stub.Compare(asked(model, first, second, pairs=True))
    why, back = answer.relevance, (await running.stub.Compare(asked(model, second, first, pairs=True))).relevance
    matrix = read_tensor("pairs", why.pairs)
    assert matrix.shape == (len(values_of(why.first)), len(values_of(why.second)))
    assert float(matrix.sum()) + why.unpaired == pytest.approx(answer.similarity, abs=TOLERANCE)
    assert (why.error, why.relative_error) < (TOLERANCE, TOLERANCE)
    np.testing.assert_allclose(read_tensor("pairs", back.pairs), matrix.T, rtol=0, atol=TOLERANCE)
    inner = asked(model, first, second, pairs=True, drop_special=True)
    part = (await running.stub.Compare(inner)).relevance
    rows, columns = (list(one.positions) or list(range(len(values_of(one)))) for one in (part.first, part.second))
    np.testing.assert_allclose(read_tensor("pairs", part.pairs), matrix[np.ix_(rows, columns)], rtol=0, atol=TOLERANCE)
    assert part.unpaired == pytest.approx(why.unpaired + matrix.sum() - matrix[np.ix_(rows, columns)].sum(), abs=1e-4)


async def test_where_nothing_belongs_to_no_position_pairs_sum_to_positions(running: Running) -> None:
    """Of a network that takes the mean of its positions: rows to the first's, columns to the second's."""
    why = (await running.stub.Compare(asked(*SIDES[0], pairs=True))).relevance
    matrix = read_tensor("pairs", why.pairs)
    assert (why.first.rest, why.second.rest) == (0.0, 0.0)
    np.testing.assert_allclose(matrix.sum(1), values_of(why.first), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(matrix.sum(0), values_of(why.second), rtol=0, atol=TOLERANCE)


async def test_an_input_with_itself_is_symmetric(running: Running) -> None:
    """And of cosine 1."""
    answer = await running.stub.Compare(asked("tiny-text", SIDES[0][1], SIDES[0][1], pairs=True))
    matrix = read_tensor("pairs", answer.relevance.pairs)
    assert answer.similarity == pytest.approx(1, abs=TOLERANCE)
    np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=TOLERANCE)


async def test_pairs_are_computed_in_runs_of_a_bounded_size(start: Serve) -> None:
    """However small these are, the answer is the same; a longer input is refused with what it takes."""
    async with start(max_batch_size=3) as small, start(max_pair_tokens=72) as tight:
        assert read_tensor("p", (await small.stub.Compare(asked(*SIDES[0], pairs=True))).relevance.pairs).any()
        await tight.stub.Compare(asked(*SIDES[0], pairs=True))  # 8 tokens, 9 runs
        longer = asked("tiny-text", api.CompareInput(text=CAT), api.CompareInput(text=f"{DOG} one"), pairs=True)
        message = (
            "relevance.pairs: 90 tokens or patches in all runs of an input of 9; expected at most 72 "
            r"\(the server's --max-pair-tokens\): a shorter input, or no pairs"
        )
        assert await refused(tight.stub.Compare(longer), message) == grpc.StatusCode.INVALID_ARGUMENT
        longer.relevance.pairs = False
        await tight.stub.Compare(longer)


@pytest.mark.parametrize(
    ("request_", "message", "code"),
    [
        (
            api.CompareRequest(model="tiny-text", first=api.CompareInput(text=CAT)),
            "second.input: neither image nor text; expected one of them",
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            asked("tiny-text", api.CompareInput(text=CAT), api.CompareInput(text=" ")),
            "second.text: empty; expected a text with something in it",
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            asked("tiny-clip", api.CompareInput(image=b"x"), api.CompareInput(text=CAT)),
            "first.image: 1 bytes",
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            asked("tiny-clip", api.CompareInput(image=PHOTO, prompt="p"), api.CompareInput(text=CAT)),
            "first.prompt: 'p'; expected none, as there is no text to put it before",
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            asked("tiny-swin", api.CompareInput(image=PHOTO), api.CompareInput(image=PHOTO)),
            "relevance: tiny-swin was exported without relevance of similarities; expected a model with",
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
    ],
    ids=["none", "empty", "no image", "prompt", "not exported"],
)
async def test_a_request_that_makes_no_sense_is_refused(
    request_: api.CompareRequest, message: str, code: grpc.StatusCode, running: Running
) -> None:
    """The field, the value, and what was expected."""
    assert await refused(running.stub.Compare(request_), message) == code


async def test_a_model_says_whether_it_explains_similarities(running: Running) -> None:
    """Of two towers, both."""
    models = {one.name: one for one in (await running.stub.ListModels(api.ListModelsRequest())).models}
    assert models["tiny-text"].can_explain_similarity
    assert models["tiny-clip"].can_explain_similarity
    assert models["fashion"].can_explain_similarity
    assert not models["tiny-swin"].can_explain_similarity


async def test_what_is_compared_is_counted_once_by_its_graph(running: Running) -> None:
    """Whose name is that of the last run."""
    await running.stub.Compare(asked(*SIDES[0], pairs=True))
    assert any("parts" in labels for labels in await samples(running))


@pytest.mark.parametrize("wanted", [None, {}, {"pairs": True}], ids=["similarity", "positions", "pairs"])
async def test_each_input_is_counted_as_a_request_and_both_as_one_answer(
    wanted: dict[str, bool] | None, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs it takes; the first was counted when the request was admitted, and nothing stays held."""
    counted = list[int]()
    monkeypatch.setattr(Quota, "count", lambda quota, requests: counted.append(requests))
    model, first, second = SIDES[1]
    request = api.CompareRequest(model=model, first=first, second=second)
    if wanted is not None:
        request.relevance.CopyFrom(pb.SimilarityRelevanceRequest(**wanted))
    stub, asks = GRPCInferenceServiceStub(running.channel), oip.ModelStatisticsRequest(name=model)
    (before,) = (await stub.ModelStatistics(asks)).model_stats
    answer = await running.stub.Compare(request)
    assert counted == [1]
    assert answer.timings.compute_ns > 0
    (after,) = (await stub.ModelStatistics(asks)).model_stats
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.inference_count == before.inference_count + 2
    await until(running, ("regard_held_bytes",), 0)


async def test_a_client_without_attention_gets_a_similarity_and_no_reasons(start: Serve, tmp_path: Path) -> None:
    """They tell what attention tells; nothing is computed of them."""
    clients = tmp_path / "clients.toml"
    clients.write_text('[clients.bob]\ntokens = ["0123456789abcdef0123456789abcdef"]\nallow = ["infer"]\n')
    metadata = (("authorization", "Bearer 0123456789abcdef0123456789abcdef"),)
    async with start(clients=clients) as server:
        for pairs in (False, True):
            call = server.stub.Compare(asked(*SIDES[0], pairs=pairs), metadata=metadata)
            assert await refused(call, "relevance") == grpc.StatusCode.PERMISSION_DENIED
        model, first, second = SIDES[0]
        plain = api.CompareRequest(model=model, first=first, second=second)
        assert (await server.stub.Compare(plain, metadata=metadata)).similarity
