"""The server's settings: one frozen object, read once from flags and environment."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, SettingsConfigDict

from server.address import split_address
from server.errors import StartError
from server.memory import available_bytes

_RESEMBLANCE = 0.85  # of 1: a letter or two
_IMAGE_PIXELS = 50_000_000
_BYTES_A_PIXEL = 16  # while a WebP is decoded; others take 4 to 8
_DEVICE = re.compile(r"auto|(cuda|tensorrt):all|(cpu|cuda|tensorrt)(:[0-9]{1,4})?")
_ALONE = re.compile(r"auto|\w+:all")
EMBEDDED_MODELS = Path(__file__).parent / "embedded"


def _address(value: str) -> str:
    split_address(value)
    return value


def _device(value: str) -> str:
    names = value.split(",")
    if not all(map(_DEVICE.fullmatch, names)) or (len(names) > 1 and any(map(_ALONE.fullmatch, names))):
        raise ValueError(
            "expected auto, cpu, cuda or tensorrt; the last two with :N for another GPU than the first, or :all; "
            "or several with commas between: cuda:0,cuda:1"
        )
    parts = [name.partition(":") for name in names]
    if len({kind for kind, _, _ in parts}) > 1:
        raise ValueError("expected devices of one kind: all cpu, all cuda or all tensorrt")
    numbers = [int(index or 0) for _, _, index in parts if index != "all"]
    for name, number in zip(names, numbers, strict=False):
        if numbers.count(number) > 1:
            raise ValueError(f"{name} is named twice; expected each device once")
    return value


def _models(value: object) -> object:
    return Path(value) if isinstance(value, str) and "://" not in value else value


Address = Annotated[str, AfterValidator(_address)]


class Config(BaseSettings):
    """Serve exported transformers over gRPC. Every flag is also an environment variable: --models, REGARD_MODELS."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="REGARD_",
        env_ignore_empty=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
    )

    models: Annotated[Path | str, BeforeValidator(_models)] = Field(
        EMBEDDED_MODELS,
        description="Folder of artifacts, NAME/VERSION, or of a single model, or an artifact itself; without it two "
        "small models are served. Also of a store, by its URL (s3://BUCKET/PREFIX, gs://, az://, file://), with the "
        "extra regard[store] and the store's own package: what is loaded is fetched from there and verified.",
    )
    models_cache: Path | None = Field(
        None,
        description="Folder where artifacts of a store are kept, once for all servers of the machine; without it, one "
        "among the user's caches, or in the temporary folder.",
    )
    models_cache_bytes: int = Field(
        0,
        ge=0,
        description="Most bytes of that folder, with what is being fetched: artifacts that were not used for longest "
        "are removed for new ones, and one that finds no room is refused. 0 removes nothing, and takes what fits on "
        "the disk.",
    )
    listen: Address = Field(
        "127.0.0.1:8001",
        description="HOST:PORT for gRPC; port 0 takes a free one. Beyond loopback it needs TLS and authentication.",
    )
    http: Address | None = Field(
        None,
        description="HOST:PORT for HTTP, with the extra regard[http]; port 0 takes a free one. Off unless set. "
        "The Open Inference Protocol with binary tensors, OpenAI's embeddings, rerank, and regard.v1 for Connect and "
        "gRPC-Web. Beyond loopback it needs what --listen does.",
    )
    http_cors: str = Field(
        "",
        description="Origins of web pages that may ask over HTTP, with commas between, for example "
        "https://app.example.com; * lets every page. Pages of other origins are refused with 403.",
    )
    metrics: Address = Field(
        "127.0.0.1:9090", description="HOST:PORT for /metrics, /healthz and /readyz; port 0 takes a free one."
    )
    transport: Literal["grpcio", "envoy"] = Field(
        "grpcio",
        description="What carries calls. envoy, of the extra regard[envoy], takes less time for small requests; it has "
        "no TLS here: for loopback, and behind a proxy that ends it.",
    )
    tls_cert: Path | None = Field(None, description="Certificate with its chain, PEM; read again when it changes.")
    tls_key: Path | None = Field(None, description="Key of the certificate, PEM, without a password.")
    tls_client_ca: Path | None = Field(
        None, description="Authority that signs callers' certificates, PEM; callers without one are refused then."
    )
    clients: Path | None = Field(None, description="Who may call what and how much, TOML; read again when it changes.")
    manage: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Loading and unloading models, shared memory, log settings; auto offers them on "
        "a loopback address only.",
    )
    allow_insecure: bool = Field(False, description="Listen beyond loopback without TLS or authentication.")
    trial_load: bool = Field(
        True,
        description="Load each version in a process of its own first, so that none can end the server; takes a second "
        "or two a version. Not done for the embedded models.",
    )
    max_loaded_models: int = Field(
        0,
        ge=0,
        description="Most models that are loaded at a time: each is loaded when it is first asked for, in the place of "
        "the one that was not asked for longest. Versions that are served count as one. 0 loads all at the start.",
    )
    strict_models: bool = Field(
        False, description="Refuse to start where a model cannot be served; without it the others are served."
    )
    watch: bool = Field(
        False,
        description="Follow changes in the models folder; without it models are loaded and unloaded on request only.",
    )
    poll_seconds: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="How often --watch looks at the models of a store, in seconds: each time it lists what lies there.",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        "auto",
        description="auto, cpu, cuda, cuda:N, tensorrt or tensorrt:N; all but auto refuse to start on anything else. "
        "Several with commas between (cuda:0,cuda:1), or cuda:all or tensorrt:all, have the models each; cpu:0,cpu:1 "
        "shares the threads between as many, to try that.",
    )
    execution: Literal["auto", "unbound", "bound", "cuda_graphs", "tensorrt"] = Field(
        "auto",
        description="How runs without attention are executed on a GPU: through memory made for each (unbound), through "
        "kept buffers (bound), with CUDA graphs for small batches (cuda_graphs), or by TensorRT (tensorrt); auto "
        "measures these at load and takes the fastest, others refuse a model that cannot be run so. A model's "
        "config.toml may say another.",
    )
    tensorrt_cache: Path | None = Field(
        None,
        description="Folder where TensorRT's engines are kept, which may take minutes to build; without it auto does "
        "not try TensorRT, and tensorrt builds them at every load.",
    )
    threads: int = Field(
        0,
        ge=0,
        description="Threads of the engine, shared by its instances; 0 takes as many as there are "
        "CPUs for this process.",
    )
    instances: int = Field(
        0,
        ge=0,
        description="Batches that run at a time on each device, where they share its threads; 0 takes one a thread, at "
        "most 4, and 2 on a GPU. Each of several NUMA nodes is a device. A model's config.toml may have fewer.",
    )
    lanes: int = Field(0, ge=0, description="Deprecated; use --instances.")
    max_batch_size: int = Field(
        32,
        ge=1,
        description="Most rows in one batch, and in one request; larger requests are refused with INVALID_ARGUMENT.",
    )
    max_batch_tokens: int = Field(
        8192,
        ge=1,
        description="Most tokens or patches in one run, padding included; a larger request takes several runs.",
    )
    max_run_seconds: float = Field(
        0.5,
        gt=0,
        description="Longest estimated run of several rows, in seconds; a longer request takes several runs, and "
        "others have their turn between them.",
    )
    max_attention_bytes: int = Field(
        2**30,
        ge=1,
        description="Most bytes of attention weights computed at once; larger requests are refused "
        "with INVALID_ARGUMENT.",
    )
    max_pair_tokens: int = Field(
        2**14,
        ge=1,
        description="Most tokens or patches in all runs that Compare takes for the pairs of one input, which runs once "
        "for each of its tokens and once more, and in all that Generate takes to explain tokens, each a run that reads "
        "the source and the text; beyond it the request is refused with INVALID_ARGUMENT. 16384 are 127 tokens.",
    )
    max_queue_size: int = Field(
        1024,
        ge=1,
        description="Most requests of one client that wait or are being decoded; beyond it new ones are refused "
        "with RESOURCE_EXHAUSTED. All clients together may have a quarter more.",
    )
    max_queue_seconds: float = Field(
        10.0,
        gt=0,
        description="Longest wait for an answer, in seconds: new requests that are estimated to wait longer are "
        "refused with RESOURCE_EXHAUSTED, and so is what waits behind others once it would end later than that.",
    )
    max_queue_bytes: int = Field(
        2**30,
        ge=1,
        description="Most bytes of one client's inputs that wait; beyond it new requests are refused with "
        "RESOURCE_EXHAUSTED. All clients together may have a quarter more.",
    )
    max_queue_delay_ms: float = Field(
        0.0,
        ge=0,
        description="Batching window in milliseconds; so long a batch that is not full waits for "
        "more while the engine is idle.",
    )
    cache_bytes: int = Field(
        0, ge=0, description="Bytes for answers to give again; equal requests at a time then share one. 0 does neither."
    )
    max_message_bytes: int = Field(
        64 * 2**20,
        ge=1024,
        description="Largest request and largest answer, in bytes; larger ones are refused with RESOURCE_EXHAUSTED.",
    )
    max_message_fields: int = Field(
        2**16,
        ge=1024,
        description="Most fields of a request, those of nested messages, entries of lists and elements of BYTES "
        "included; larger ones are refused with INVALID_ARGUMENT before they are parsed.",
    )
    max_message_integers: int = Field(
        2**20,
        ge=1024,
        description="Most integers in lists of a request (typed contents, layers, rows, keys); larger ones are refused "
        "with INVALID_ARGUMENT before they are parsed. Tensors that travel raw have none.",
    )
    max_held_bytes: int = Field(
        0,
        ge=0,
        description="Most bytes held for callers, requests and answers until these are read; beyond it, and beyond "
        "four fifths of it for one client alone, new requests are refused with RESOURCE_EXHAUSTED. 0 takes a quarter "
        "of the memory for this process.",
    )
    max_stall_seconds: float = Field(
        60.0,
        gt=0,
        description="Longest time that a caller may take to send a request or to read an answer, in seconds; its call "
        "is cut off then, since it holds memory.",
    )
    max_connections: int = Field(4096, ge=1, description="Most connections of each port; further ones are closed.")
    max_watches: int = Field(
        4096,
        ge=1,
        description="Most watches of health that may be open, which need no authentication; one address may have four "
        "fifths of them. Further ones are refused with RESOURCE_EXHAUSTED.",
    )
    max_idle_seconds: float = Field(
        300.0,
        gt=0,
        description="How long a connection may be without a call, in seconds; then it is closed, and clients open it "
        "again by themselves.",
    )
    keepalive_seconds: float = Field(
        60.0,
        gt=0,
        description="How long a connection may be silent, in seconds, before its client is asked whether it is there; "
        "without an answer within 20 s it is closed.",
    )
    max_image_pixels: int = Field(
        0,
        ge=0,
        description="Largest image, width times height in pixels; larger ones are refused before they are decoded. 0 "
        "takes 50 million, or as many as decode in a quarter of the memory for this process where these are fewer.",
    )
    max_image_scan_pixels: int = Field(
        600_000_000,
        ge=1,
        description="Most pixels times scans of a progressive JPEG, which has about ten; more are refused with "
        "INVALID_ARGUMENT before they are decoded.",
    )
    max_request_pixels: int = Field(
        400_000_000,
        ge=1,
        description="Most pixels of all images of a request, 32 photographs of 12 megapixels; more are refused with "
        "INVALID_ARGUMENT before any is decoded.",
    )
    max_audio_bytes: int = Field(
        16 * 2**20,
        ge=1,
        description="Largest sound file, in bytes; larger ones are refused with INVALID_ARGUMENT.",
    )
    max_audio_samples: int = Field(
        16_000_000,
        ge=1,
        description="Most samples of a sound file, those of all its channels, half a minute of 5 channels at 96 kHz; "
        "more are refused with INVALID_ARGUMENT before they are decoded.",
    )
    max_inputs: int = Field(
        256,
        ge=1,
        description="Most texts or images of a request that have an answer each (texts, images in regard.v1); more are "
        "refused with INVALID_ARGUMENT.",
    )
    max_beams: int = Field(
        16,
        ge=1,
        description="Most beginnings that beam search may keep for one text, each a row of every step; more are "
        "refused with INVALID_ARGUMENT.",
    )
    max_text_bytes: int = Field(
        256 * 2**10,
        ge=1,
        description="Longest text, in UTF-8 bytes; longer ones are refused before they are tokenised. Names and "
        "parameters may have as many, or 64 KiB where that is more.",
    )
    load_reports: bool = Field(
        False,
        description="Tell balancers how busy the server is (ORCA load reports): in a trailer of every answer, a "
        "hundred bytes, and as a stream (xds.service.orca.v3.OpenRcaService), of which as many may be open as "
        "--max-watches says.",
    )
    drain_seconds: float = Field(
        30.0,
        ge=0,
        description="How long accepted requests may still take after SIGTERM, in seconds; the rest "
        "is answered UNAVAILABLE.",
    )
    watchdog_seconds: float = Field(
        60.0,
        ge=0,
        description="A run of the engine that takes longer, in seconds, and ten times as long as expected, is taken "
        "for hung, and the server ends with code 70; a row that is expected to take longer is refused with "
        "INVALID_ARGUMENT. 0 turns both off.",
    )
    max_refusal_lines: int = Field(
        10,
        ge=0,
        description="Most log lines a second about unauthenticated callers who are refused; beyond it they are counted "
        "alone, and one line says how many there were.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="text for people, json for machines; one record a line."
    )
    log_level: str = Field(
        "info",
        pattern="^(debug|info|warning|error)$",
        description="debug, info, warning or error; answers are logged at debug, refusals at info.",
    )

    @property
    def max_answer_bytes(self) -> int:
        """Most bytes of outputs and attention in one answer: a sixteenth of the message is left for all else."""
        return self.max_message_bytes * 15 // 16

    @property
    def held_bytes(self) -> int:
        """Most bytes held for callers."""
        return self.max_held_bytes or available_bytes() // 4

    @property
    def image_pixels(self) -> int:
        """Largest image, in pixels."""
        return self.max_image_pixels or min(_IMAGE_PIXELS, available_bytes() // 4 // _BYTES_A_PIXEL)

    @classmethod
    def from_command_line(cls, arguments: list[str], program: str = "python -m server") -> Self:
        """Read flags, then environment, then defaults.

        Raises:
            StartError: Names the flag, its value and what was expected.
            SystemExit: For --help, and for flags that do not exist.
        """
        try:
            flags: CliSettingsSource[Any] = CliSettingsSource(cls, cli_prog_name=program)
            return CliApp.run(cls, cli_args=arguments, cli_settings_source=flags)
        except ValidationError as error:
            raise _start_error(error) from error

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Take values by the settings' names, then environment, then defaults.

        Raises:
            StartError: Names the setting, its value and what was expected.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise _start_error(error) from error


def _start_error(error: ValidationError) -> StartError:
    return StartError("; ".join(_explain(item["loc"], item["input"], item["msg"]) for item in error.errors()))


def _explain(location: tuple[int | str, ...], value: object, message: str) -> str:
    name = str(location[0]) if location else "settings"
    flag, variable = name.replace("_", "-"), name.upper()
    return f"--{flag} (REGARD_{variable}): {value!r}: {message.removeprefix('Value error, ')}"


def wanted_log_format(arguments: Sequence[str], environment: Mapping[str, str]) -> Literal["text", "json"]:
    """Say how to log before the settings are known to be good, which may be the first thing to log."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    given = next((value for flag, value in pairwise(words) if flag == "--log-format"), None)
    return "json" if (given or environment.get("REGARD_LOG_FORMAT")) == "json" else "text"


def misspelt_variables(environment: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield variables that resemble a setting's and are none, each with that: REGARD_CLIENT would let everybody in."""
    known = [f"REGARD_{name.upper()}" for name in Config.model_fields]
    for name in environment:
        if name.startswith("REGARD_") and name not in known:
            yield from ((name, meant) for meant in get_close_matches(name, known, 1, _RESEMBLANCE))
