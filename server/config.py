"""The server's settings: one frozen object, read once from flags and environment by __main__."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, SettingsConfigDict

from server.cpus import available_cpus
from server.errors import StartError

EMBEDDED_MODELS = Path(__file__).parent / "embedded"


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("expected HOST:PORT with a port from 0 to 65535, for example 127.0.0.1:8001 or [::1]:8001")
    return value


def _device(value: str) -> str:
    kind, _, index = value.partition(":")
    numbered = kind in ("cuda", "tensorrt")
    if not (numbered or kind in ("auto", "cpu")) or (index and not (numbered and index.isdecimal())):
        raise ValueError("expected auto, cpu, cuda or tensorrt, the last two with :N for another GPU than the first")
    return value


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

    models: Path = Field(
        EMBEDDED_MODELS, description="folder of artifacts, NAME/VERSION; without it a small image model"
    )
    listen: Address = Field("127.0.0.1:8001", description="HOST:PORT for gRPC; port 0 takes a free one")
    metrics: Address = Field("127.0.0.1:9090", description="HOST:PORT for /metrics, /healthz, /readyz; port 0 likewise")
    tls_cert: Path | None = Field(None, description="certificate with its chain, PEM; read again on change")
    tls_key: Path | None = Field(None, description="its key, PEM, without a password")
    tls_client_ca: Path | None = Field(None, description="who signs callers' certificates, PEM: callers need one then")
    clients: Path | None = Field(None, description="who may call what and how much, TOML; read again on change")
    manage: Literal["auto", "on", "off"] = Field(
        "auto",
        description="loading and unloading models, shared memory, log settings; auto: only on a loopback address",
    )
    allow_insecure: bool = Field(False, description="listen beyond loopback without TLS or without knowing callers")
    watch: bool = Field(False, description="follow changes in the models folder; else load and unload on request only")
    device: Annotated[str, AfterValidator(_device)] = Field(
        "auto", description="auto, cpu, cuda, cuda:N, tensorrt or tensorrt:N"
    )
    threads: int = Field(
        0, ge=0, description="threads of one engine run; 0: as many as there are CPUs for this process"
    )
    lanes: int = Field(0, ge=0, description="runs at a time, which share the threads; 0: one a thread, at most 4")
    max_batch_size: int = Field(32, ge=1, description="most rows in one batch, and in one request")
    max_batch_tokens: int = Field(8192, ge=1, description="most tokens or patches in one batch, padding included")
    max_attention_bytes: int = Field(2**30, ge=1, description="most attention weights computed at once, in bytes")
    max_queue_size: int = Field(1024, ge=1, description="most requests waiting, or being decoded; more are refused")
    max_queue_seconds: float = Field(
        10.0, gt=0, description="longest wait for an answer that is offered, by estimate; more are refused"
    )
    max_queue_bytes: int = Field(2**30, ge=1, description="most bytes of inputs waiting; more are refused")
    max_queue_delay_ms: float = Field(
        0.0, ge=0, description="how long a batch that is not full waits for company while the engine is idle"
    )
    cache_bytes: int = Field(
        0, ge=0, description="memory for answers to give again; equal requests at a time share one; 0: neither"
    )
    max_message_bytes: int = Field(64 * 2**20, ge=1024, description="largest request and largest answer, in bytes")
    max_connections: int = Field(4096, ge=1, description="most connections; further ones are closed")
    max_image_pixels: int = Field(50_000_000, ge=1, description="largest image, width times height")
    max_text_bytes: int = Field(256 * 2**10, ge=1, description="longest text, in UTF-8 bytes")
    drain_seconds: float = Field(30.0, ge=0, description="on SIGTERM, how long accepted requests may still take")
    watchdog_seconds: float = Field(
        60.0, ge=0, description="a run of the engine that takes longer is taken for hung, and the server ends; 0: never"
    )
    log_format: Literal["text", "json"] = Field("text", description="text for people, json for machines, a line each")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")

    @property
    def engine_threads(self) -> int:
        """Threads of one engine run, at least 1."""
        return self.threads or available_cpus()

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
            lines = (_explain(item["loc"], item["input"], item["msg"]) for item in error.errors())
            raise StartError("; ".join(lines)) from error


def _explain(location: tuple[int | str, ...], value: object, message: str) -> str:
    name = str(location[0]) if location else "settings"
    flag, variable = name.replace("_", "-"), name.upper()
    return f"--{flag} (REGARD_{variable}): {value!r}: {message.removeprefix('Value error, ')}"
