"""Makes the golden text network and its artifact again: `python -m tests.golden.make`; needs the extra export."""

import shutil

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from export.build import build
from export.sources import load_folder
from model.checkpoint import save_network
from model.encoder import EncoderConfig
from model.text import TextConfig, TextNetwork
from tests.golden import GOLDEN_MODELS, GOLDEN_NETWORK

NAME = "tiny-text"
MAX_POSITIONS = 64
_WORDS = "the a cat dog sat ran on mat film was good bad and not very it is to see of one".split()  # noqa: SIM905


def make_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of some words and all printable ASCII characters."""
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_WORDS, *characters, *(f"##{c}" for c in characters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 -- no password
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return tokenizer


def make_network(vocab_size: int) -> TextNetwork:
    """Random weights, large enough that attention is far from uniform."""
    torch.manual_seed(0)
    encoder = EncoderConfig(32, 2, 4, 64, norm="post", positions="learned", max_positions=MAX_POSITIONS)
    network = TextNetwork(TextConfig(encoder, vocab_size, num_classes=2))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
    return network.eval()


def main() -> None:
    """Write the checkpoint folder, then export it."""
    tokenizer = make_tokenizer()
    save_network(make_network(tokenizer.get_vocab_size()), GOLDEN_NETWORK, labels=("negative", "positive"))
    tokenizer.save(str(GOLDEN_NETWORK / "tokenizer.json"))
    shutil.rmtree(GOLDEN_MODELS / NAME, ignore_errors=True)
    build(load_folder(GOLDEN_NETWORK, name=NAME, description="random weights, for tests"), GOLDEN_MODELS)


if __name__ == "__main__":
    main()
