"""Writes texts with the library transformers or with CTranslate2: `write_texts.py FOLDER LIBRARY THREADS`.

Each line of standard input is JSON, the most tokens to write of each and a list of lists of tokens. All are written
greedily as one batch; the answer is a list of lists of tokens. Needs torch and transformers, for either library.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

Lists = list[list[int]]
Write = Callable[[Lists, int], Lists]


def main() -> None:
    """Answer until the input ends."""
    folder, library, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    write = {"transformers": _by_transformers, "ctranslate2": _by_ctranslate2}[library](folder, threads)
    print(json.dumps([]), flush=True)  # ready
    for line in sys.stdin:
        max_tokens, sources = json.loads(line)
        print(json.dumps(write(sources, max_tokens)), flush=True)


def _by_transformers(folder: Path, threads: int) -> Write:
    torch.set_num_threads(threads)
    network: Any = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    pad, end = network.config.pad_token_id, network.config.eos_token_id

    def write(sources: Lists, max_tokens: int) -> Lists:
        longest = max(map(len, sources))
        ids = torch.tensor([[*one, *[pad] * (longest - len(one))] for one in sources])
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in sources])
        with torch.inference_mode():
            written = network.generate(
                ids, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=max_tokens
            )
        return [_until(row[1:], end) for row in written.tolist()]

    return write


def _until(tokens: Sequence[int], end: int) -> list[int]:
    """Return the tokens up to the end token, which counts."""
    return [*tokens[: tokens.index(end)], end] if end in tokens else list(tokens)


def _by_ctranslate2(folder: Path, threads: int) -> Write:
    import ctranslate2  # type: ignore[import-not-found]
    from ctranslate2.converters import TransformersConverter  # type: ignore[import-not-found]

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as made:
        TransformersConverter(str(folder)).convert(made, force=True)
        translator = ctranslate2.Translator(made, compute_type="float32", intra_threads=threads)

    def write(sources: Lists, max_tokens: int) -> Lists:
        found = translator.translate_batch(
            [tokenizer.convert_ids_to_tokens(one) for one in sources],
            beam_size=1,
            max_decoding_length=max_tokens,
            disable_unk=False,
            return_end_token=True,
        )
        return [tokenizer.convert_tokens_to_ids(one.hypotheses[0]) for one in found]

    return write


if __name__ == "__main__":
    main()
