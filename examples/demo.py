"""What regard does, seen end to end: `make demo`.

First what is embedded: served, asked with the real client and command line, drawn, and counted; nothing is downloaded.
With `--real`, known models are exported and asked on photographs and sentences likewise. Where weights cannot be
downloaded, what needs them is left out and named. Fails loudly where an answer is not what it should be.
"""

import argparse
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

import regard

EXAMPLES = Path(__file__).parent
# The same vision transformer once more at the resolution its positions were learned at, for finer pictures.
FINE_MODEL, FINE_IMAGE_SIZE = "vit-s14-518", 518
MODELS = (
    ("fashion", "--relevance", "all"),
    ("minilm",),
    ("vit-s14",),
    ("vit-s14", "--name", FINE_MODEL, "--image-size", str(FINE_IMAGE_SIZE)),
    ("sentiment",),
    ("g2p",),
)
# The pair and its cosine according to the published model.
PAIR, PAIR_COSINE = ("A man is eating food.", "A man eats a meal."), 0.908
# A word, and how the CMU Pronouncing Dictionary speaks it.
WORD, PHONES = "transformer", "T R AE N S F AO R M ER"
REVIEWS = {"A warm, funny and moving film.": "positive", "Two dull hours that I want back.": "negative"}
_STOP_SECONDS = 60
NOT_DOWNLOADED = 69
"""How the exporter ends where weights cannot be downloaded (export.errors), which is not installed at first."""

console = Console(highlight=False)


class DemoError(Exception):
    """An answer is not what it should be."""


@dataclass(frozen=True)
class Served:
    """Where the server listens."""

    address: str
    metrics: str


