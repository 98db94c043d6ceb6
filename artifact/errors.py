"""What can be wrong with an artifact, and with what it is asked to preprocess.

ArtifactError (ValueError)    a file of an artifact cannot be used
└── ContractError             its contract cannot
InputError (ValueError)       a text or an image cannot be used
"""

from pydantic import ValidationError

_MAX_SHOWN_CHARACTERS = 80


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


def explain(error: ValidationError, *, show_value: bool = True) -> str:
    """Say what is wrong with the first field that pydantic refused: its name, why, and what came.

    Args:
        error: As pydantic raised it.
        show_value: False where values are secrets.
    """
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"])) or "content"
    message, value = first["msg"].removeprefix("Value error, "), first["input"]
    if not show_value or isinstance(value, dict):
        return f"{field}: {message}"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return f"{field}: {message} (got {text[:_MAX_SHOWN_CHARACTERS]!r})"
