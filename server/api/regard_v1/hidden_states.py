"""Hidden states in the messages of regard.v1: what is wanted, and what is sent."""

from regard.v1 import types_pb2 as pb
from server.api.counts import MAX_NUMBERS, check_count
from server.api.regard_v1.attention import own_rows, read_dtype
from server.api.regard_v1.tensors import write_tensor
from server.errors import InvalidInput
from server.hidden_states.plan import HiddenStatesPlan
from server.hidden_states.reduce import ReducedStates
from server.hidden_states.request import HiddenStatesRequest, Pooling

_POOLINGS: dict[int, Pooling | None] = {
    pb.HIDDEN_STATES_POOLING_UNSPECIFIED: None,
    pb.HIDDEN_STATES_POOLING_CLS: "cls",
    pb.HIDDEN_STATES_POOLING_MEAN: "mean",
    pb.HIDDEN_STATES_POOLING_LAST: "last",
}


def read_hidden_states(message: pb.HiddenStatesRequest) -> HiddenStatesRequest:
    """Read what is wanted.

    Raises:
        InvalidInput: A list is too long, or a value none of its enumeration.
    """
    for field in ("layers", "positions"):
        check_count(f"hidden_states.{field}", len(getattr(message, field)), MAX_NUMBERS)
    if message.pooling not in _POOLINGS:
        raise InvalidInput("hidden_states.pooling", message.pooling, "one of the values of HiddenStatesPooling")
    return HiddenStatesRequest(
        layers=tuple(message.layers),
        positions=tuple(message.positions),
        drop_special=message.drop_special,
        pooling=_POOLINGS[message.pooling],
        normalize=message.normalize,
        dtype=read_dtype("hidden_states.dtype", message.dtype),
    )


def write_states(
    plan: HiddenStatesPlan, reduced: ReducedStates, message: pb.LayerHiddenStates, *, batched: bool
) -> None:
    """Write what is sent of one layer into an answer.

    Args:
        plan: What was asked for.
        reduced: As reduce_states gives it.
        message: Where it lies in the answer: putting it there afterwards would copy it.
        batched: Whether to keep the batch axis; otherwise B is 1.
    """
    message.layer = reduced.state.layer
    message.axes.extend([*(["batch"] if batched else []), *plan.axes])
    message.positions.extend(plan.positions or ())
    write_tensor(own_rows(reduced.values, batched=batched), message.values)
    if reduced.scales is not None and reduced.offsets is not None:
        write_tensor(own_rows(reduced.scales, batched=batched), message.scales)
        write_tensor(own_rows(reduced.offsets, batched=batched), message.offsets)
