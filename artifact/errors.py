"""What can be wrong with an artifact, and with what it is asked to preprocess.

ArtifactError (ValueError)    a file of an artifact cannot be used
└── ContractError             its contract cannot
InputError (ValueError)       a text or an image cannot be used
"""


class ArtifactError(ValueError):
    """A file of an artifact that cannot be used; the message names the file and what was expected."""


class ContractError(ArtifactError):
    """A contract that cannot be used; the message names the file, the field and what was expected."""


class InputError(ValueError):
    """A text or an image that cannot be used."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        """Compose the message.

        Args:
            field: "text" or "image".
            value: What came.
            expected: What would have been right.
        """
        super().__init__(f"{field}: {value}; expected {expected}")
        self.field, self.value, self.expected = field, value, expected
