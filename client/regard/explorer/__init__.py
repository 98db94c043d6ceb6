"""`regard explore`: a page in the browser that shows attention of photos and texts, asked from a regard server."""

from regard.explorer.app import Settings
from regard.explorer.serve import read_address, serve

__all__ = ["Settings", "read_address", "serve"]
