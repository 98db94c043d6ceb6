"""Builds stubs of CUDA's libraries, with which ONNX Runtime's own CUDA provider runs without a GPU."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import onnxruntime

_SOURCE = Path(__file__).with_suffix(".c")
_PROVIDER = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
_OURS = re.compile(r"^(?:cuda|cublas|cudnn|cu[A-Z]|curand|cufft|__cuda)")


def reasons_against() -> str:
    """Why they cannot be built here; empty where they can."""
    if not _PROVIDER.exists():
        return "this build of ONNX Runtime has no CUDA provider"
    for program in ("gcc", "nm", "readelf"):
        try:
            subprocess.run([program, "--version"], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return f"{program} is not installed"
    return ""


def build_stubs(folder: Path) -> Path:
    """Write one library under the names of all that the provider wants; returns the folder, for LD_LIBRARY_PATH."""
    code = _SOURCE.read_text()
    versions = dict(_wanted())
    missing = [name for name in versions if not re.search(rf"\b{name}\(", code)]
    source, script = folder / "stub.c", folder / "stub.map"
    source.write_text(code + "\n".join(f"int {name}() {{ return 0; }}" for name in missing))
    libraries = {library for library in versions.values() if library} | set(_needed())
    for library in sorted(libraries | {"libcudnn.so", "libcudnn.so.9"}):
        own = [name for name, version in versions.items() if version == library]
        script.write_text(f"{library} {{ global: *; }};\n" if own else "")
        flags = [f"-Wl,-soname,{library}", *([f"-Wl,--version-script={script}"] if own else [])]
        command = ["gcc", "-w", "-shared", "-fPIC", "-o", str(folder / library), str(source), *flags]
        subprocess.run(command, check=True)
    return folder


def _wanted() -> Iterator[tuple[str, str]]:
    """Yield functions that the provider wants, each with the library that its version names."""
    for line in _ask("nm", "-D", "--undefined-only").splitlines():
        name, _, library = line.split()[-1].partition("@")
        if _OURS.match(name):
            yield name, library.strip("@")
    text = _PROVIDER.read_bytes()  # cuDNN's are looked up by name
    yield from ((name.decode(), "") for name in set(re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", text)))


def _needed() -> list[str]:
    """Libraries of CUDA that the provider names."""
    return re.findall(r"NEEDED.*\[(lib(?:cu|nv)[^\]]*)\]", _ask("readelf", "-d"))


def _ask(program: str, *flags: str) -> str:
    command = [program, *flags, str(_PROVIDER)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
