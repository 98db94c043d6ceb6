"""Runs the step of a decoder's graph as a server does: with its session options, caches written in place."""

from collections.abc import Mapping

import numpy as np
import onnxruntime

from artifact.dtypes import Array
from artifact.generation import (
    CROSS_QUERY,
    LENGTHS,
    LOGITS,
    NEXT_KEY,
    NEXT_VALUE,
    SELF_KEY,
    SELF_QUERY,
    SELF_VALUE,
    SOURCE_LENGTHS,
    TOKENS,
    GenerationContract,
    names_of_layers,
)
from export.errors import VerificationError
from server.engine.decoder import BoundStep, attention_weights
from server.errors import first_line

_WRITTEN = {NEXT_KEY: SELF_KEY, NEXT_VALUE: SELF_VALUE}


class Stepper:
    """The caches of a batch of rows, and the steps that write into them."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        generation: GenerationContract,
        source: Mapping[str, Array],
        source_lengths: Array,
        caches: Mapping[str, Array],
    ) -> None:
        """Bind everything once.

        Args:
            session: Of the graph.
            generation: Its contract.
            source: Each layer's keys and values of the source, "cross_key.0" and so on, float32 [B, H, S, d].
            source_lengths: int64 [B].
            caches: "self_key.0" and so on, float32 [B, H, L, d]; are written to.
        """
        rows, layers = len(source_lengths), range(generation.num_layers)
        self._generation = generation
        self._tokens, self._lengths = np.zeros((rows, 1), np.int64), np.zeros(rows, np.int64)
        self.inputs: dict[str, Array] = {
            TOKENS: self._tokens,
            LENGTHS: self._lengths,
            SOURCE_LENGTHS: source_lengths,
            **{name: np.ascontiguousarray(array) for name, array in source.items()},
            **caches,
        }
        query = (rows, generation.num_heads, 1, generation.head_dim)
        self._given: dict[str, Array] = {LOGITS: np.zeros((rows, generation.vocab_size), np.float32)}
        for name in names_of_layers((SELF_QUERY, CROSS_QUERY), generation.num_layers):
            self._given[name] = np.zeros(query, np.float32)
        for name in generation.bias_names:
            self._given[name] = np.zeros((*query[:2], caches[f"{SELF_KEY}.0"].shape[2]), np.float32)
        written = {f"{to}.{layer}": caches[f"{of}.{layer}"] for layer in layers for to, of in _WRITTEN.items()}
        self._bound = BoundStep(session, self.inputs, {**self._given, **written})

    def step(self, tokens: Array, lengths: Array) -> Array:
        """Write int64 [B] tokens behind int64 [B] cached ones; return the logits, float32 [B, V].

        Raises:
            VerificationError: The graph does not run.
        """
        self._tokens[:, 0], self._lengths[:] = tokens, lengths
        try:
            self._bound.run()
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise VerificationError(f"a step of the export does not run: {first_line(error)}") from error
        return self._given[LOGITS].copy()

    def weights(self) -> dict[str, list[Array]]:
        """What each row attended to in the last step, "self.0", "cross.0" and so on: float32 [H, K], of its own keys.

        The graph does not give it: it is computed from queries and caches, as a server does.
        """
        found = dict[str, list[Array]]()
        source_lengths = self.inputs[SOURCE_LENGTHS]
        for layer in range(self._generation.num_layers):
            for kind, lengths in (("self", self._lengths + 1), ("cross", source_lengths)):
                queries, keys = self._given[f"{kind}_query.{layer}"], self.inputs[f"{kind}_key.{layer}"]
                name = self._generation.bias_name(kind, layer)
                biases = self._given[name] if name else np.zeros(keys.shape[:3], np.float32)
                found[f"{kind}.{layer}"] = [
                    attention_weights(query, key[:, :length], self._generation.scale, bias[:, :length])
                    for query, key, bias, length in zip(queries, keys, biases, lengths, strict=True)
                ]
        return found
