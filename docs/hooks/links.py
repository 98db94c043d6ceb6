"""Links from a page to a file of the checkout that is no page: shown as its path, and checked to be there."""

import logging
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")
_log = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Replace links that leave the documentation; a warning, which `strict` makes an error, where nothing is there."""
    docs = Path(config["docs_dir"])
    return show_paths(markdown, docs / page.file.src_uri, docs)


def show_paths(markdown: str, page: Path, docs: Path) -> str:
    """Return the page's text with each link to a file outside `docs` as text and path."""

    def show(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = (page.parent / target).resolve()
        if path.is_relative_to(docs.resolve()):
            return link.group()
        if not path.exists():
            _log.warning("%s: links to %s, which is not there", page.name, target)
            return text
        shown = f"`{path.relative_to(docs.resolve().parent)}`"
        return shown if text.strip("`") in (path.name, shown.strip("`")) else f"{text} ({shown})"

    return _LINK.sub(show, markdown)
