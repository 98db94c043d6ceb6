"""Late interaction: from PyLate's folder to vectors a token and MaxSim, equal to what its code says, written out."""

import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import regard
from export.build import build
from export.sources import load_folder
from model.checkpoint import CheckpointError
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub
from server.api.open_inference.open_inference_pb2 import ModelConfigRequest, ModelMetadataRequest
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.tensors import read_tensor
from server.engine.agreement import check_contract
from server.errors import StartError
from tests.export.families import FAMILIES, shallow, write_folder
from tests.golden.make import make_tokenizer
from tests.processes import StartProcess
from tests.server.api.open_inference.messages import make_bytes_request, make_request, read

QUERY, DOCUMENTS = "the dog", ("a dog sat on the mat", "it is a very bad film", "cat")
WORDS = ["a", "mat"]  # stand for punctuation
DIM, LENGTH = 16, 9


def write_late(folder: Path, **settings: Any) -> Path:
    """A folder as PyLate saves it: prefixes are tokens, a dense layer without bias makes small vectors."""
    write_folder(shallow(FAMILIES["bert"]), folder)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["[Q] ", "[D] "])
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    (folder / "1_Dense").mkdir()
    torch.manual_seed(1)
    save_file({"linear.weight": torch.randn(DIM, width)}, folder / "1_Dense" / "model.safetensors")
    dense = {"in_features": width, "out_features": DIM, "bias": False, "use_residual": False}
    dense |= {"activation_function": "torch.nn.modules.linear.Identity", "module_input_name": "token_embeddings"}
    (folder / "1_Dense" / "config.json").write_text(json.dumps(dense | {"module_output_name": "token_embeddings"}))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    told = {"similarity_fn_name": "MaxSim", "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": LENGTH}
    told |= {"document_length": 12, "attend_to_expansion_tokens": False, "skiplist_words": WORDS}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(told | settings))
    return folder


def expect(folder: Path, text: str, *, query: bool, attends: bool = False, fills: bool = True) -> NDArray[np.float32]:
    """A text's vectors, float32 [T, DIM]: prefix behind the first token, queries filled up, skipped words left out."""
    network = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids, at = tokenizer.encode(text).ids, tokenizer.get_vocab()
    ids.insert(1, at["[Q] " if query else "[D] "])
    mask = [1] * len(ids)
    if query and fills:
        missing = LENGTH - len(ids)
        ids, mask = ids + [at["[MASK]"]] * missing, mask + [int(attends)] * missing
    dense = torch.nn.Linear(network.config.hidden_size, DIM, bias=False)
    dense.load_state_dict({"weight": safetensor(folder)})
    with torch.inference_mode():
        hidden = network(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([mask])).last_hidden_state[0]
        vectors = torch.nn.functional.normalize(dense(hidden), dim=-1).numpy()
    skipped = set() if query else {at[word] for word in WORDS}
    kept: NDArray[np.float32] = vectors[[one not in skipped for one in ids]]
    return kept


def safetensor(folder: Path) -> torch.Tensor:
    """The weight of the dense layer."""
    return load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"]


