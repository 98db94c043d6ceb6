"""An HTML file that loads nothing and runs no script, so that it may be mailed: a title, facts, and a body."""

import base64
import hashlib
import html
from collections.abc import Iterable
from string import Template

_PAGE = Template("""<!doctype html>
<html lang="en"$root>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src '$style_hash'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$css</style>
</head>
<body>
<main>
<h1>$title</h1>
<dl>
$facts
</dl>
$body
</main>
</body>
</html>
""")


def html_page(title: str, facts: Iterable[tuple[str, str]], body: str, css: str, *, root: str = "") -> str:
    """Return the text of a page.

    Args:
        title: Its heading, as text.
        facts: Names and values below it, as text.
        body: What follows, as HTML.
        css: Its one style sheet, which its policy allows by the hash.
        root: Attributes of the whole, with a blank before each.
    """
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    told = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts)
    return _PAGE.substitute(
        root=root,
        style_hash=f"sha256-{digest}",
        title=html.escape(title),
        css=css,
        facts="\n".join(told),
        body=body,
    )
