"""Versions of what is installed; regard's own is told in a plain copy of the repository, too."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def installed_version(distribution: str = "regard") -> str:
    """Version of a distribution; of regard, where it is not installed, that which the checkout's pyproject.toml has.

    Returns:
        The version, or "unknown" with the reason.
    """
    try:
        return version(distribution)
    except PackageNotFoundError:
        if distribution != "regard":
            return "unknown: not installed"
    try:
        return str(tomllib.loads(_PROJECT.read_text())["project"]["version"])
    except (OSError, ValueError, KeyError) as error:
        return f"unknown: regard is not installed, and {_PROJECT.name}: {type(error).__name__}"
