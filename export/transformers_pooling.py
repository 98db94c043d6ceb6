"""How a network of the transformers library makes one vector of a text or an image."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from artifact.contract import PatchContract
from export.sentence_transformers import SentenceFolder, Splade
from export.sentence_vector import SentenceVector, TokenVectors
from export.transformers_checkpoint import Checkpoint

# What a tower that is trained to be compared with another gives for that.
_PROJECTED = ("text_embeds", "image_embeds")
_TEXT_TOWERS = ("_text_model", "dpr")


class Pooling(nn.Module):
    """Makes the vector of the library's answer."""

    normalized = False
    """Whether its length is 1."""
    output = "embedding"
    """What the vector is called."""

    def forward(self, answer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor | None:
        """Make it.

        Args:
            answer: The library's.
            hidden: The last hidden state, float [B, N, D].
            mask: Of texts, int64 [B, N].

        Returns:
            Float [B, E], or None where states are no sequence.
        """
        raise NotImplementedError


def choose_pooling(checkpoint: Checkpoint, sentence: SentenceFolder, patches: PatchContract | None) -> Pooling:
    """Decide how the vector is made.

    Of a text: as its folder says, see read_sentence_folder. Of an image, and of a text tower trained beside an image
    tower of whose vectors the folder says nothing: what is compared with the other tower's vector, else what the
    network's own pooler gives; without a pooler the class token, and without that the mean of the patches.

    Args:
        checkpoint: The network.
        sentence: What its folder says of vectors.
        patches: How patches lie on images.

    Raises:
        CheckpointError: The folder's modules have no weights, or an activation that is not known.
    """
    if sentence.late is not None:
        return _LatePooling(sentence)
    if sentence.splade:
        return _SparsePooling(sentence.splade)
    is_text = checkpoint.main_input == "input_ids"
    if is_text and (sentence.similarity or not checkpoint.config.model_type.endswith(_TEXT_TOWERS)):
        return _TextPooling(sentence)
    has_cls = is_text or (patches is not None and patches.prefix_tokens > 0)
    return _TowerPooling(has_cls=has_cls, has_pooler=checkpoint.has_pooler)


class _TextPooling(Pooling):
    """What a folder says."""

    def __init__(self, sentence: SentenceFolder) -> None:
        super().__init__()
        self.vector, self.normalized = SentenceVector(sentence), sentence.normalized

    def forward(self, answer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
        real = torch.ones(hidden.shape[:2], dtype=torch.int64) if mask is None else mask
        vector: Tensor = self.vector(hidden, real)
        return vector


class _LatePooling(Pooling):
    """A vector of each token."""

    output = "token_vectors"

    def __init__(self, sentence: SentenceFolder) -> None:
        super().__init__()
        self.vectors = TokenVectors(sentence)

    def forward(self, answer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
        made: Tensor = self.vectors(hidden)
        return made


class _SparsePooling(Pooling):
    """A weight of each word of the vocabulary, of the scores that a head for masked words gives at every token."""

    def __init__(self, splade: Splade) -> None:
        super().__init__()
        self._splade = splade

    def forward(self, answer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
        scores = answer.logits  # [B, N, V]
        real = torch.ones(hidden.shape[:2], dtype=torch.int64) if mask is None else mask
        if self._splade.strategy == "sum":
            weights: Tensor = (self._weigh(scores) * real[:, :, None].to(scores.dtype)).sum(dim=1)
            return weights
        # The largest weight is that of the largest score, which spares the logarithm of all others; padding weighs 0.
        return self._weigh((torch.relu(scores) * real[:, :, None].to(scores.dtype)).amax(dim=1))

    def _weigh(self, scores: Tensor) -> Tensor:
        weights = torch.log1p(torch.relu(scores))
        return torch.log1p(weights) if self._splade.activation == "log1p_relu" else weights


class _TowerPooling(Pooling):
    """What a tower gives itself."""

    def __init__(self, *, has_cls: bool, has_pooler: bool) -> None:
        super().__init__()
        self._has_cls = has_cls
        self._names = (*_PROJECTED, "pooler_output") if has_pooler else _PROJECTED

    def forward(self, answer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor | None:
        found: Iterator[Tensor | None] = (getattr(answer, name, None) for name in self._names)
        pooled = next((one for one in found if one is not None), None)
        if pooled is not None and pooled.ndim == 2:
            return pooled
        if hidden.ndim != 3:
            return None
        return hidden[:, 0] if self._has_cls else hidden.mean(dim=1)


class Joined(Pooling):
    """What a tower gives, at length 1, as the vectors of two are compared."""

    normalized = True

    def __init__(self, pooling: Pooling) -> None:
        """Put it behind another way to make the vector."""
        super().__init__()
        self.pooling = pooling

    def forward(self, answer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor | None:
        """Make it; see Pooling.forward."""
        vector = self.pooling(answer, hidden, mask)
        return None if vector is None else nn.functional.normalize(vector, dim=-1)
