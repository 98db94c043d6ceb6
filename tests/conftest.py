"""Leaves out what needs an extra that is not installed: a server installation has no torch and draws no pictures."""

from importlib.util import find_spec

from hypothesis import settings

# How long an example takes says nothing about whether it is right.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_NEEDS = {
    "export": "torch",
    "model": "torch",
    "training": "torch",
    "client/test_attending.py": "matplotlib",
    "client/test_cli.py": "matplotlib",
    "client/test_pictures.py": "matplotlib",
    "client/test_pictures_pages.py": "matplotlib",
    "client/test_pictures_texts.py": "matplotlib",
    "client/test_terminal.py": "rich",
    "e2e/test_notebook.py": "nbclient",
    "explorer": "starlette",
}
collect_ignore = [path for path, package in _NEEDS.items() if find_spec(package) is None]


def pytest_report_header() -> list[str]:
    """Say what is left out, so that nobody takes silence for success."""
    return [f"{_NEEDS[path]} is not installed: tests/{path} is left out" for path in collect_ignore]
