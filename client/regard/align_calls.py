"""The blocking call of a text and an image of two towers."""

from regard import decoding, encoding
from regard.alignment import Alignment
from regard.calls import BlockingCalls
from regard.inputs import ImageSource


class AlignCalls(BlockingCalls):
    """What a client asks of two towers together."""

    def align(
        self,
        *,
        image: ImageSource,
        text: str,
        model: str = "",
        version: str = "",
        truncate: bool = False,
        priority: int = 0,
        timeout: float | None = None,
    ) -> Alignment:
        """Ask which patch of an image answers to which word of a text.

        Args:
            image: A JPEG, PNG or WebP file, as bytes or as a path.
            text: What is compared with it.
            model: Two towers with `can_align`. May be empty where only one model is served.
            version: Empty means the newest.
            truncate: Cut a text that has more tokens than the model takes, instead of refusing it.
            priority: 1 is served first, then 2, then 3; 0 means 2.
            timeout: Seconds, instead of the client's own.

        Returns:
            The cosine of each token and each patch, and of the whole text and each patch.

        Raises:
            InvalidArgument: The path cannot be read, the file is no image, the text is empty or too long, or another
                argument has no such value.
            NotFound: No such model or version is served.
            FailedPrecondition: The model is not two towers that can align.
            PermissionDenied: This client may not see attention, of which this is a kind.
            RegardError: The call failed.
        """
        request = encoding.align_request(image, text, model, version, truncate, priority)
        return decoding.read_alignment(self._call(self._stub.Align, request, timeout))
