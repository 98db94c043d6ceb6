"""Puts the application into the wheel of `regard`, as files under regard/_app that no import of regard sees."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

APPLICATION = ("artifact", "export", "model", "server")
BUNDLE = Path("regard", "_app")


class BuildWithApplication(build_py):
    """Copies the application's folders beside the client's modules; an editable install runs those of the checkout."""

    def run(self) -> None:
        """Build from nothing, so that a file that is gone from the checkout is gone from the wheel."""
        if self.editable_mode:
            super().run()
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        for file in application_files():
            target = Path(self.build_lib, BUNDLE, file)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    def get_source_files(self) -> list[str]:
        """What belongs into the sdist."""
        return [*super().get_source_files(), *map(str, application_files())]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What is installed."""
        bundled = (
            [] if self.editable_mode else [str(Path(self.build_lib, BUNDLE, file)) for file in application_files()]
        )
        return [*super().get_outputs(include_bytecode), *bundled]


def application_files() -> list[Path]:
    """Every file of the application's folders, without what Python and editors leave there."""
    files = (file for folder in APPLICATION for file in sorted(Path(folder).rglob("*")))
    return [file for file in files if file.is_file() and not is_left_over(file)]


def is_left_over(file: Path) -> bool:
    """Whether it is compiled or hidden."""
    return any(part == "__pycache__" or part.startswith(".") for part in file.parts)


setup(cmdclass={"build_py": BuildWithApplication})
