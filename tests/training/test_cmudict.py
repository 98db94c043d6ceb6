from pathlib import Path

import pytest

from training.cmudict import part_of, pick, read_dictionary, without_stress

LINES = """'bout B AW1 T
a AH0
a(2) EY1
aalborg AO1 L B AO0 R G # place, danish
a.d. EY2 D IY1
"""


def test_entries_are_read_with_all_variants_of_a_word_together(tmp_path: Path) -> None:
    """Without comments and numbers of variants, in the order of the file."""
    path = tmp_path / "cmudict.dict"
    path.write_text(LINES)
    assert read_dictionary(path) == {
        "'bout": (("B", "AW1", "T"),),
        "a": (("AH0",), ("EY1",)),
        "aalborg": (("AO1", "L", "B", "AO0", "R", "G"),),
        "a.d.": (("EY2", "D", "IY1"),),
    }


@pytest.mark.parametrize("line", ["word", "word  ", "word ah0", ""])
def test_lines_that_are_no_entries_are_named(line: str, tmp_path: Path) -> None:
    """By file, number and content."""
    path = tmp_path / "cmudict.dict"
    path.write_text(f"a AH0\n{line}\nb B IY1\n")
    with pytest.raises(ValueError, match=rf"cmudict\.dict, line 2: '{line}'; expected a word and its phones"):
        read_dictionary(path)


def test_stress_is_left_out() -> None:
    """Of vowels; consonants have none."""
    assert without_stress(("AH0", "B", "AW1", "T", "AE2")) == ("AH", "B", "AW", "T", "AE")


def test_each_word_is_in_one_part_whatever_else_there_is() -> None:
    """About 5 of 100 in the test, 1 in the validation; the same parts at any time."""
    dictionary = {f"word{index}": ((str(index),), ("X",)) for index in range(20_000)}
    parts = {name: pick(dictionary, name) for name in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == len(dictionary)
    assert parts["train"] | parts["validation"] | parts["test"] == dictionary
    assert len(parts["test"]) / len(dictionary) == pytest.approx(0.05, abs=0.01)
    assert len(parts["validation"]) / len(dictionary) == pytest.approx(0.01, abs=0.005)
    assert [part_of(word) for word in ("transformer", "neural")] == ["train", "test"]