@pytest.mark.parametrize(("attends", "fills"), [(False, True), (True, True), (False, False)])
def test_queries_find_their_like_in_documents(
    attends: bool, fills: bool, tmp_path: Path, start_process: StartProcess
) -> None:
    """A vector a token, alone and beside others, and their MaxSim with their matches."""
    folder = write_late(tmp_path / "net", attend_to_expansion_tokens=attends, do_query_expansion=fills)
    contract = build(load_folder(folder, name="late"), tmp_path / "models").contract
    assert contract.late is not None and contract.embedding is None
    for name, token in (("filler", 10**6), ("query_prefix", 10**6)):
        lies = contract.model_copy(update={"late": contract.late.model_copy(update={name: token})})
        with pytest.raises(StartError, match=f"late.{name}: 1000000"):
            check_contract(tmp_path, lies)
    query = expect(folder, QUERY, query=True, attends=attends, fills=fills)
    documents = [expect(folder, text, query=False) for text in DOCUMENTS]
    with start_process("--models", str(tmp_path / "models")) as server, regard.Client(server.address) as client:
        described = client.model("late")
        with grpc.insecure_channel(server.address) as channel:
            stub = RegardServiceStub(channel)
            alone = stub.Embed(api.EmbedRequest(model="late", text=QUERY, role=api.TEXT_ROLE_QUERY))
            many = stub.Embed(api.EmbedRequest(model="late", texts=pb.Texts(items=DOCUMENTS)))
            refused: list[dict[str, Any]] = [{"dimensions": 8}, {"max_terms": 2}]
            for further in refused:
                with pytest.raises(grpc.RpcError) as told:
                    stub.Embed(api.EmbedRequest(model="late", text=QUERY, **further))
                assert told.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            with pytest.raises(grpc.RpcError, match="role: 9; expected one of the values of TextRole"):
                stub.Embed(api.EmbedRequest(model="late", text=QUERY, role=9))  # type: ignore[arg-type]
            infer = make_bytes_request("late", "text", DOCUMENTS[0].encode())
            oip = GRPCInferenceServiceStub(channel)
            rows = read(oip.ModelInfer(infer))["token_vectors"][0]
            infer = make_bytes_request("late", "text", QUERY.encode(), b"a cat")
            infer.parameters["role"].string_param = "query"
            asked = read(oip.ModelInfer(infer))
            infer_all = make_bytes_request("late", "text", *(text.encode() for text in DOCUMENTS))
            together = read(oip.ModelInfer(infer_all))
            infer_all.outputs.add(name="token_vectors.kept")
            assert list(read(oip.ModelInfer(infer_all))) == ["token_vectors.kept"]
            listed = {one.name: one.datatype for one in oip.ModelMetadata(ModelMetadataRequest(name="late")).outputs}
            tensors = make_request("late", input_ids=np.ones((1, 4), int), attention_mask=np.ones((1, 4), int))
            for wrong, role, message in ((tensors, "query", "query; expected none, as"), (infer, "title", "'title'")):
                wrong.parameters["role"].string_param = role
                with pytest.raises(grpc.RpcError, match=rf"parameters\[role\]: {message}"):
                    oip.ModelInfer(wrong)
            (told_role,) = (
                value.string_value
                for name, value in oip.ModelConfig(ModelConfigRequest(name="late")).config.parameters.items()
                if name == "accepts_role"
            )
        ranking = client.rank(QUERY, [*DOCUMENTS, "a a a", " "], model="late", token_matches=True)
        best = client.rank(QUERY, DOCUMENTS, model="late", top_k=1)
        through_client = client.embed(text=QUERY, model="late", role="query")
        with pytest.raises(regard.InvalidArgument, match=r"query: 15 tokens; expected at most"):
            client.rank("dog " * 13, DOCUMENTS, model="late")
        assert server.stop() == 0
    assert (described.can_rank, described.token_vector_dim, described.query_tokens) == (True, DIM, LENGTH)
    np.testing.assert_allclose(read_tensor("v", alone.token_vectors.vectors), query, atol=1e-4)
    assert told_role == "true"
    other = expect(folder, "a cat", query=True, attends=attends, fills=fills)
    of_documents = zip(together["token_vectors"], together["token_vectors.kept"], documents, strict=True)
    of_queries = zip(asked["token_vectors"], asked["token_vectors.kept"], (query, other), strict=True)
    for vectors, kept, expected in (*of_documents, *of_queries):
        np.testing.assert_allclose(vectors[kept], expected, atol=1e-4)
    assert ("token_vectors.kept", "BOOL") in listed.items()
    assert alone.token_vectors.tokens.tokens[1].text == "[q] "  # as the tokenizer, which lowers, spells it
    assert through_client.tokens is not None and len(through_client.tokens) == len(query)
    np.testing.assert_allclose(through_client.vector, query, atol=1e-4)
    for found, expected in zip(many.results, documents, strict=True):
        np.testing.assert_allclose(read_tensor("v", found.token_vectors.vectors), expected, atol=1e-4)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(DOCUMENTS[0]).tokens
    np.testing.assert_allclose(
        rows[[0, 1, *(at + 1 for at, one in enumerate(ids) if at and one not in WORDS)]], documents[0], atol=1e-4
    )
    similarities = [query @ one.T for one in documents]
    scores = [float(one.max(axis=1).sum()) for one in similarities]
    for one in ranking.documents:
        if one.index >= len(DOCUMENTS):
            continue
        assert one.score == pytest.approx(scores[one.index], abs=1e-3) and one.token_matches is not None
        np.testing.assert_array_equal(one.token_matches.found, similarities[one.index].argmax(axis=1))
        np.testing.assert_allclose(one.token_matches.similarities, similarities[one.index].max(axis=1), atol=1e-4)
        assert not set(WORDS) & {token.text for token in one.token_matches.document_tokens}
    ordered = [one.score for one in ranking.documents]
    assert ordered == sorted(ordered, reverse=True) and len(ordered) == 4
    assert ranking.query_tokens is not None and ranking.query_tokens[1].text == "[q] "
    assert "documents[4]: empty; expected a text" in str(ranking.errors[4])
    assert best.documents[0].token_matches is None and best.documents[0].index == max(
        range(3), key=lambda at: scores[at]
    )


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    """By its name."""
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "prefix": ({"query_prefix": "[X]"}, r"query_prefix '\[X\]'; expected a token of tokenizer.json"),
        "length": ({"query_length": 2}, "query_length 2; expected 4 to"),
        "long": ({"document_length": 9999}, "document_length 9999; expected 4 to"),
        "words": ({"skiplist_words": ["!?"]}, r"skiplist_words '!\?'; expected a token"),
        "other": ({"similarity_fn_name": "cosine"}, "similarity_fn_name 'cosine'; expected 'MaxSim'"),
    }
    for name, (settings, message) in wrong.items():
        with pytest.raises(CheckpointError, match=message):
            load_folder(write_late(tmp_path / name, **settings))
