import pytest
from tokenizers import Tokenizer

from export.letters import make_letters, make_spelling

VOCABULARY = ("<pad>", "<s>", "</s>", *"'-.abc", "AA", "B", "0", "1", "2")
END = 2


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("cab", ["c", "a", "b"]),
        ("CAB", ["c", "a", "b"]),
        ("\u00c7\u00e1b", ["c", "a", "b"]),
        ("a\u2019b", ["a", "'", "b"]),
        ("a-b.", ["a", "-", "b", "."]),
        ("a b\n2 d0c", ["a", "b", "c"]),
        ("</s>a<s>", ["a"]),
        ("2", []),
    ],
)
def test_words_are_read_letter_by_letter(text: str, letters: list[str]) -> None:
    """Capitals and accents are the letters below them; what is no letter is left out, digits and token names too."""
    encoding = Tokenizer.from_str(make_letters(VOCABULARY, END)).encode(text)
    assert encoding.tokens == [*letters, "</s>"]
    assert encoding.ids == [VOCABULARY.index(token) for token in encoding.tokens]
    assert encoding.special_tokens_mask == [0] * len(letters) + [1]


def test_letters_are_found_in_the_text() -> None:
    """Whatever was left out before them."""
    encoding = Tokenizer.from_str(make_letters(VOCABULARY, END)).encode("12 C\u00e1b")
    assert encoding.offsets == [(3, 4), (4, 5), (5, 6), (0, 0)]


def test_letters_with_accents_are_kept_where_the_vocabulary_has_some() -> None:
    """Composed, as they stand there."""
    tokenizer = Tokenizer.from_str(make_letters(("<pad>", "<s>", "</s>", "e", "\u00e9"), END))
    assert tokenizer.encode("E\u0301e").tokens == ["\u00e9", "e", "</s>"]


def test_a_vocabulary_without_letters_is_refused() -> None:
    """It would read nothing."""
    with pytest.raises(ValueError, match="vocabulary: no letters; expected tokens of one small letter each"):
        make_letters(("<pad>", "<s>", "</s>", "'", "B", "1"), END)


def test_phones_are_spelled_with_a_space_between_and_their_stress_joined() -> None:
    """Token by token, as they are written; and read again."""
    spelling = Tokenizer.from_str(make_spelling(VOCABULARY, [0, 1, END]))
    ids = [VOCABULARY.index(token) for token in ("<s>", "B", "AA", "1", "B", "AA", "0", "B", "</s>", "<pad>")]
    grown = [spelling.decode(ids[: count + 1]) for count in range(len(ids))]
    assert grown == ["", "B", "B AA", "B AA1", "B AA1 B", "B AA1 B AA", "B AA1 B AA0", *["B AA1 B AA0 B"] * 3]
    assert spelling.encode("B AA1  B\nAA0 B").ids == ids[1:-2]
    assert spelling.encode("AA B").tokens == ["AA", "B"]
