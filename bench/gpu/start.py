"""Starts `python -m bench.gpu`, also without network: installs wheels from a folder, and says what is missing.

It needs nothing but Python. Flags that it does not know go to bench.gpu.
"""

import argparse
import os
import site
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_TARGET = Path("build/gpu-wheels")
# What the server and the client import, and the distribution that has it.
NEEDED = {
    "onnxruntime": "onnxruntime-gpu", "numpy": "numpy", "grpc": "grpcio", "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection", "google.rpc": "googleapis-common-protos", "google.protobuf": "protobuf",
    "ml_dtypes": "ml_dtypes", "PIL": "pillow", "prometheus_client": "prometheus-client", "pydantic": "pydantic",
    "pydantic_core": "pydantic-core", "pydantic_settings": "pydantic-settings", "dotenv": "python-dotenv",
    "annotated_types": "annotated-types", "typing_inspection": "typing-inspection", "soundfile": "soundfile",
    "cffi": "cffi", "soxr": "soxr", "tokenizers": "tokenizers", "watchfiles": "watchfiles", "anyio": "anyio",
    "uvloop": "uvloop",
}  # fmt: skip
OPTIONAL = {"pynvml": "nvidia-ml-py"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Install what was brought, look for what is missing, and start the check; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.start", description=__doc__)
    parser.add_argument("--wheels", type=Path, help="folder of wheels, whole or in pieces of `split`")
    args, further = parser.parse_known_args(arguments)
    paths = [str(_ROOT), str(_ROOT / "client"), *filter(None, [os.environ.get("PYTHONPATH")])]
    if args.wheels:
        install(args.wheels, _TARGET)
        paths.insert(0, str(_TARGET.resolve()))
    libraries = [*nvidia_libraries(), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    missing = what_is_missing(NEEDED, paths)
    if not missing and not {"cpu", "--device=cpu"}.intersection(further) and not has_cuda(env):
        missing = ["onnxruntime-gpu"]  # there is a build for CPUs
    if missing:
        print(what_to_bring(missing))
        return 2
    command = [sys.executable, "-m", "bench.gpu", *further]
    return subprocess.run(command, env=env, check=False).returncode  # noqa: S603 -- our own


def install(wheels: Path, target: Path) -> None:
    """Install wheels into a folder of their own, which comes before what the machine has.

    Raises:
        SystemExit: There are none, or one cannot be installed here.
    """
    join_pieces(wheels, target)
    found = [*sorted(wheels.glob("*.whl")), *sorted(target.glob("*.whl"))]
    if not found:
        raise SystemExit(f"--wheels: {wheels}: no wheel there")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--quiet",
        "--upgrade",
    ]
    command += ["--disable-pip-version-check", "--target", str(target), *map(str, found)]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 -- our own
        raise SystemExit(f"--wheels: {wheels}: pip could not install them, see above")


def join_pieces(wheels: Path, target: Path) -> None:
    """Put pieces together, which are named as `split -b 52M WHEEL WHEEL.part` names them: WHEEL.partaa and so on."""
    target.mkdir(parents=True, exist_ok=True)
    names = {path.name.partition(".whl.")[0] for path in wheels.glob("*.whl.*")}
    for name in sorted(names):
        with (target / f"{name}.whl").open("wb") as whole:
            for piece in sorted(wheels.glob(f"{name}.whl.*")):
                whole.write(piece.read_bytes())


def nvidia_libraries() -> list[str]:
    """Folders of CUDA's libraries as NVIDIA's packages install them."""
    places = [*site.getsitepackages(), site.getusersitepackages(), str(_TARGET.resolve())]
    return [str(folder) for place in places for folder in sorted(Path(place).glob("nvidia/*/lib"))]


def what_is_missing(needed: dict[str, str], paths: Sequence[str]) -> list[str]:
    """Distributions whose modules cannot be found, where these paths come first."""
    program = "import importlib.util, sys\nfor name in sys.argv[1:]:\n"
    program += "    try: found = importlib.util.find_spec(name)\n    except ImportError: found = None\n"
    program += "    print(name if found is None else '', end=' ')\n"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", program, *needed]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)  # noqa: S603 -- our own
    return [needed[name] for name in done.stdout.split()]


def has_cuda(env: dict[str, str]) -> bool:
    """Whether the build of ONNX Runtime that is found first can use CUDA."""
    program = "import onnxruntime; print(*onnxruntime.get_available_providers())"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)  # noqa: S603 -- our own
    return "CUDAExecutionProvider" in done.stdout.split()


def what_to_bring(missing: Iterable[str]) -> str:
    """Say how to get wheels, on a machine with network, for this Python."""
    names, python = " ".join(missing), f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"gpu-check: missing here: {names}\n"
        f"With network: {sys.executable} -m pip install {names}\n"
        "Without, on a machine that has it, then copy the folder and give it as WHEELS=DIR:\n"
        f"  pip download --no-deps --only-binary=:all: --python-version {python} --implementation cp \\\n"
        f"    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --dest DIR {names}\n"
        "A wheel larger than may be copied at once: split -b 52M WHEEL WHEEL.part; the pieces are joined here."
    )


if __name__ == "__main__":
    sys.exit(main())
