"""Reads a model's address on the hub, as a browser shows it: https://huggingface.co/owner/name, with /tree/REVISION."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants

from export.errors import HubError
from export.hub import is_hub_id

_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
# First parts of paths of huggingface.co that are nobody's name: other kinds of repositories, and pages of the site.
_NOT_OWNERS = frozenset(
    (
        *("datasets", "spaces", "kernels", "models", "collections", "papers", "docs", "blog", "tasks", "learn"),
        *("posts", "organizations", "settings", "api", "chat", "inference", "join", "login", "new", "pricing"),
    )
)
_AT_A_REVISION = frozenset({"tree", "commit", "commits"})
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_EXPECTED = "expected owner/name, or its page, https://huggingface.co/owner/name with or without /tree/REVISION"


@dataclass(frozen=True)
class Address:
    """Which model is meant.

    Attributes:
        repository: The id, owner/name.
        revision: Branch, tag or commit; None where the address names none.
    """

    repository: str
    revision: str | None = None


def read_address(text: str) -> Address | None:
    """Read an id or an address; None where a text is neither.

    Addresses are those of huggingface.co and of HF_ENDPOINT. What is asked is HF_ENDPOINT, as for an id.

    Raises:
        HubError: It is an address of the hub, but not of a model as a whole.
    """
    if is_hub_id(text) and text.partition("/")[0] not in _HOSTS:
        return Address(text)
    host, path = _split(text)
    home, below = _split(constants.ENDPOINT)
    if host == home and path[: len(below)] == below:
        path = path[len(below) :]
    elif host not in _HOSTS:
        return None
    repository, behind = "/".join(path[:2]), path[2:]
    if not is_hub_id(repository) or path[0] in _NOT_OWNERS:
        raise HubError(f"{text}: is no model's page on the hub; {_EXPECTED}")
    match behind:
        case []:
            return Address(repository)
        case [kind, revision] if kind in _AT_A_REVISION:
            return Address(repository, unquote(revision))
    raise HubError(f"{text}: is a page within a model; expected {repository}, with --revision for another than main")


def _split(text: str) -> tuple[str, list[str]]:
    """The host of an address, in small letters, and the parts of its path; no host where it is none."""
    try:
        parts = urlsplit(text if _SCHEME.match(text) else f"https://{text}")
    except ValueError:
        return "", []
    return parts.netloc.lower(), [part for part in parts.path.split("/") if part]
