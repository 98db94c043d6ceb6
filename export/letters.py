"""Makes tokenizers of a vocabulary of letters and phones: one reads words letter by letter, one spells phones."""

import re
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_STRESSES = "012"
_CURLY = "\u2019"  # as word processors write an apostrophe


def make_letters(vocabulary: Sequence[str], end_token: int) -> str:
    """Make what reads text: a token a letter, and the end token.

    Letters are the tokens of one character that is no capital and no digit. Text is made lower case, accents are left
    out where no letter has any, and so is whatever is no letter.

    Returns:
        A file of the tokenizers library.

    Raises:
        ValueError: There are no letters.
    """
    letters = [token for token in vocabulary if len(token) == 1 and not (token.isupper() or token.isdigit())]
    if not any(letter.isalpha() for letter in letters):
        raise ValueError("vocabulary: no letters; expected tokens of one small letter each")
    known = {letter: vocabulary.index(letter) for letter in letters}
    end = vocabulary[end_token]
    tokenizer = Tokenizer(models.WordLevel({**known, end: end_token}))
    plain = all(letter.isascii() for letter in letters)
    tokenizer.normalizer = normalizers.Sequence(
        [
            *([normalizers.NFD(), normalizers.StripAccents()] if plain else [normalizers.NFC()]),
            normalizers.Lowercase(),
            *([normalizers.Replace(_CURLY, "'")] if "'" in known else []),
            normalizers.Replace(Regex(f"[^{''.join(map(re.escape, letters))}]"), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {end}", special_tokens=[(end, end_token)])
    return str(tokenizer.to_str(pretty=True))


def make_spelling(vocabulary: Sequence[str], special: Sequence[int]) -> str:
    """Make what spells phones with a space between; a stress, "0", "1" or "2", is joined to the vowel before it.

    Args:
        vocabulary: The text of each token.
        special: Tokens that have no text.

    Returns:
        A file of the tokenizers library, which reads such text again.
    """
    tokenizer = Tokenizer(models.WordLevel({text: token for token, text in enumerate(vocabulary)}))
    tokenizer.add_special_tokens([AddedToken(vocabulary[token], special=True) for token in sorted(set(special))])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(f"[{_STRESSES}]$"), "isolated")]
    )
    joined = [decoders.Replace(f" {stress}", stress) for stress in _STRESSES]
    tokenizer.decoder = decoders.Sequence([decoders.WordPiece("##", cleanup=False), decoders.Fuse(), *joined])
    return str(tokenizer.to_str(pretty=True))
