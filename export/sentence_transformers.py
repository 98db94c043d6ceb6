"""What a sentence-transformers folder says: what makes its vectors and compares them, and what is put before texts.

A folder without modules.json is read as the library reads one that it did not write, mean over the tokens, and its
vectors are normalised.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from artifact.contract import Similarity, check_prompts
from model.checkpoint import CheckpointError, read_json

MODULES_FILE, SETTINGS_FILE = "modules.json", "config_sentence_transformers.json"
COLBERT_FILE = "artifact.metadata"  # JSON
Mode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
_PACKAGE = "sentence_transformers"  # a class of another is the folder's own code, which may do anything
_STEPS = ("Dense", "Normalize", "Dropout")  # what may stand behind a Pooling
_KNOWN = ("Transformer", "Pooling", *_STEPS, "MLMTransformer", "SpladePooling")
# Older files have a flag for each mode; these are then joined in this order.
_FLAGS: dict[str, Mode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SIZES = ("word_embedding_dimension", "embedding_dimension")  # of the network, which tells them itself
_VECTOR, _TOKENS = "sentence_embedding", "token_embeddings"
_OF_PYLATE = ("pylate.models.Dense.Dense",)
_COLBERT_DIM, _IDENTITY = 128, "torch.nn.modules.linear.Identity"  # what ColBERT's code takes where a file has none


@dataclass(frozen=True)
class Dense:
    """A linear layer with an activation.

    Attributes:
        folder: Where its weights lie.
        in_features: Width of what it takes.
        out_features: Width of what it gives.
        bias: Whether it has one.
        activation: The class, as torch names it.
        residual: Whether what it takes is added to what it gives.
        beside: Whether its weights lie among those of the network.
    """

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool
    beside: bool = False


@dataclass(frozen=True)
class Splade:
    """How the scores of masked words become one weight of each word (Formal et al. 2021, "SPLADE v2", section 3).

    Attributes:
        strategy: What is made of a word's weights at all tokens.
        activation: Of the scores, before the logarithm of 1 and what it gives.
    """

    strategy: Literal["max", "sum"] = "max"
    activation: Literal["relu", "log1p_relu"] = "relu"


@dataclass(frozen=True)
class SentenceFolder:
    """How texts become vectors.

    Attributes:
        network: The folder of the network itself.
        modes: How tokens are pooled; the vectors of several are joined.
        steps: What is done to the vector then, in order.
        similarity: How vectors are compared; None where nothing says that they are made to be.
        prompts: What may be put before a text, by name.
        default_prompt: The name of that which is put there unless another is asked for; empty for none.
        splade: How sparse vectors are made; None for dense ones.
        late: What PyLate, or ColBERT's own code, says of queries and documents, of which each token has a vector; None
            for one vector a text.
    """

    network: Path
    modes: tuple[Mode, ...] = ("mean",)
    steps: tuple[Dense | Literal["normalize"], ...] = ("normalize",)
    similarity: Similarity | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    splade: Splade | None = None
    late: Mapping[str, Any] | None = None

    @property
    def normalized(self) -> bool:
        """Whether vectors have Euclidean length 1."""
        return self.steps[-1:] == ("normalize",)


def read_sentence_folder(folder: Path) -> SentenceFolder:
    """Read a folder, whoever wrote it.

    Raises:
        CheckpointError: A file is damaged, or names a module, mode or setting that is not known.
    """
    try:
        return _read_folder(folder)
    except CheckpointError:
        raise
    except (AttributeError, TypeError, ValueError) as error:  # of values of other types than the library writes
        raise CheckpointError(f"{folder}: its sentence-transformers files cannot be understood: {error}") from error


def _read_folder(folder: Path) -> SentenceFolder:
    if is_colbert(folder):
        return _read_colbert(folder)
    if not (folder / MODULES_FILE).is_file():
        lone = folder / "1_Pooling"
        return SentenceFolder(folder, _read_modes(lone, {}) if (lone / "config.json").is_file() else ("mean",))
    modules = list(_read_modules(folder, with_late=is_late(folder)))
    kinds = [kind for kind, _ in modules]
    prompts, default = read_prompts(folder)
    if kinds == ["Transformer"] and is_cross_encoder(folder):
        return SentenceFolder(modules[0][1], prompts=prompts, default_prompt=default)
    if is_late(folder):
        return _read_late(folder, modules)
    if kinds[1:] == ["SpladePooling"] and kinds[0] in ("Transformer", "MLMTransformer"):
        told = read_similarity(folder, "dot")
        found = SentenceFolder(modules[0][1], similarity=told, prompts=prompts, default_prompt=default)
        return as_sparse(found, _read_splade(modules[1][1]))
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {*_STEPS}:
        expected = "one Transformer, then one Pooling, then others; or an MLMTransformer and one SpladePooling"
        raise _fault(folder / MODULES_FILE, ", ".join(kinds) or "no modules", expected)
    steps = (_read_step(kind, at) for kind, at in modules[2:])
    return SentenceFolder(
        network=modules[0][1],
        modes=_read_modes(modules[1][1], prompts),
        steps=tuple(step for step in steps if step),
        similarity=read_similarity(folder),
        prompts=prompts,
        default_prompt=default,
    )


def as_sparse(folder: SentenceFolder, splade: Splade) -> SentenceFolder:
    """Say that a folder's network makes sparse vectors, which are not pooled."""
    return replace(folder, modes=(), steps=(), splade=splade, similarity=folder.similarity or "dot")


