"""The blocking call of two inputs that are compared."""

from regard import decoding, encoding
from regard.calls import BlockingCalls
from regard.comparison import Comparison
from regard.inputs import TextOrImage


class CompareCalls(BlockingCalls):
    """What a client asks of two inputs."""

    def compare(
        self,
        first: TextOrImage,
        second: TextOrImage,
        *,
        why: bool = False,
        pairs: bool = False,
        drop_special: bool = False,
        model: str = "",
        version: str = "",
        prompts: tuple[str, str] = ("", ""),
        truncate: bool = False,
        priority: int = 0,
        timeout: float | None = None,
    ) -> Comparison:
        """Ask how similar two inputs are, and why.

        Args:
            first: A text, or an image: a JPEG, PNG or WebP file as bytes or as a `pathlib.Path`.
            second: Likewise; of two towers, either may be either.
            why: Whether to say what each position did for the similarity.
            pairs: Whether to say what each position of one does with each of the other, too; it takes a run of each
                input for each of its positions.
            drop_special: Leave out of both what is no part of an input.
            model: One with `can_embed`. May be empty where only one model is served.
            version: Empty means the newest.
            prompts: Names of the prompts that are put before both; empty for the model's default.
            truncate: Cut a text that has more tokens than the model takes, instead of refusing it.
            priority: 1 is served first, then 2, then 3; 0 means 2.
            timeout: Seconds, instead of the client's own.

        Raises:
            InvalidArgument: A path cannot be read, a file is no image, a text is empty or too long, pairs take more
                runs than the server allows, or another argument has no such value.
            NotFound: No such model or version is served.
            FailedPrecondition: The model gives no dense vectors, or does not explain similarities.
            PermissionDenied: This client may not see attention, of which reasons are a kind.
            RegardError: The call failed.
        """
        wanted = encoding.similarity_relevance(why=why, pairs=pairs, drop_special=drop_special)
        request = encoding.compare_request(first, second, wanted, model, version, prompts, truncate, priority)
        return decoding.read_comparison(self._call(self._stub.Compare, request, timeout), request)
