import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.attention import KeysValues, explained_attention
from model.checkpoint import CheckpointError, load_encoder_decoder, save_encoder_decoder
from model.decoder import Cache, DecoderConfig
from model.encoder import EncoderConfig
from model.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tests.model.encoder_decoders import HEADS, LAYERS, VOCAB, WIDTH, make_batch, make_network

# Marian's tensor names, and what they are here.
MARIAN_NAMES = (
    (r"^model\.shared\.", "tokens."),
    (r"^model\.(encoder|decoder)\.embed_(tokens|positions)\..*|^lm_head\..*", ""),
    (r"^model\.", ""),
    (r"encoder_attn_layer_norm", "cross_norm"),
    (r"encoder_attn", "cross_attention"),
    (r"self_attn_layer_norm", "attention_norm"),
    (r"self_attn", "attention"),
    (r"final_layer_norm", "mlp_norm"),
    (r"([qkv])_proj", lambda found: {"q": "query", "k": "key", "v": "value"}[found[1]]),
    (r"out_proj", "out"),
    (r"fc1", "mlp.up"),
    (r"fc2", "mlp.down"),
    (r"final_logits_bias", "output_bias"),
)


def make_marian(activation: str) -> Any:
    """A random small MarianMTModel whose attention is far from uniform."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MarianConfig(
        vocab_size=VOCAB, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS, encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=16,
        activation_function=activation, scale_embedding=True, pad_token_id=0, eos_token_id=2,
        decoder_start_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.MarianMTModel(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "embed_positions" not in name:
            parameter.normal_(std=0.3)
    network.final_logits_bias.normal_()
    return network


def from_marian(marian: Any, activation: Any) -> EncoderDecoder:
    """The same network here."""
    shape: dict[str, Any] = {
        "embed_dim": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "mlp_dim": 64, "norm": "post",
        "activation": activation, "norm_eps": 1e-5, "positions": "sinusoidal_halves", "max_positions": 16,
    }  # fmt: skip
    encoder, decoder = EncoderConfig(**shape), DecoderConfig(**shape)
    network = EncoderDecoder(EncoderDecoderConfig(encoder, decoder, VOCAB, output_bias=True, start_token=0)).eval()
    tensors = {}
    for name, tensor in marian.state_dict().items():
        for pattern, replacement in MARIAN_NAMES:
            name = re.sub(pattern, replacement, name)
        tensors[name] = tensor[0] if name == "output_bias" else tensor
    tensors.pop("", None)
    network.load_state_dict(tensors)
    return network.requires_grad_(False)


@pytest.mark.parametrize(("theirs", "ours"), [("relu", "relu"), ("gelu", "gelu"), ("swish", "silu")])
def test_marian_equals_transformers(theirs: str, ours: str) -> None:
    """Logits and every layer's three attentions within 1e-5, for a ragged source and target."""
    marian = make_marian(theirs)
    network = from_marian(marian, ours)
    source_ids, mask, target_ids = make_batch()
    expected = marian(source_ids, attention_mask=mask, decoder_input_ids=target_ids, output_attentions=True)
    logits, *attentions = network.explain(source_ids, mask, target_ids)
    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(network(source_ids, mask, target_ids), expected.logits, atol=1e-5, rtol=1e-6)
    names = ("encoder_attentions", "decoder_attentions", "cross_attentions")
    for got, name in zip(attentions, names, strict=True):
        assert len(got) == LAYERS
        for weights, expected_weights in zip(got, getattr(expected, name), strict=True):
            torch.testing.assert_close(weights, expected_weights, atol=1e-5, rtol=0)


def test_embeddings_are_shared_and_scaled_as_configured() -> None:
    """One table for both sides and the output (section 3.4), or a table for each; sqrt(D) or 1."""
    network = make_network()
    assert sorted(name for name, p in network.named_parameters() if VOCAB in p.shape) == ["tokens.weight"]
    hidden = torch.randn(1, 1, WIDTH)
    torch.testing.assert_close(network.logits(hidden), hidden @ network.tokens.weight.T)
    assert network.scale == pytest.approx(WIDTH**0.5)
    apart = make_network(source_vocab_size=VOCAB + 1, tie_output=False, scale_embeddings=False, output_bias=True)
    shapes = {name: list(p.shape) for name, p in apart.named_parameters() if p.shape[0] in (VOCAB, VOCAB + 1)}
    assert shapes == {
        "source_tokens.weight": [VOCAB + 1, WIDTH],
        "tokens.weight": [VOCAB, WIDTH],
        "output.weight": [VOCAB, WIDTH],
        "output_bias": [VOCAB],
    }
    assert apart.scale == 1.0
    source_ids, mask, target_ids = make_batch()
    source_ids[0, 0] = VOCAB
    assert apart(source_ids, mask, target_ids).shape == (*target_ids.shape, VOCAB)


