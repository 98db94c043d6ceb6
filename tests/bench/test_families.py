"""The matrix of families: what is tried, what is found of it, and the page that says so."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.answers import ROWS
from bench.families import configurations, examine, keep, read_findings
from bench.families_page import Finding, make_page, read_page
from bench.family_variants import MOST_USED, VARIANTS
from bench.report import targets_of_answers
from tests.export.families import FAMILIES, shallow

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
TUTORIAL = PAGE.parent / "tutorials" / "your-model.md"
ROW = re.compile(r"^\| (?!network|---)(.+?) \|", re.MULTILINE)


def test_the_page_has_what_is_in_the_matrix() -> None:
    """Each once, whether tapped or not."""
    assert sorted(ROW.findall(PAGE.read_text())) == sorted(configurations())


def test_what_a_page_says_is_kept_where_some_families_are_tried_again() -> None:
    """Read and written again it is the same, to the letter; of other versions nothing is kept."""
    page = PAGE.read_text()
    findings = read_page(page)
    names = list(configurations())
    assert make_page({name: findings[name] for name in names}, names) == page
    other = {"bert": Finding(reason="a | b <c>"), "albert": replace(findings["albert"], weights=1)}
    made = make_page(findings | other, names)
    assert "| bert | a \\| b &lt;c> |" in made
    assert read_page(made)["bert"] == Finding(reason="a | b <c>")
    assert "eager attention by 1.0e+00 at most" in made
    with pytest.raises(ValueError, match=r"is not of transformers [\d.]+, torch .*; expected all families"):
        read_page(page.replace("transformers", "transformers 4.9", 2))


def test_of_the_families_used_most_55_are_tapped() -> None:
    """Of 60, as they are, without a variant."""
    findings = read_page(PAGE.read_text())
    assert sum(not findings[name].reason for name in MOST_USED) >= 55


def test_each_network_that_is_refused_is_among_the_reasons() -> None:
    """By its family's name."""
    refused = [name for name, one in read_page(PAGE.read_text()).items() if one.reason]
    families = {re.split(r"[:,]|_vision", name)[0] for name in refused}
    reasons = PAGE.read_text().partition("## Not tapped")[2].partition("| network |")[0].lower()
    assert [name for name in sorted(families) if not re.search(rf"\b{name}\b", reasons)] == []


def test_the_counts_elsewhere_are_the_pages() -> None:
    """The tutorial and the targets name them."""
    tapped, refused = re.findall(r"^## (?:Tapped|Not tapped): (\d+)$", PAGE.read_text(), re.MULTILINE)
    told = " ".join(TUTORIAL.read_text().split())
    assert f"lists {tapped} networks that were exported and compared, and {refused} that cannot be" in told
    worst = max(max(one.outputs, one.weights) for one in read_page(PAGE.read_text()).values())
    measured = f"{tapped} tapped, within {worst:.1e}; [{refused} refused](families.md#not-tapped-{refused})"
    assert measured in [row[1] for row in ROWS]


def test_what_other_commands_measured_stands_in_the_page_of_performance() -> None:
    """As the page's writer has it, so that writing it again keeps it."""
    assert "\n".join(targets_of_answers()) in (PAGE.parent / "performance.md").read_text()


def test_variants_are_of_families_that_are_there_and_differ_from_them() -> None:
    """A misspelt family, or a variant that is the family itself, would be tried for nothing."""
    assert VARIANTS.keys() <= FAMILIES.keys()
    assert FAMILIES.keys() >= MOST_USED
    assert len(MOST_USED) == 60
    for name, family in configurations().items():
        plain, _, variant = name.partition(": ")
        assert (family != FAMILIES[plain]) == bool(variant), name


@pytest.mark.parametrize(
    ("name", "attention", "rule", "longest"),
    [
        ("bert: odd sizes", "1 x 3 self", "fused", 64),
        ("mistral: windows", "1 x 4 causal", "fused", 200),
        ("big_bird: block_sparse, longer than its blocks", "1 x 4 self", "eager", 144),
    ],
)
def test_what_is_tapped_is_found_equal(name: str, attention: str, rule: str, longest: int) -> None:
    """Alone, in company, and beyond any window."""
    found = examine(shallow(configurations()[name]))
    assert (found.attention, found.rule, found.longest, found.takes) == (attention, rule, longest, "texts")
    assert 0 < found.weights < 1e-5
    assert found.alone < 1e-5
    assert not found.reason


def test_what_is_refused_is_found_with_the_reason() -> None:
    """Without the name of the folder it was written to."""
    found = examine(shallow(configurations()["falcon: ALiBi"]))
    assert found.reason.startswith("falcon: transformers itself computes another last_hidden_state")
    assert not found.attention


def test_the_newest_finding_of_what_is_still_tried_is_kept(tmp_path: Path) -> None:
    """In the order of the matrix, whoever wrote first."""
    file = tmp_path / "build" / "families.jsonl"
    assert read_findings(file) == {}
    for name, seconds in (("vit", 1), ("gone", 2), ("bert: long", 3), ("vit", 4)):
        keep(name, Finding(seconds=seconds), file)
    assert [(name, one.seconds) for name, one in read_findings(file).items()] == [("bert: long", 3), ("vit", 4)]


def test_a_page_says_what_was_tapped_and_what_was_not() -> None:
    """A bar in a message does not end its cell; what was not tried is no secret."""
    tapped = Finding(
        "input_ids", "2 x 4 self", "fused", 1e-6, 2e-6, 3e-7, 64, value_norms=True, takes="texts", seconds=9
    )
    page = make_page({"bert": tapped, "swin": Finding(reason="a | b <eos>")}, ["bert", "swin", "vit"])
    assert "| bert | 2 x 4 self | fused | 64 | 1.0e-06 | 2.0e-06 | yes | texts | 9 |" in page
    assert "| swin | a \\| b &lt;eos> |" in page
    assert "most used (the latter names them) 1 are tapped" in page
    for kind in ("Tapped", "Not tapped", "Not tried yet"):
        assert f"## {kind}: 1\n" in page
    assert page.endswith("| vit |\n")
