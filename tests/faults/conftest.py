"""A real server whose engine can be made to fail."""

from tests.server.conftest import models_folder, start, transport

__all__ = ["models_folder", "start", "transport"]