def is_late(folder: Path) -> bool:
    """Whether PyLate wrote the folder: a vector for each token, of queries and documents."""
    return "query_prefix" in read_settings(folder)


def is_colbert(folder: Path) -> bool:
    """Whether ColBERT's own code wrote the folder: a BERT, a linear layer among its weights, and artifact.metadata."""
    return (folder / COLBERT_FILE).is_file() and not (folder / MODULES_FILE).is_file()


def _read_colbert(folder: Path) -> SentenceFolder:
    """Read the linear layer of a folder of ColBERT's; what it says of queries and documents is read_colbert's."""
    file, config = folder / COLBERT_FILE, read_json(folder / "config.json")
    settings = read_json(file)
    for name, known in (("similarity", "cosine"), ("interaction", "colbert"), ("relu", False)):
        if settings.get(name, known) != known:
            raise _fault(file, f"{name} {settings[name]!r}", f"{known!r}")
    dim, width = settings.get("dim", _COLBERT_DIM), config.get("hidden_size")
    if not isinstance(dim, int) or not isinstance(width, int) or isinstance(dim, bool) or dim < 1:
        raise _fault(file, f"dim {dim!r} of hidden_size {width!r}", "numbers")
    linear = Dense(folder, width, dim, bias=False, activation=_IDENTITY, residual=False, beside=True)
    return SentenceFolder(folder, modes=(), steps=(linear,), late=settings)


def _read_late(folder: Path, modules: list[tuple[str, Path]]) -> SentenceFolder:
    kinds = [kind for kind, _ in modules]
    if kinds[:1] != ["Transformer"] or not set(kinds[1:]) <= {"Dense"} or len(kinds) < 2:
        raise _fault(folder / MODULES_FILE, ", ".join(kinds), "one Transformer, then Dense ones, as PyLate writes them")
    settings, file = read_settings(folder), folder / SETTINGS_FILE
    named = settings.get("similarity_fn_name") or "MaxSim"
    if named != "MaxSim":
        raise _fault(file, f"similarity_fn_name {named!r}", "'MaxSim'")
    for module in range(1, len(modules)):
        _check_of_tokens(modules[module][1] / "config.json")
    steps = tuple(step for kind, at in modules[1:] if (step := _read_step(kind, at, _TOKENS)))
    prompts, default = read_prompts(folder)
    return SentenceFolder(modules[0][1], modes=(), steps=steps, prompts=prompts, default_prompt=default, late=settings)


def _check_of_tokens(file: Path) -> None:
    """PyLate's dense layers have no activation unless they say so; those of sentence-transformers have one."""
    config = read_json(file)
    if "activation_function" not in config:
        raise _fault(file, "no activation_function", "it to be named, as PyLate writes it")


