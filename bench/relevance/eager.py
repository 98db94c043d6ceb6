"""LeGrad and GenAtt through the server, beside the same in eager PyTorch, as their authors' programs do it.

One caller sends calls of eight images. PyTorch has the same cores, the same weights and a batch of eight that is read
and normalised already, and of a round counts the better of as many threads as cores, and one: threads cost small
networks more than they bring where others use the cores. It computes no gradients of weights, as the authors' programs
do. Before anything is timed, both must give the same numbers.
"""

import io
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from artifact.contract import CONTRACT_FILE, ImageContract, read_contract
from bench.relevance.loads import Load, find_methods
from bench.relevance.ratios import Compared, Target, compare
from bench.servers import serving_regard
from model.attention import explained_attention
from model.vit import VisionTransformer
from regard import Client

_Maps = list[NDArray[np.float32]]
_BATCH, _TOLERANCE = 8, 1e-4
_FASTER = Target(2, is_most=False)
Explain = Callable[[VisionTransformer, Tensor, int], Tensor]


def genatt(network: VisionTransformer, pixels: Tensor, label: int) -> Tensor:
    """Chefer et al. 2021, equations 5 and 6: the class token's row of all layers' product, float32 [B, N]."""
    outputs, attentions = network.explain(pixels)
    gradients = torch.autograd.grad(outputs["logits"][:, label].sum(), attentions)
    positions = attentions[0].shape[-1]
    identity = torch.eye(positions).expand(len(pixels), -1, -1)
    relevance = identity
    for attention, gradient in zip(attentions, gradients, strict=True):
        mean = (gradient * attention).clamp(min=0).mean(dim=1)  # [B, N, N]
        relevance = relevance + mean @ relevance
    return (relevance - identity)[:, 0].detach()


def legrad(network: VisionTransformer, pixels: Tensor, label: int) -> Tensor:
    """Bousselham et al. 2025: the mean over layers of the positive gradient at each layer's attention, float32 [B, N].

    Of the class token's row alone, as the server does: the others are 0.
    """
    assert network.classifier is not None  # noqa: S101 -- fashion's network has one
    _, attentions, states = network._run(pixels, explained_attention)
    total = torch.zeros(())
    for attention, state in zip(attentions, states[1:], strict=True):
        logits = network.classifier(network.encoder.final_norm(state)[:, 0])
        (gradient,) = torch.autograd.grad(logits[:, label].sum(), attention, retain_graph=True)
        total = total + gradient.clamp(min=0).mean(dim=1)[:, 0]
    return total / len(attentions)


METHODS: dict[str, Explain] = {"legrad": legrad, "genatt": genatt}


def read_pixels(image: bytes, contract: ImageContract, rows: int) -> Tensor:
    """Some rows of one image that has the network's size, as it takes it: float32 [rows, C, H, W]."""
    pixels = np.atleast_3d(np.array(Image.open(io.BytesIO(image)).convert(contract.mode), dtype=np.float32)) / 255
    mean, std = (np.array(one, dtype=np.float32) for one in (contract.mean, contract.std))
    normalised = (pixels - mean) / std
    return torch.from_numpy(normalised.transpose(2, 0, 1))[None].repeat(rows, 1, 1, 1)


def measure_eager(load: Load, network: VisionTransformer, rounds: int, calls: int) -> tuple[list[Compared], list[str]]:
    """Explain eight images a call, so many calls a round, by server and PyTorch in turn.

    Args:
        load: The artifact, and an image of its network's size.
        network: What it was made of.
        rounds: How many.
        calls: In each.

    Returns:
        Figures, and lines that say what is left out.

    Raises:
        ValueError: Server and PyTorch do not give the same numbers.
    """
    contract = read_contract(load.artifact / CONTRACT_FILE).image
    assert contract is not None  # noqa: S101 -- it takes images
    images = load.inputs["images"] * _BATCH
    network.requires_grad_(requires_grad=False)
    pixels, found = read_pixels(images[0], contract, _BATCH).requires_grad_(), list[Compared]()
    with serving_regard(load.artifact.parents[1]) as serving, Client(serving.address, timeout=600) as client:
        requests, left_out = find_methods(client, load)
        for method in [method for method in METHODS if method in requests]:

            def ask(method: str = method) -> _Maps:
                answers = client.classify_many(images=images, model=load.name, relevance=requests[method])
                return [answer.relevance.values for answer in answers if answer.relevance]

            def explain(method: str = method) -> _Maps:
                return list(METHODS[method](network, pixels, 0).detach().numpy())

            check_equal(ask(), explain(), method)
            rates: tuple[list[float], list[float]] = ([], [])
            for number in range(-1, rounds):
                for side in (0, 1) if number % 2 else (1, 0):
                    rate = _best_rate(explain, calls) if side else _rate(ask, calls)
                    if number >= 0:  # the first round warms up
                        rates[side].append(rate)
            what = f"{method}, {_BATCH} a call, to eager PyTorch"
            found.append(compare(load.name, what, [rates], "images/s", _FASTER))
    return found, [line for line in left_out if any(f" {method} " in line for method in METHODS)]


def check_equal(mine: _Maps, other: _Maps, method: str) -> None:
    """Compare what two ways give.

    Raises:
        ValueError: They differ by more than a ten-thousandth of the largest number, or are not numbers.
    """
    worst = float(np.abs(np.stack(mine) - np.stack(other)).max() / np.abs(np.stack(other)).max())
    if not worst <= _TOLERANCE:
        raise ValueError(f"{method}: server and PyTorch differ by {worst:.1e}; expected {_TOLERANCE:.0e} at most")


def _best_rate(run: Callable[[], object], calls: int) -> float:
    rates = []
    for threads in {1, len(os.sched_getaffinity(0))}:
        torch.set_num_threads(threads)
        rates.append(_rate(run, calls))
    return max(rates)


def _rate(run: Callable[[], object], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return calls * _BATCH / (time.perf_counter() - began)