def test_padding_of_the_source_changes_nothing() -> None:
    """Each row of a ragged batch equals the row alone."""
    network = make_network()
    source_ids, mask, target_ids = make_batch()
    together = network(source_ids, mask, target_ids)
    for row, length in enumerate(mask.sum(-1).tolist()):
        one = slice(row, row + 1)
        alone = network(source_ids[one, :length], mask[one, :length], target_ids[one])
        torch.testing.assert_close(together[one], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_token": VOCAB}, f"start_token: {VOCAB}; expected one of the {VOCAB} target ids"),
        ({"pad_token": -1}, "pad_token: -1; expected one of"),
        ({"decoder": DecoderConfig(64, 1, 4, 64)}, f"decoder.embed_dim: 64; expected the encoder's, {WIDTH}"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    """By field and value."""
    fields: dict[str, Any] = {"encoder": EncoderConfig(WIDTH, 1, 4, 64), "decoder": DecoderConfig(WIDTH, 1, 4, 64)}
    with pytest.raises(ValueError, match=re.escape(message)):
        EncoderDecoderConfig(**(fields | {"vocab_size": VOCAB} | change))


def test_own_checkpoints_come_back_in_half_precision(tmp_path: Path) -> None:
    """The configuration as it was, each weight rounded to float16, and the tokens of the ids."""
    network = make_network(norm="post", positions="rotary", output_bias=True)
    save_encoder_decoder(network, tmp_path, [str(index) for index in range(VOCAB)])
    again = load_encoder_decoder(tmp_path)
    assert again.config == network.config
    assert not again.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.half().float())
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert '"vocabulary": [\n    "0",\n' in (tmp_path / "config.json").read_text()


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    """Another kind of network, and a field that is unknown."""
    (tmp_path / "config.json").write_text('{"model_type": "marian"}')
    with pytest.raises(CheckpointError, match=r"model_type: 'marian'; expected 'regard-encoder-decoder'"):
        load_encoder_decoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "regard-encoder-decoder", "encoder": {"odd": 1}}')
    with pytest.raises(CheckpointError, match="odd"):
        load_encoder_decoder(tmp_path)


def test_torch_exports_a_step() -> None:
    """As a graph of tensors alone, for any batch, source and cache length."""
    network = make_network()
    source_ids, mask, target_ids = make_batch()
    source = network.decoder.read_source(network.encode(source_ids, mask)[0])
    cache = network.decoder.empty_cache(3, 12)

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: Any, mask: Any, lengths: Any, source: Any, cache: Any) -> Any:
            pairs = [KeysValues(*pair) for pair in source]
            cached = Cache([KeysValues(*pair) for pair in cache], lengths)
            logits, after, decoded = self.network.step(ids, pairs, mask, cached, explained_attention)
            return logits, after.lengths, [tuple(pair) for pair in after.layers], decoded.cross_attentions

    batch, length, capacity = (torch.export.Dim(name, min=2, max=64) for name in ("batch", "length", "capacity"))
    arguments = (target_ids[:, :1], mask, cache.lengths, [tuple(p) for p in source], [tuple(p) for p in cache.layers])
    shapes = (
        {0: batch}, {0: batch, 1: length}, {0: batch},
        [({0: batch, 2: length},) * 2] * LAYERS, [({0: batch, 2: capacity},) * 2] * LAYERS,
    )  # fmt: skip
    program = torch.export.export(Step(), arguments, dynamic_shapes=shapes)
    small = torch.arange(2)
    fewer = (
        target_ids[small, :1], mask[small, :5], cache.lengths[small],
        [tuple(t[small][:, :, :5] for t in p) for p in source],
        [tuple(t[small][:, :, :9] for t in p) for p in cache.layers],
    )  # fmt: skip
    got, expected = program.module()(*fewer), Step()(*fewer)
    torch.testing.assert_close(got[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(got[3], expected[3], atol=1e-5, rtol=0)
