"""What sentence-transformers puts behind a network, in torch: pooling, dense layers, normalisation."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from export.sentence_transformers import Dense, Mode, SentenceFolder, torch_class
from model.checkpoint import CheckpointError
from model.text import mean_over_tokens

_ACTIVATIONS = {
    kind.__name__: kind
    for kind in (nn.Identity, nn.Tanh, nn.GELU, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.Softplus)
}
_WEIGHTS_FILE, _LINEAR = "model.safetensors", "linear."


class SentenceVector(nn.Module):
    """Makes one vector of a text's tokens."""

    def __init__(self, folder: SentenceFolder) -> None:
        """Put the modules together, with their weights.

        Raises:
            CheckpointError: A dense layer has no safetensors, others than its configuration says, or an activation
                that is not known.
        """
        super().__init__()
        self._modes = folder.modes
        steps = (_Normalized() if step == "normalize" else _DenseLayer(step) for step in folder.steps)
        self.steps = nn.Sequential(*steps)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Run the modules.

        Args:
            hidden: The last hidden state, float [B, N, D].
            mask: int64 [B, N], 1 at real tokens; at least one a row.

        Returns:
            Float [B, E].
        """
        pooled = torch.cat([_pool(hidden, mask, mode) for mode in self._modes], dim=-1)  # [B, modes * D]
        vector: Tensor = self.steps(pooled)
        return vector


class TokenVectors(nn.Module):
    """Makes a vector of Euclidean length 1 of each token, for late interaction."""

    def __init__(self, folder: SentenceFolder) -> None:
        """Put the dense layers together, with their weights; raises as SentenceVector."""
        super().__init__()
        self.steps = nn.Sequential(*(_DenseLayer(step) for step in folder.steps if isinstance(step, Dense)))

    def forward(self, hidden: Tensor) -> Tensor:
        """Run them on the last hidden state, float [B, N, D]; returns float [B, N, E]."""
        return functional.normalize(self.steps(hidden), dim=-1)


class _Normalized(nn.Module):
    """Scales vectors to Euclidean length 1."""

    def forward(self, vector: Tensor) -> Tensor:
        return functional.normalize(vector, dim=-1)


class _DenseLayer(nn.Module):
    """A linear layer, its activation, and, where wanted, what went in added to what comes out."""

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.linear = nn.Linear(dense.in_features, dense.out_features, bias=dense.bias)
        self.activation = _activation(dense)
        self.residual: nn.Module | None = None
        if dense.residual:
            same = dense.in_features == dense.out_features
            self.residual = nn.Identity() if same else nn.Linear(dense.in_features, dense.out_features, bias=False)
        _fill(self, dense)

    def forward(self, vector: Tensor) -> Tensor:
        made: Tensor = self.activation(self.linear(vector))
        return made if self.residual is None else made + self.residual(vector)


def _activation(dense: Dense) -> nn.Module:
    field = f"{dense.folder / 'config.json'}: activation_function"
    return _ACTIVATIONS[torch_class(dense.activation, _ACTIVATIONS, field)]()


def _fill(layer: _DenseLayer, dense: Dense) -> None:
    file = dense.folder / _WEIGHTS_FILE
    if not file.is_file():
        raise CheckpointError(f"{file}: not found; expected the weights of the dense layer as safetensors")
    try:
        layer.load_state_dict({name: tensor.float() for name, tensor in _read_weights(file, dense).items()})
    except Exception as error:  # safetensors raises its own untyped SafetensorError
        raise CheckpointError(f"{file}: does not fit the dense layer: {' '.join(str(error).split())}") from error


def _read_weights(file: Path, dense: Dense) -> dict[str, Tensor]:
    """Read a layer's weights, which may lie among a network's."""
    if not dense.beside:
        return dict(load_file(file))
    with safe_open(file, "pt") as opened:
        names = [name for name in opened.keys() if name.startswith(_LINEAR)]  # noqa: SIM118 -- it is no mapping
        return {name: opened.get_tensor(name) for name in names}


def _pool(hidden: Tensor, mask: Tensor, mode: Mode) -> Tensor:
    """Make one vector [B, D] of the tokens' [B, N, D], as sentence-transformers defines each mode."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "max":
        return hidden.masked_fill(mask[:, :, None] == 0, float("-inf")).amax(dim=1)
    if mode == "mean":
        return mean_over_tokens(hidden, mask)
    places = torch.arange(hidden.shape[1], device=hidden.device)  # [N]
    if mode == "lasttoken":
        last = (places * mask).amax(dim=1)[:, None, None]  # [B, 1, 1]
        return hidden.gather(1, last.expand(-1, -1, hidden.shape[2]))[:, 0]
    if mode == "weightedmean":  # later tokens weigh more; their sum is more than half precision holds
        weights = ((places + 1) * mask).float()
        return (hidden * (weights / weights.sum(dim=1, keepdim=True))[:, :, None].to(hidden.dtype)).sum(dim=1)
    real = mask[:, :, None].to(hidden.dtype)  # [B, N, 1]
    return (hidden * real).sum(dim=1) / real.sum(dim=1).sqrt()
