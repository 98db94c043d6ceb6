"""All paths of the gateway."""

from collections.abc import Iterator

from server.api.rest.connect import connect_routes
from server.api.rest.exchange import Route
from server.api.rest.open_inference_routes import open_inference_routes
from server.api.rest.openai import openai_routes
from server.api.rest.rerank import rerank_routes


def all_routes(max_numbers: int) -> Iterator[Route]:
    """Yield them.

    Args:
        max_numbers: Most elements of an answer that may become text.
    """
    yield from open_inference_routes(max_numbers)
    yield from openai_routes()
    yield from rerank_routes()
    yield from connect_routes()
