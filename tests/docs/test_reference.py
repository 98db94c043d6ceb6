"""The generated references leave nothing out, and links that lead out of the site are checked."""

import logging

import pytest

import regard
from docs.hooks import links, protos
from regard.v1 import regard_pb2, types_pb2
from tests.docs.snippets import ROOT

DOCS = ROOT / "docs"


def test_the_protocol_has_every_method_message_field_and_value() -> None:
    """As the stubs have them; and a comment that a field has."""
    page = protos.render()
    service = regard_pb2.DESCRIPTOR.services_by_name["RegardService"]
    assert [name for name in service.methods_by_name if f"| `{name}` |" not in page] == []
    for file in (regard_pb2.DESCRIPTOR, types_pb2.DESCRIPTOR):
        for message in file.message_types_by_name.values():
            rows = page.partition(f"## {message.name}\n")[2].partition("\n## ")[0]
            assert [field.name for field in message.fields if f"| `{field.name}` = {field.number} |" not in rows] == []
        for enum in file.enum_types_by_name.values():
            assert [value.name for value in enum.values if f"| `{value.name}` = {value.number} |" not in page] == []
    assert "| map of string to [Tensor](#tensor) | By input name, each shaped as GetModel says." in page
    assert "stream of [AttendResponse](#attendresponse)" in page


def test_the_command_lines_have_every_flag_and_command() -> None:
    """Of the server, of regard, of the exporter."""
    pytest.importorskip("torch", reason="the exporter needs the extra export")
    pytest.importorskip("typer", reason="the command line needs the extra explore")
    from docs.hooks import commands
    from server.config import Config

    page = commands.render()
    flags = [f"`--{name.replace('_', '-')}` | `REGARD_{name.upper()}`" for name in Config.model_fields]
    assert [flag for flag in flags if flag not in page] == []
    assert "| `--threads` | `REGARD_THREADS` | `0` |" in page
    for heading in ("## python -m server", "## regard", "### regard attend", "## python -m export"):
        assert f"\n{heading}\n" in page


def test_the_python_reference_has_every_public_name() -> None:
    """Of the client; pictures are documented by their module as a whole."""
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    assert [name for name in regard.__all__ if f"::: regard.{name}\n" not in page and name[0] != "_"] == []


def test_a_link_to_a_file_outside_the_site_is_shown_as_its_path() -> None:
    """Links between pages and pictures stay as they are."""
    text = "[proto](../proto/regard/v1/regard.proto), [Makefile](../Makefile), [a](attention.md), ![p](../docs/x.png)"
    shown = links.show_paths(text, DOCS / "security.md", DOCS)
    assert shown == "proto (`proto/regard/v1/regard.proto`), `Makefile`, [a](attention.md), ![p](../docs/x.png)"


def test_a_link_to_a_file_that_is_not_there_is_a_warning_which_the_build_makes_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the page and the target."""
    with caplog.at_level(logging.WARNING):
        links.show_paths("[gone](../gone.py)", DOCS / "security.md", DOCS)
    assert caplog.messages == ["security.md: links to ../gone.py, which is not there"]


def test_every_page_is_one_of_the_navigation_or_said_not_to_be() -> None:
    """The build checks it too, where mkdocs is installed."""
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))]
    assert [page for page in pages if page not in configuration] == []
