"""Makes the pictures of docs/pictures.md by the commands beside them: python -m tests.docs.pictures.

Needs a server that runs: python -m server --models models, with the models that those commands name. Pictures of models
that it does not have are left as they are, and named.
"""

import argparse
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from regard import Client
from tests.docs.snippets import ROOT

DPI = 100
"""Fine enough for a page, and a third of the bytes of what is drawn for a screen."""
_PAGE = ROOT / "docs" / "pictures.md"
_SHOWN = re.compile(r"`(?P<command>regard [^`]+)`(?:(?!`regard ).)*?!\[[^]]*\]\(images/(?P<name>[^)]+)\)", re.S)


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:8001", help="HOST:PORT of the regard server")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="the folder for the pictures")
    args = parser.parse_args()
    with Client(args.server) as client:
        served = {model.name for model in client.models()}
    for command, name in shown():
        if lacking := models_of(command) - served:
            print(f"left {name} as it is: the server has no {' and no '.join(sorted(lacking))}")
            continue
        draw(command, args.out / name, args.server)
        print(f"wrote {args.out / name}, {(args.out / name).stat().st_size} bytes")


def shown() -> Iterator[tuple[list[str], str]]:
    """Yield the words of each command, without its -o, and the name of the picture that it makes."""
    for found in _SHOWN.finditer(_PAGE.read_text()):
        words = shlex.split(" ".join(found["command"].split()))
        if "-o" in words:
            words = words[: words.index("-o")] + words[words.index("-o") + 2 :]
        yield words, found["name"]


def models_of(command: list[str]) -> set[str]:
    """Return the models that a command names."""
    return {value for option, value in itertools.pairwise(command) if option in ("--model", "--compare")}


def draw(command: list[str], path: Path, server: str) -> None:
    """Run a command as a user would."""
    dpi = ["--dpi", str(DPI)] if command[1] == "attend" else []
    run = [sys.executable, "-m", *command, *dpi, "-o", str(path)]
    environment = os.environ | {"REGARD_SERVER": server}
    subprocess.run(run, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
