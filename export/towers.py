"""Builds the artifact of two towers: each exported by itself, their scores compared, both published as one model."""

import inspect
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artifact.contract import PLAIN_GRAPH, Contract, RelevanceGraph, read_contract
from artifact.dtypes import Array
from artifact.errors import ContractError
from artifact.files import hash_file, versions
from artifact.installed import installed_version
from artifact.towers import IMAGE_TOWER, TEXT_TOWER, TOWERS_FILE, TowersContract, contract_paths, read_towers
from artifact.verification import Check
from export.build import DEFAULT_RELEVANCE, build
from export.cases import make_cases
from export.errors import VerificationError
from export.publish import next_version, publish, staging_folder, write_contract
from export.reach import Reach
from export.served import check_loads
from export.session import open_session, run_session
from export.towers_folder import TwoTowers
from export.traits import Feed
from export.transformers_traits import resizing

_TEMPLATES = {"softmax": "a photo of a {}.", "sigmoid": "This is a photo of {}."}
_LIMIT = 1e-4  # of cosines; logits are these times the scale
_SCORES = "logits_per_image"


@dataclass(frozen=True)
class BuiltTowers:
    """Where the artifact lies, its contracts, and whether it was there already."""

    folder: Path
    contract: TowersContract
    text: Contract
    image: Contract
    unchanged: bool


def build_towers(
    towers: TwoTowers,
    out: Path,
    report: Callable[[str], None] = lambda step: None,
    relevance: Sequence[RelevanceGraph] = DEFAULT_RELEVANCE,
) -> BuiltTowers:
    """Export both towers and publish them as the next version of one model; the arguments are those of build.

    Raises:
        ExportError: As build; or the scores of the graphs differ from the library's; nothing was published.
    """
    with staging_folder(out, towers.name) as staging, tempfile.TemporaryDirectory(prefix="regard-") as work:
        contracts = list[Contract]()
        for place, source in ((TEXT_TOWER, towers.text), (IMAGE_TOWER, towers.image)):

            def tell(step: str, place: str = place) -> None:
                report(f"{place}: {step}")

            built = build(source, Path(work, place), tell, relevance=relevance)
            shutil.move(built.folder, staging / place)
            tower = built.contract.model_copy(update={"version": next_version(out, towers.name)})
            write_contract(staging / place, tower)
            contracts.append(tower)
        text, image = contracts
        report("comparing the scores")
        contract = _make_contract(towers, text, image, staging)
        (staging / TOWERS_FILE).write_text(contract.model_dump_json(indent=2) + "\n")
        check_loads(staging, contract)
        same = _same_as_newest(out, contract, contracts)
        if same is not None:
            found = {"version": same}
            text, image = (one.model_copy(update=found) for one in (text, image))
            folder = out / towers.name / str(same)
            return BuiltTowers(folder, contract.model_copy(update=found), text, image, unchanged=True)
        return BuiltTowers(publish(staging, out, contract), contract, text, image, unchanged=False)


def _make_contract(towers: TwoTowers, text: Contract, image: Contract, folder: Path) -> TowersContract:
    assert text.embedding  # noqa: S101 -- _joining has seen to it
    whole = towers.whole
    return TowersContract(
        name=towers.name,
        version=text.version,
        family=str(whole.config.model_type),
        description=towers.text.description,
        dim=text.embedding.dim,
        logit_scale=towers.logit_scale,
        logit_bias=towers.logit_bias,
        activation=towers.activation,
        template=_TEMPLATES[towers.activation],
        files={path: hash_file(folder / path) for path in contract_paths()},
        origin=towers.origin,
        made_with={name: installed_version(name) for name in towers.text.made_with},
        verification=_verify(towers, folder),
    )


def _verify(towers: TwoTowers, folder: Path) -> tuple[Check, ...]:
    """Compare the scores of texts and images by both graphs with the library's.

    Raises:
        VerificationError: They differ.
    """
    text, image = towers.text, towers.image
    feeds = [case.feed for case in make_cases(Reach(text.traits, {}))]
    pixels = make_cases(Reach(image.traits, {}))[1].feed
    seen = _vectors(folder / IMAGE_TOWER, pixels)
    limit = _LIMIT * max(1.0, towers.logit_scale)
    differences = list[float]()
    for feed in feeds:
        found = towers.logit_scale * seen @ _vectors(folder / TEXT_TOWER, feed).T + towers.logit_bias
        expected = _ask_whole(towers.whole, {**feed, **pixels})
        if expected.shape != found.shape:
            raise VerificationError(f"{towers.name}: {_SCORES} is {list(expected.shape)}; expected {list(found.shape)}")
        differences.append(float(np.abs(found - expected).max()))
    if not (worst := float(np.max(differences))) <= limit:  # which NaN is not
        line = f"{_SCORES}: against torch: {worst:.3g}, limit {limit:.3g}"
        raise VerificationError(f"the towers together differ from the network; each alone: --part:\n  {line}")
    relative = worst / max(1.0, towers.logit_scale)
    cases = len(feeds)
    return (Check(tensor=_SCORES, check="against torch", cases=cases, max_abs=worst, max_rel=relative, limit=limit),)


def _vectors(folder: Path, feed: Feed) -> Array:
    return run_session(open_session(folder / PLAIN_GRAPH), feed)["embedding"]


def _ask_whole(whole: Any, feed: Feed) -> Array:
    taken = inspect.signature(whole.forward).parameters
    given = {name: torch.from_numpy(array) for name, array in feed.items() if name in taken}
    options = resizing(whole, feed["pixel_values"].shape[-1])
    with torch.inference_mode():
        scores: Array = getattr(whole(**given, **options), _SCORES).numpy()
    return scores


def _same_as_newest(out: Path, contract: TowersContract, towers: Sequence[Contract]) -> int | None:
    """Return the newest version if its files and contracts, but for version and measurements, are the same."""
    newest = max(versions(out / contract.name), default=None)
    if newest is None:
        return None
    folder = out / contract.name / str(newest)
    try:
        whole = read_towers(folder / TOWERS_FILE)
        parts = [read_contract(folder / path) for path in contract_paths()]
    except ContractError:
        return None
    same = {"version": contract.version, "verification": contract.verification, "files": contract.files}
    if whole.model_copy(update=same) != contract:
        return None
    for part, tower in zip(parts, towers, strict=True):
        ignored = {"version": tower.version, "verification": tower.verification}
        if part.model_copy(update=ignored) != tower:
            return None
    return newest