def main() -> None:
    """Run every step of one half."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", action="store_true", help="export real models and ask them, instead of the embedded")
    parser.add_argument("--whole", action="store_true", help="fail where weights cannot be downloaded")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the artifacts go")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="where the pictures go")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        left_out = export_models(args.models) if args.real else []
        _check(not (args.whole and left_out), f"{', '.join(left_out)}: not downloaded")
        pictures = show_real(args.models, args.out) if args.real else show_embedded(args.out)
    except (DemoError, regard.RegardError, subprocess.CalledProcessError) as error:
        console.print(f"[red]demo failed:[/] {error}")
        sys.exit(1)
    console.rule("all done" if args.real else "this much is embedded")
    if left_out:
        console.print(f"Left out, since weights could not be downloaded (see above): {', '.join(left_out)}.")
    console.print("Look at the pictures:", *pictures, sep="\n  ", soft_wrap=True)


def show_embedded(out: Path) -> list[Path]:
    """Ask the embedded models: one names clothing, one writes how words are spoken, where it is there."""
    with serving(None) as served, regard.Client(served.address) as client:
        names = {model.name for model in client.models()}
        name_clothing(client)
        boot = out / "boot-heads.png"
        _rule("attend", "what each head of the last layer attends to in a boot, drawn by the command line; seconds")
        _regard(served, "attend", str(EXAMPLES / "clothing" / "ankle-boot.png"), "--model", "fashion", "-o", str(boot))
        pictures = [boot]
        if "g2p" in names:
            generate(client)
            pictures.append(align(served, out))
        show_metrics(served)
    return pictures


def show_real(models: Path, out: Path) -> list[Path]:
    """Ask what was exported, and what is embedded beside it; pictures of models that are not there are left out."""
    with serving(models) as served, regard.Client(served.address) as client:
        names = {model.name for model in client.models()}
        name_clothing(client)
        if "sentiment" in names:
            judge_reviews(client)
        if "minilm" in names:
            compare_sentences(client)
        if "vit-s14" in names:
            compare_photos(client)
        generate(client)
        pictures = [*attend(served, out, names), align(served, out)]
        show_metrics(served)
    return pictures


def export_models(folder: Path) -> list[str]:
    """Export every model, verified, and return those whose weights could not be downloaded.

    A second time this changes nothing.
    """
    left_out = []
    for number, arguments in enumerate(MODELS, 1):
        what = (
            "from PyTorch to a verified artifact; half a minute or so, and what weights that are not here take to come"
        )
        _rule(f"export {number} of {len(MODELS)}: {' '.join(arguments)}", f"{what} (170 MB in all)")
        command = [sys.executable, "-m", "export", *arguments, "--out", str(folder), "--summary"]
        done = subprocess.run(command, check=False)  # noqa: S603 -- our own fixed command
        if done.returncode == NOT_DOWNLOADED:
            left_out.append(FINE_MODEL if "--name" in arguments else arguments[0])
        else:
            done.check_returncode()
    return left_out


@contextmanager
def serving(folder: Path | None) -> Iterator[Served]:
    """Start the server on free ports, wait until it is ready, and stop it by SIGTERM; None is what is embedded."""
    _rule("serve", "the server loads the models; seconds")
    command = [sys.executable, "-m", "server", *(["--models", str(folder)] if folder else [])]
    command += ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 -- our own fixed command
        try:
            yield _wait_until_ready(process)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(_STOP_SECONDS)
    console.print(f"server stopped with exit code {code}")
    if code:
        raise DemoError(f"the server ended with exit code {code}")


def _wait_until_ready(process: "subprocess.Popen[str]") -> Served:
    """Read the lines that the server prints at start."""
    address = metrics = ""
    for line in process.stdout or ():
        console.print(line.rstrip(), soft_wrap=True)
        if line.startswith("gRPC on "):
            address, _, metrics = line.removeprefix("gRPC on ").strip().partition(", metrics on ")
        if line.startswith("ready"):
            return Served(address, metrics)
    raise DemoError("the server did not start")


def name_clothing(client: regard.Client) -> None:
    """Name clothing by the embedded network, or by the same one exported anew."""
    _rule("classify", "a small vision transformer names ten pieces of clothing; a second")
    right, files = 0, sorted((EXAMPLES / "clothing").glob("*.png"))
    for file in files:
        best = client.classify(image=file, model="fashion").labels[0]
        console.print(f"{file.stem:12} {best.name:12} {best.probability:.2f}")
        right += best.name.lower().replace("/", "-").replace(" ", "-") == file.stem
    console.print(f"{right} of {len(files)} right")
    _check(right >= len(files) - 1, f"{right} of {len(files)} right; expected at most one mistake")


def judge_reviews(client: regard.Client) -> None:
    """Tell good reviews from bad ones."""
    for text, expected in REVIEWS.items():
        best = client.classify(text=text, model="sentiment").labels[0]
        console.print(f"{text:40} {best.name} {best.probability:.2f}")
        _check(best.name == expected, f"{text!r} is {best.name}; expected {expected}")


def compare_sentences(client: regard.Client) -> None:
    """Compare two sentences by the cosine of their vectors."""
    _rule("embed", "two sentences and the photographs, by the cosines of their vectors; seconds")
    first, second = (client.embed(text=text, model="minilm").vector for text in PAIR)
    cosine = float(first @ second)
    console.print(f"cosine of {PAIR[0]!r} and {PAIR[1]!r}: {cosine:.4f}")
    _check(abs(cosine - PAIR_COSINE) < 1e-3, f"cosine {cosine:.4f}; expected {PAIR_COSINE}")


def compare_photos(client: regard.Client) -> None:
    """Compare photographs likewise."""
    files = sorted((EXAMPLES / "photos").glob("*.jpg"))
    vectors = np.stack([client.embed(image=file, model="vit-s14").vector for file in files])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for file, row in zip(files, vectors @ vectors.T, strict=True):
        console.print(f"{file.stem:12}", " ".join(f"{value:6.3f}" for value in row))


def generate(client: regard.Client) -> None:
    """Let letters become phonemes, one at a time."""
    _rule("generate", "how a word is spoken, phoneme by phoneme; a second")
    console.print(f"{WORD!r} is spoken ", end="")
    tokens = client.generate(WORD, model="g2p")
    for token in tokens:
        console.print(token.text, end="")
    console.print()
    text = tokens.finish().text
    _check(text == PHONES, f"{WORD!r} is {text!r}; expected {PHONES!r}")


def align(served: Served, out: Path) -> Path:
    """Draw which letters each phoneme attended to, with the command line."""
    _rule("align", "which letters each phoneme attended to; seconds")
    picture = out / "transformer-alignment.png"
    _regard(served, "generate", "g2p", WORD, "--align", "--layer", "0", "-o", str(picture))
    _check(picture.stat().st_size > 1000, f"{picture} is empty")
    return picture


def attend(served: Served, out: Path, names: set[str]) -> list[Path]:
    """Draw what the networks attended to, with the command line."""
    _rule("attend", "what heads attend to in each photograph, in all of them on a sheet, and in a sentence; a minute")
    pictures = []
    for file in sorted((EXAMPLES / "photos").glob("*.jpg")) if FINE_MODEL in names else ():
        pictures.append(out / f"{file.stem}-heads.png")
        _regard(served, "attend", str(file), "--model", FINE_MODEL, "-o", str(pictures[-1]))
    page = [str(EXAMPLES / "photos" / "chelsea.jpg"), "--model", FINE_MODEL, "--measure", "rollout"]
    sentence = [PAIR[0], "--model", "minilm"]
    sheet = [str(EXAMPLES / "photos"), "--model", FINE_MODEL, "--head", "0", "--head", "4"]
    for name, arguments in {
        "photos-sheet.png": sheet,
        "sentence.png": [*sentence, "--layer", "1"],
        "sentence-arcs.svg": [*sentence, "--layer", "1", "--view", "arcs", "--drop-special"],
        "sentence-entropy.png": [*sentence, "--view", "entropy"],
        "chelsea-rollout.html": page,
    }.items():
        if arguments[arguments.index("--model") + 1] not in names:
            continue
        pictures.append(out / name)
        _regard(served, "attend", *arguments, "-o", str(pictures[-1]))
    for picture in pictures:
        _check(picture.stat().st_size > 1000, f"{picture} is empty")
    return pictures


def _regard(served: Served, *arguments: str) -> None:
    """Run the command line as a user would."""
    environment = os.environ | {"REGARD_SERVER": served.address}
    subprocess.run([sys.executable, "-m", "regard", *arguments], check=True, env=environment)  # noqa: S603 -- fixed


def show_metrics(served: Served) -> None:
    """Read /metrics once and print what was counted."""
    _rule("metrics", "what Prometheus would read of all that")
    with urllib.request.urlopen(served.metrics, timeout=10) as page:  # noqa: S310 -- our own server
        lines = page.read().decode().splitlines()
    wanted = ("regard_requests_total", "regard_batch_rows_sum", "regard_attention_sent_bytes_total")
    shown = [line for line in lines if line.startswith(wanted)]
    console.print(*shown, sep="\n", soft_wrap=True, markup=False)
    _check(any('code="OK"' in line for line in shown), "the metrics count no request")


def _rule(step: str, words: str) -> None:
    """Say which step begins, what it shows, and how long it takes."""
    console.rule(step)
    console.print(f"[dim]{words}[/]", soft_wrap=True)


def _check(good: bool, fault: str) -> None:
    if not good:
        raise DemoError(fault)


if __name__ == "__main__":
    main()
