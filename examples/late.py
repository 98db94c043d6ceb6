"""Makes a model of late interaction of all-MiniLM-L6-v2, for pictures: `python -m examples.late`.

Its token vectors are used as they are, at length 1. It was trained for the mean of these, not for MaxSim; a model that
was, as PyLate saves it, is a folder of the same files.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from export.known import fetch_minilm

_SETTINGS = {
    "similarity_fn_name": "MaxSim",
    "query_prefix": "",
    "document_prefix": "",
    "query_length": 32,
    "document_length": 64,
    "do_query_expansion": False,
    "skiplist_words": [],
}
_DENSE = {
    "bias": False,
    "use_residual": False,
    "activation_function": "torch.nn.modules.linear.Identity",
    "module_input_name": "token_embeddings",
    "module_output_name": "token_embeddings",
}
_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
]


def write_folder(network: Path, out: Path) -> None:
    """Write PyLate's files around a network of sentence vectors, whose token vectors stay as they are."""
    (out / "1_Dense").mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(network / name, out / name)
    width = json.loads((out / "config.json").read_text())["hidden_size"]
    save_file({"linear.weight": torch.eye(width)}, out / "1_Dense" / "model.safetensors")
    sizes = {"in_features": width, "out_features": width}
    (out / "1_Dense" / "config.json").write_text(json.dumps(sizes | _DENSE))
    (out / "modules.json").write_text(json.dumps(_MODULES))
    (out / "config_sentence_transformers.json").write_text(json.dumps(_SETTINGS))


def main() -> None:
    """Fetch the network and write the folder."""
    parser = argparse.ArgumentParser(prog="python -m examples.late", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("downloads"), help="where packages are kept")
    parser.add_argument("--out", type=Path, default=Path("downloads/minilm-late"), help="where the folder goes")
    args = parser.parse_args()
    write_folder(fetch_minilm(args.cache), args.out)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
