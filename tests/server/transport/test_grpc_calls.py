"""What gRPC gives a method is what the interface says."""

from typing import Any

import grpc

from server.api.servicer import Servicer


def as_servicer(context: grpc.aio.ServicerContext[Any, Any]) -> Servicer:
    """For mypy, which refuses this where gRPC's side of a call has less."""
    return context


def test_grpcs_side_of_a_call_has_what_methods_are_given() -> None:
    """Names at least, as it is installed; types are what `make types` checks."""
    given = {name for name in vars(Servicer) if not name.startswith("_")}
    assert given == {
        "abort", "auth_context", "invocation_metadata", "peer", "set_trailing_metadata", "time_remaining", "write",
    }  # fmt: skip
    assert given <= set(dir(grpc.aio.ServicerContext))
