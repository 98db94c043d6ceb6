"""Says how an extra of regard is installed, where something of it is missing."""

from pathlib import Path


def how_to_install(extra: str) -> str:
    """Name the command: with the wheel's file where regard came as one, in the checkout otherwise."""
    from importlib.metadata import version  # reads e-mail's headers, which takes long to import

    bundled = (Path(__file__).parent / "_app").is_dir()
    what = f"regard-{version('regard')}-py3-none-any.whl" if bundled else "."
    return f"install regard with its extra {extra}: pip install '{what}[{extra}]'"
