"""The models that are checked: those of a folder, the embedded ones, and random weights of standard sizes."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from artifact.files import versions
from bench.programs import environment
from server.config import EMBEDDED_MODELS
from server.errors import StartError

DEFAULT_MODELS = Path("models")


def make_models(models: Path, scratch: Path, *, random: bool, seconds: float) -> tuple[Path, str]:
    """Return a folder of artifacts, and a line on what is in it.

    Args:
        models: The folder that was asked for; the embedded models are taken where it has none.
        scratch: An empty folder.
        random: Whether networks with random weights are exported, too, which needs torch and transformers.
        seconds: How long that may take; what is done by then is taken.

    Raises:
        StartError: Another folder than the default was asked for, and has no artifact.
    """
    if not _names(models) and models != DEFAULT_MODELS:
        raise StartError(f"--models: {models}: no artifact there; expected a folder with NAME/VERSION in it")
    given = models if _names(models) else EMBEDDED_MODELS
    told = f"{', '.join(_names(given))} of {given}"
    if not random:
        return given, told
    if missing := [name for name in ("torch", "transformers", "onnxscript") if not find_spec(name)]:
        return given, f"{told}; none with random weights, which need {', '.join(missing)}"
    out = scratch / "models"
    out.mkdir()
    why = _export(out, seconds)
    made = _names(out)
    for name in _names(given):
        (out / name).symlink_to((given / name).resolve())
    return out, f"{told}; with random weights {', '.join(made) or 'none'}{why}"


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [one.name for one in sorted(folder.iterdir()) if versions(one) and not one.name.startswith(".")]


def _export(out: Path, seconds: float) -> str:
    """Export in a process of its own; returns why that did not make everything."""
    command = [sys.executable, "-m", "bench.gpu.random_models", str(out)]
    try:
        done = subprocess.run(  # noqa: S603 -- our own
            command, capture_output=True, text=True, timeout=seconds, env=environment(), check=False
        )
    except subprocess.TimeoutExpired:
        return f"; the export had {seconds:.0f} s"
    said = done.stderr.strip().splitlines()
    return f"; the export failed: {said[-1] if said else done.returncode}" if done.returncode else ""
