"""Makes a checkpoint folder of the network in the package rxnmapper: config.json, model.safetensors, tokenizer.json.

The network is an ALBERT (12 layers that share their weights, 8 heads, width 256) trained on reactions with masked
tokens, by Schwaller et al. 2021, doi:10.1126/sciadv.abe4166; MIT licence.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from export.fetch import PackagedFile, fetch_file

PACKAGE, VERSION = "rxnmapper", "0.4.3"

_INSIDE = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
_FILES = {
    "config.json": "ea0f3144af1d13a5d5928cff01abd8e7c14ab831ff7b6d73a14d4162864a876f",
    "pytorch_model.bin": "8541f3f500dae71abe678d546bd035ca946e2d1c819f6b2cf41a97faedd7e6a2",
    "vocab.txt": "399868a653e85549ce150af4a1f6cd2776240c6a3d951ced2120565f00f027fd",
}
_PREFIX = "albert."  # of the network below the head for masked tokens, which is not needed
_UNKNOWN, _FIRST, _LAST = "[UNK]", "[CLS]", "[SEP]"
# An atom in brackets, an atom, a bond, a branch, a number of a ring, or an arrow: as the package reads SMILES.
_PIECE = (
    r"\[[^\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p"
    r"|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>>?|\*|\$|%[0-9]{2}|[0-9]"
)


def write_checkpoint(cache: Path) -> Path:
    """Fetch the package's files unless they lie in the cache, and write cache/rxnmapper/checkpoint.

    Raises:
        FetchError: They could not be had.
    """
    config, weights, vocabulary = (
        fetch_file(PackagedFile(PACKAGE, VERSION, f"{_INSIDE}/{name}", sha256), cache)
        for name, sha256 in _FILES.items()
    )
    folder = cache / PACKAGE / "checkpoint"
    folder.mkdir(exist_ok=True)
    described = json.loads(config.read_text()) | {"architectures": ["AlbertModel"]}
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    stored = torch.load(weights, map_location="cpu", weights_only=True)
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items() if name.startswith(_PREFIX)}
    save_file(tensors, folder / "model.safetensors")
    make_tokenizer(vocabulary.read_text().splitlines()).save(str(folder / "tokenizer.json"))
    return folder


def make_tokenizer(vocabulary: list[str]) -> Tokenizer:
    """Split SMILES into tokens as the package does; characters that are none are left out.

    Args:
        vocabulary: Tokens in the order of their ids.
    """
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_FIRST} $A {_LAST}", special_tokens=[(token, ids[token]) for token in (_FIRST, _LAST)]
    )
    return tokenizer