def _read_splade(folder: Path) -> Splade:
    """Read how sparse vectors are made."""
    file = folder / "config.json"
    config = read_json(file)
    strategy, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    for name, value, known in (
        ("pooling_strategy", strategy, ("max", "sum")),
        ("activation_function", activation, ("relu", "log1p_relu")),
    ):
        if value not in known:
            raise _fault(file, f"{name} {value!r}", " or ".join(known))
    _check_rest(file, config, ("pooling_strategy", "activation_function", "chunk_size", *_SIZES))
    return Splade(strategy, activation)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read what sentence-transformers says of a folder besides its modules; empty where it says nothing."""
    return read_json(folder / SETTINGS_FILE) if (folder / SETTINGS_FILE).is_file() else {}


def is_cross_encoder(folder: Path) -> bool:
    """Whether a folder says that it scores pairs of texts instead of embedding single ones."""
    return read_settings(folder).get("model_type") == "CrossEncoder"


def read_prompts(folder: Path) -> tuple[dict[str, str], str]:
    """Read the prompts by name, and the name of that which is the default; pairs of texts have none.

    Raises:
        CheckpointError: The default is none of them, or is meant for pairs.
    """
    settings, file = read_settings(folder), folder / SETTINGS_FILE
    prompts = {str(name): str(text or "") for name, text in (settings.get("prompts") or {}).items()}
    default = str(settings.get("default_prompt_name") or "")
    if default and default not in prompts:
        raise _fault(file, f"default_prompt_name {default!r}", f"one of {', '.join(prompts) or 'no prompts'}")
    if is_cross_encoder(folder):
        if default:
            raise _fault(file, f"default_prompt_name {default!r}", "none: nothing is put before pairs of texts")
        return {}, ""
    try:
        check_prompts(prompts)
    except ValueError as error:
        raise CheckpointError(f"{file}: prompts: {error}") from error
    return prompts, default


def read_similarity(folder: Path, default: Similarity = "cosine") -> Similarity | None:
    """Read how vectors are compared, by default as given; None where the folder is none of sentence-transformers.

    Raises:
        CheckpointError: By what is not known.
    """
    if not (folder / MODULES_FILE).is_file():
        return None
    name = read_settings(folder).get("similarity_fn_name") or default
    if name not in get_args(Similarity):
        raise _fault(folder / SETTINGS_FILE, f"similarity_fn_name {name!r}", f"{', '.join(get_args(Similarity))}")
    return cast("Similarity", name)


def _read_modules(folder: Path, *, with_late: bool) -> Iterator[tuple[str, Path]]:
    """Yield each module's kind and folder."""
    file = folder / MODULES_FILE
    try:
        modules = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON: {error}") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise _fault(file, "something else", "a list of objects")
    for module in modules:
        named, path = str(module.get("type", "")), str(module.get("path", ""))
        package, _, kind = named.rpartition(".")
        own = package.partition(".")[0] == _PACKAGE or (with_late and named in _OF_PYLATE)
        if kind not in _KNOWN or not own:
            raise _fault(file, named or "a module without a type", f"{', '.join(_KNOWN)} of {_PACKAGE} alone")
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise _fault(file, f"path {path!r}", "a folder in this one")
        yield kind, folder / path


def _read_modes(folder: Path, prompts: Mapping[str, str]) -> tuple[Mode, ...]:
    file = folder / "config.json"
    config = read_json(file)
    if unknown := [name for name in config if name.startswith("pooling_mode_") and name not in _FLAGS and config[name]]:
        raise _fault(file, unknown[0], f"{', '.join(_FLAGS)} alone")
    named = config.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if config.get(flag)] or "mean"
    modes = [named] if isinstance(named, str) else list(named)
    if strange := [mode for mode in modes if mode not in get_args(Mode)]:
        raise _fault(file, f"pooling_mode {strange[0]!r}", f"{', '.join(get_args(Mode))} alone")
    if not config.get("include_prompt", True) and any(prompts.values()):
        raise _fault(file, "include_prompt false", "true: the tokens of a prompt cannot be left out of the pooling")
    _check_rest(file, config, (*_FLAGS, *_SIZES, "pooling_mode", "include_prompt"))
    return cast("tuple[Mode, ...]", tuple(modes))


def _read_step(kind: str, folder: Path, of: str = _VECTOR) -> Dense | Literal["normalize"] | None:
    """Read what is done to a vector; None for nothing, as of dropout when nobody trains."""
    file = folder / "config.json"
    config = read_json(file) if kind == "Dense" or (kind == "Normalize" and file.is_file()) else {}
    for name in ("module_input_name", "module_output_name"):
        if config.get(name) not in (None, of):
            raise _fault(file, f"{name} {config[name]!r}", f"{of!r}")
    if kind != "Dense":
        return "normalize" if kind == "Normalize" else None
    known = ("in_features", "out_features", "bias", "activation_function", "use_residual")
    _check_rest(file, config, (*known, "module_input_name", "module_output_name"))
    for name in known[:2]:
        if not isinstance(config.get(name), int):
            raise _fault(file, f"{name} {config.get(name)!r}", "a number")
    return Dense(
        folder=folder,
        in_features=config["in_features"],
        out_features=config["out_features"],
        bias=bool(config.get("bias", True)),
        activation=str(config.get("activation_function", "torch.nn.modules.activation.Tanh")),
        residual=bool(config.get("use_residual")),
    )


def _check_rest(file: Path, config: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse settings that nobody here knows, unless they are off."""
    if unknown := [name for name, value in config.items() if name not in known and value]:
        raise _fault(file, f"{unknown[0]} {config[unknown[0]]!r}", "no such setting")


def torch_class(named: object, known: Collection[str], field: str) -> str:
    """Return the name of one of torch's classes, as files of sentence-transformers have it with its package.

    Raises:
        CheckpointError: It is none of those that are known; names the field.
    """
    package, _, name = str(named).rpartition(".")
    if name not in known or not package.startswith("torch."):
        raise CheckpointError(f"{field} {named}; expected torch's {', '.join(known)}")
    return name


def _fault(file: Path, found: str, expected: str) -> CheckpointError:
    return CheckpointError(f"{file}: {found}; expected {expected}")
