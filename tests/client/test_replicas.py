"""What a client repeats where a replica says UNAVAILABLE: counted by one that always does."""

import grpc
import pytest

from regard import InvalidArgument, replica_options
from tests.refusing import METHODS, ask_for_all, refusing

CODE = grpc.StatusCode.UNAVAILABLE
_NAMES = ("Predict", "Classify", "Embed", "Compare", "Rank", "Align", "GenerateText", "ListModels", "GetModel")
SAFE = {f"/regard.v1.RegardService/{name}" for name in _NAMES}


@pytest.mark.parametrize("by_load", [False, True])
def test_what_changes_nothing_is_tried_four_times(by_load: bool) -> None:
    """Streams and changes once; gRPC itself makes no further attempt."""
    with refusing(CODE) as (replica, address):
        assert ask_for_all(address, *replica_options(by_load=by_load)) == {CODE}
    assert replica.arrived == {method: 4 if method in SAFE else 1 for method in METHODS}


def test_a_large_call_is_repeated_as_a_small_one() -> None:
    """Fifteen MiB, of which gRPC by itself would keep a quarter of one."""
    with refusing(CODE) as (replica, address), grpc.insecure_channel(address, options=replica_options()) as channel:
        call = channel.unary_unary("/regard.v1.RegardService/Predict", bytes, bytes)
        with pytest.raises(grpc.RpcError):
            call(bytes(15 * 2**20), timeout=60)
    assert replica.arrived.total() == 4


def test_by_load_is_true_or_false() -> None:
    """And nothing like it."""
    with pytest.raises(InvalidArgument, match="by_load"):
        replica_options(by_load="yes")  # type: ignore[arg-type]
