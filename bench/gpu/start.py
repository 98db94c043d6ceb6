"""Starts `python -m bench.gpu`, also without network: installs wheels from a folder, and says what is missing.

It needs nothing but Python. Flags that it does not know go to bench.gpu.
"""

import argparse
import itertools
import json
import os
import re
import site
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.programs import ROOT, environment

_TARGET = Path("build/gpu-wheels")
# What the server and the client import, and the distribution that has it; pyproject.toml says which versions.
NEEDED = {
    "onnxruntime": "onnxruntime-gpu", "numpy": "numpy", "grpc": "grpcio", "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection", "google.rpc": "googleapis-common-protos", "google.protobuf": "protobuf",
    "ml_dtypes": "ml_dtypes", "PIL": "pillow", "prometheus_client": "prometheus-client", "pydantic": "pydantic",
    "pydantic_core": "pydantic-core", "pydantic_settings": "pydantic-settings", "dotenv": "python-dotenv",
    "annotated_types": "annotated-types", "typing_inspection": "typing-inspection",
    "typing_extensions": "typing-extensions", "soundfile": "soundfile", "cffi": "cffi", "pycparser": "pycparser",
    "soxr": "soxr", "tokenizers": "tokenizers", "watchfiles": "watchfiles", "anyio": "anyio", "idna": "idna",
    "uvloop": "uvloop",
}  # fmt: skip
_FOR_CPUS = {"onnxruntime-gpu": "onnxruntime"}
# Prints a line for each module: nothing where it is there, or else what was found in its place.
_LOOK = """import importlib.metadata, importlib.util, json, sys
for name, distributions in json.loads(sys.argv[1]).items():
    try: found = importlib.util.find_spec(name)
    except ImportError: found = None
    versions = []
    for one in distributions if found else ():
        try: versions.append(importlib.metadata.version(one))
        except importlib.metadata.PackageNotFoundError: pass
    print(json.dumps([name, found is not None, *versions[:1]]))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Install what was brought, look for what is missing, and start the check; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.start", description=__doc__)
    parser.add_argument("--wheels", type=Path, help="folder of wheels, whole or in pieces of `split`")
    args, further = parser.parse_known_args(arguments)
    wheels = None
    if args.wheels:
        install(args.wheels, _TARGET)
        wheels = _TARGET.resolve()
    libraries = [*nvidia_libraries(), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    env = environment(first=wheels) | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    missing, why = what_is_missing(NEEDED, env)
    if not missing and not is_on_cpu(further):
        missing, why = has_cuda(env)
    if missing:
        print(what_to_bring(missing, why))
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


def is_on_cpu(flags: Sequence[str]) -> bool:
    """Whether the CPU is in the device's place."""
    devices = [after for before, after in itertools.pairwise(flags) if before == "--device"]
    devices += [flag.partition("=")[2] for flag in flags if flag.startswith("--device=")]
    return bool(devices) and devices[-1].partition(":")[0] in ("cpu", "auto")


def bounds() -> dict[str, str]:
    """Bounds of versions by distribution, as pyproject.toml has them for the client and the server."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    parts = [re.match(r"([\w-]+)([^;]*)", one) for one in wanted]
    return {part[1]: part[2].strip() for part in parts if part}


def is_within(version: str, bound: str) -> bool:
    """Whether a version is within bounds such as ">=1.31,<1.32"."""
    for one in filter(None, bound.split(",")):
        least = one.startswith(">=")
        if (numbers_of(version) >= numbers_of(one)) is not least:
            return False
    return True


def numbers_of(version: str) -> tuple[int, ...]:
    """Numbers of a version, without what stands for zero at its end."""
    numbers = [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def what_is_missing(needed: dict[str, str], env: dict[str, str]) -> tuple[list[str], str]:
    """Distributions whose modules cannot be found or are of another version, as pip takes them; and what was found."""
    asked = {name: [one, *filter(None, [_FOR_CPUS.get(one)])] for name, one in needed.items()}
    command = [sys.executable, "-c", _LOOK, json.dumps(asked)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)  # noqa: S603 -- our own
    if done.returncode:
        return list(needed.values()), last_line(done.stderr)
    missing, found = list[str](), list[str]()
    for name, is_there, *versions in map(json.loads, done.stdout.splitlines()):
        distribution = needed[name]
        bound = bounds().get(distribution, "")
        if not is_there or not all(is_within(version, bound) for version in versions):
            missing.append(distribution + bound)
            found += [f"{distribution} {version} is here" for version in versions]
    return missing, ", ".join(found)


def has_cuda(env: dict[str, str]) -> tuple[list[str], str]:
    """What is missing where the build of ONNX Runtime that is found first cannot use CUDA, and why."""
    command = [sys.executable, "-c", "import onnxruntime; print(*onnxruntime.get_available_providers())"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)  # noqa: S603 -- our own
    if "CUDAExecutionProvider" in done.stdout.split():
        return [], ""
    there = f"ONNX Runtime is here with {done.stdout.strip()}" if done.stdout.strip() else last_line(done.stderr)
    return [f"onnxruntime-gpu{bounds()['onnxruntime-gpu']}"], there


def last_line(said: str) -> str:
    """The last line that a program said."""
    return (said.strip().splitlines() or [""])[-1]


def what_to_bring(missing: Iterable[str], why: str = "") -> str:
    """Say how to get wheels, on a machine with network, for this Python."""
    names = " ".join(f"'{one}'" if re.search("[<>=]", one) else one for one in missing)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"gpu-check: missing here: {names}{f' ({why})' if why else ''}\n"
        f"With network: {sys.executable} -m pip install {names}\n"
        "Without, on a machine that has it, in a copy of the repository; then copy the folder, give it as WHEELS=DIR:\n"
        f"  {download(names, python)}\n"
        "A wheel larger than may be copied at once: split -b 52M WHEEL WHEEL.part; the pieces are joined here."
    )


def download(names: str, python: str) -> str:
    """The command that gets wheels."""
    return (
        f"pip download --no-deps --only-binary=:all: --python-version {python} --implementation cp"
        " --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64"
        f" --dest DIR --constraint constraints.txt {names}"
    )


if __name__ == "__main__":
    sys.exit(main())
