"""What of each position of a tower is compared with the other tower: its state, projected as the tower's vector is."""

from typing import Any

from torch import Tensor, nn

_MANY_HEADS = "SiglipMultiheadAttentionPoolingHead"


def project_positions(tower: Any, hidden: Tensor) -> Tensor | None:
    """Project the last hidden state of each position into the space of both towers.

    What the tower does with the one position that it makes its vector of is done with each. A head that makes it of all
    positions (SigLIP's, by attention) is given each alone: what it attends to is then that position's value.

    Args:
        tower: CLIPTextModelWithProjection, CLIPVisionModelWithProjection, SiglipTextModel, SiglipVisionModel, or one
            that is made alike.
        hidden: Its last_hidden_state, float [B, N, D].

    Returns:
        Float [B, N, E], not normalised; None of a tower that is made otherwise.
    """
    projected: Tensor | None = None
    head, norm = getattr(tower, "head", None), getattr(getattr(tower, "vision_model", None), "post_layernorm", None)
    if isinstance(projection := getattr(tower, "text_projection", None), nn.Linear):
        projected = projection(hidden)
    elif isinstance(projection := getattr(tower, "visual_projection", None), nn.Linear) and norm is not None:
        projected = projection(norm(hidden))
    elif isinstance(head, nn.Linear):
        projected = head(hidden)
    elif type(head).__name__ == _MANY_HEADS:
        projected = _attend_alone(head, hidden)
    return projected


def _attend_alone(head: Any, hidden: Tensor) -> Tensor:
    """Give SigLIP's head each position alone: the softmax over one key is 1, and the values are what is left."""
    attention: nn.MultiheadAttention = head.attention
    width = attention.embed_dim
    assert attention.in_proj_weight is not None  # noqa: S101 -- queries, keys and values are of one width
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[2 * width :]
    values = nn.functional.linear(hidden, attention.in_proj_weight[2 * width :], bias)
    attended = attention.out_proj(values)
    projected: Tensor = attended + head.mlp(head.layernorm(attended))
    return projected
