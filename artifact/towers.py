"""The contract of two towers, towers.json: what joins an artifact for texts and one for images in one space."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from artifact.contract import CONTRACT_FILE, NAME_PATTERN, Contract, Origin, read_as
from artifact.errors import ContractError
from artifact.verification import Check

TOWERS_FILE = "towers.json"
TEXT_TOWER, IMAGE_TOWER = "text", "image"  # folders of artifacts beside that file
LABEL_PLACE = "{}"  # in a template: where a label goes


class TowersContract(BaseModel):
    """What the server knows of two towers besides each: a text and an image score activation(scale * cosine + bias).

    Attributes:
        dim: Numbers of the vectors of both, which have Euclidean length 1.
        logit_scale: What cosines are multiplied with: the exponential of what the network learned.
        logit_bias: What is added then.
        activation: What makes scores of the logits of one image: "softmax" over the labels, or "sigmoid" of each.
        template: The sentence that a label is put into, at its {}, unless a caller gives another.
        files: sha256 in hexadecimal of the contract of each tower, by its path; these have those of all else.
        verification: Of the scores; each tower has its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    version: int = Field(gt=0)
    family: str
    description: str = ""
    dim: int = Field(gt=0)
    logit_scale: float = Field(gt=0, allow_inf_nan=False)
    logit_bias: float = Field(default=0.0, allow_inf_nan=False)
    activation: Literal["softmax", "sigmoid"]
    template: str
    files: dict[str, str]
    origin: Origin | None = None
    made_with: dict[str, str] = {}
    verification: tuple[Check, ...] = ()

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.template.count(LABEL_PLACE) != 1:
            raise ValueError(f"template: {self.template!r}; expected one {LABEL_PLACE}")
        if (found := set(self.files)) != (expected := set(contract_paths())):
            raise ValueError(f"files: {sorted(found)}; expected {sorted(expected)}")
        return self


def contract_paths() -> tuple[str, str]:
    """Name the contracts of both towers within the folder."""
    return f"{TEXT_TOWER}/{CONTRACT_FILE}", f"{IMAGE_TOWER}/{CONTRACT_FILE}"


def read_towers(path: Path) -> TowersContract:
    """Read and check a contract of two towers.

    Raises:
        ContractError: The file is absent, not JSON, or a field is wrong.
    """
    return read_as(TowersContract, path)


def join_contracts(towers: TowersContract, text: Contract, image: Contract) -> Contract:
    """Describe both towers as one model, which takes the inputs of either and gives a vector.

    Raises:
        ContractError: They are no tower for texts and one for images, or their vectors are of two spaces.
    """
    for name, tower, takes in ((TEXT_TOWER, text, text.text), (IMAGE_TOWER, image, image.image)):
        if (tower.name, tower.version) != (towers.name, towers.version):
            found = f"{tower.name}/{tower.version}"
            raise ContractError(f"{TOWERS_FILE}: {name} is of {found}; expected {towers.name}/{towers.version}")
        if takes is None:
            raise ContractError(f"{TOWERS_FILE}: {name}: its contract takes no {name}s")
        vector = tower.embedding
        if vector is None or vector.dim != towers.dim or not vector.normalized:
            raise ContractError(f"{TOWERS_FILE}: {name}: expected vectors of {towers.dim} numbers and of length 1")
    if text.embedding and image.embedding and text.embedding.output != image.embedding.output:
        found = f"{text.embedding.output} and {image.embedding.output}"
        raise ContractError(f"{TOWERS_FILE}: vectors are the outputs {found}; expected one name")
    if text.projected and image.projected and text.projected.dim != image.projected.dim:
        found = f"{text.projected.dim} and {image.projected.dim}"
        raise ContractError(f"{TOWERS_FILE}: projected vectors have {found} numbers; expected as many of both")
    if text.text and text.text.prompts:
        raise ContractError(f"{TOWERS_FILE}: {TEXT_TOWER}: has prompts; expected none, which would stand before labels")
    vectors = tuple(spec for spec in text.outputs if text.embedding and spec.name == text.embedding.output)
    return Contract(
        name=towers.name,
        version=towers.version,
        family=towers.family,
        description=towers.description,
        inputs=(*text.inputs, *image.inputs),
        outputs=vectors,
        text=text.text,
        image=image.image,
        embedding=text.embedding,
        patches=image.patches,
        precision=text.precision,
        files=text.files,
        origin=towers.origin,
        made_with=towers.made_with,
    )
