"""What an operator wants of one model: config.toml beside its versions, read at every load."""

import tomllib
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from artifact.errors import ArtifactError, explain
from artifact.files import check_regular
from server.engine.engine import AttentionForm
from server.engine.execution import Execution, Precision, Way

SETTINGS_FILE = "config.toml"


class SettingsError(ValueError):
    """Settings that cannot be used; the message names the file, the field and what was expected."""


def _check_versions(value: object) -> object:
    numbers = value if isinstance(value, list | tuple) else (value,)
    if value != "all" and (not numbers or any(type(number) is not int or number < 1 for number in numbers)):
        raise ValueError('expected a number of the newest from 1, "all", or a list of versions')
    return value


Sizes = Annotated[tuple[Annotated[int, Field(strict=True, ge=1)], ...], Field(min_length=1, max_length=32)]


class ModelSettings(BaseModel):
    """The settings of one model.

    Attributes:
        versions: Which are served: so many of the newest, "all", or these.
        list_attention: Whether the Open Inference Protocol's metadata lists attention among the outputs; perf_analyzer
            asks for whatever is listed there.
        list_hidden_states: Likewise hidden states, which no request has beside attention.
        list_joint_outputs: Likewise what two towers give together, scores and maps: no request has both.
        instances: Most batches of it that run at a time on each device; None for as many as the device runs.
        max_requests: Most requests for it in the server at a time; None for no limit of its own.
        max_input_bytes: Most bytes of their inputs; likewise.
        attention_form: Which form of the tapped graph runs: with its fused nodes ("fused"), with eager attention
            ("lowered"), or "auto": fused, and on a GPU that cannot run it so, lowered.
        execution: How runs without attention are executed on a GPU, see engine.execution.Execution, also for the next
            three; None for what --execution says.
        sample_attention: Share of its inputs whose attention is computed, too, for metrics: 0 none, 1 all.
        max_samples_per_second: Most of these a second.
        unload_after_idle_seconds: Unload it when nobody has asked for so long, and load it again for the next who
            does; None for never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: Annotated[int | Literal["all"] | tuple[int, ...], BeforeValidator(_check_versions)] = 1
    list_attention: bool = True
    list_hidden_states: bool = False
    list_joint_outputs: bool = False
    attention_form: AttentionForm = "auto"
    execution: Way | None = None
    precision: Precision = Execution.precision
    graph_rows: Sizes = Execution.graph_rows
    graph_tokens: Sizes = Execution.graph_tokens
    instances: int | None = Field(default=None, ge=1)
    max_requests: int | None = Field(default=None, ge=1)
    max_input_bytes: int | None = Field(default=None, ge=1)
    sample_attention: float = Field(default=0.0, ge=0, le=1)
    max_samples_per_second: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    unload_after_idle_seconds: float | None = Field(default=None, gt=0)

    @property
    def of_engine(self) -> Hashable:
        """What a version is loaded with: where that changes, it is loaded again."""
        return self.attention_form, self.execution, self.precision, self.graph_rows, self.graph_tokens

    def execution_beside(self, served: Execution) -> Execution:
        """What is wanted of this model, where the server's flags say the rest."""
        return replace(
            served,
            way=self.execution or served.way,
            precision=self.precision,
            graph_rows=self.graph_rows,
            graph_tokens=self.graph_tokens,
        )

    def candidates(self, found: Sequence[int]) -> list[int]:
        """Put in order what may be served of the versions found, the newest first."""
        listed = set(self.versions) if isinstance(self.versions, tuple) else set(found)
        return sorted(listed, reverse=True)

    def max_served(self, found: Sequence[int]) -> int:
        """How many of the candidates are served."""
        return self.versions if isinstance(self.versions, int) else len(self.candidates(found))


def read_settings(folder: Path) -> ModelSettings:
    """Read the settings of a model; the defaults where there is no file.

    Raises:
        SettingsError: The file cannot be read, or a field is wrong.
    """
    path = folder / SETTINGS_FILE
    try:
        if path.exists():
            check_regular(path)
        return ModelSettings.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        return ModelSettings()
    except ArtifactError as error:
        raise SettingsError(str(error)) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        raise SettingsError(f"{path}: {explain(error)}") from error
