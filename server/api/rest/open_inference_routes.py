"""The paths of the Open Inference Protocol over HTTP, with those that Triton's clients use."""

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from google.protobuf.message import Message

from server.api.open_inference import open_inference_pb2 as pb
from server.api.rest.exchange import Asked, HttpAnswer, HttpRequest, Refusal, Route
from server.api.rest.fields import fill, need, read_object, show, take, write_json
from server.api.rest.open_inference import json_bytes, read_infer
from server.api.rest.plain import to_plain
from server.errors import InvalidInput

_SERVICE = "/inference.GRPCInferenceService/"
_MODEL, _VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_NOT_READY = 503
Read = Callable[[HttpRequest], Asked]


def write_error(refusal: Refusal) -> HttpAnswer:
    """Say why there is no answer, as the protocol has it."""
    return write_json({"error": refusal.message}, refusal.http_status)


def open_inference_routes(max_numbers: int) -> Iterator[Route]:
    """Yield the paths.

    Args:
        max_numbers: Most elements of an answer that may become text.
    """
    infer = partial(read_infer, max_numbers=max_numbers)
    of_models: list[tuple[str, str, str, Read]] = [
        ("GET", "", "ModelMetadata", partial(_read_named, pb.ModelMetadataRequest, pb.ModelMetadataResponse)),
        ("GET", "/ready", "ModelReady", _read_model_ready),
        ("GET", "/config", "ModelConfig", _read_config),
        (
            "GET",
            "/stats",
            "ModelStatistics",
            partial(_read_named, pb.ModelStatisticsRequest, pb.ModelStatisticsResponse),
        ),
        ("POST", "/infer", "ModelInfer", infer),
    ]
    of_memory = [("systemsharedmemory", "SystemSharedMemory"), ("cudasharedmemory", "CudaSharedMemory")]
    found: list[tuple[str, str, str, Read]] = [
        ("GET", "/v2/health/live", "ServerLive", _read_live),
        ("GET", "/v2/health/ready", "ServerReady", _read_ready),
        ("GET", "/v2", "ServerMetadata", partial(_read_named, pb.ServerMetadataRequest, pb.ServerMetadataResponse)),
        ("GET", "/v2/models/stats", "ModelStatistics", of_models[3][3]),
        *((verb, f"{_MODEL}{end}", method, read) for verb, end, method, read in of_models),
        *((verb, f"{_VERSION}{end}", method, read) for verb, end, method, read in of_models),
        ("POST", "/v2/repository/index", "RepositoryIndex", _read_index),
        ("POST", "/v2/repository/models/{model}/load", "RepositoryModelLoad", _read_load),
        ("POST", "/v2/repository/models/{model}/unload", "RepositoryModelUnload", _read_unload),
        *((verb, "/v2/logging", "LogSettings", _read_logging) for verb in ("GET", "POST")),
        *((verb, "/v2/trace/setting", "TraceSetting", _read_trace) for verb in ("GET", "POST")),
    ]
    for path, name in of_memory:
        status, unregister = f"{name}Status", f"{name}Unregister"
        found += [
            ("GET", f"/v2/{path}/status", status, partial(_read_status, name)),
            ("GET", f"/v2/{path}/region/{{name}}/status", status, partial(_read_status, name)),
            ("POST", f"/v2/{path}/region/{{name}}/register", f"{name}Register", partial(_read_register, name)),
            ("POST", f"/v2/{path}/unregister", unregister, partial(_read_unregister, name)),
            ("POST", f"/v2/{path}/region/{{name}}/unregister", unregister, partial(_read_unregister, name)),
        ]
    for verb, way, method, read in found:
        route = Route(verb, way, f"{_SERVICE}{method}", read, write_error)
        yield replace(route, json_bytes=json_bytes) if read is infer else route


def _read_named(asked: type[Message], answered: type[Message], request: HttpRequest) -> Asked:
    """Read what names a model and a version, or neither; the answer is the message as it is."""
    message: Any = asked()
    if "model" in request.names:
        message.name = request.names["model"]
    if "version" in request.names:
        message.version = request.names["version"]

    def write(content: bytes) -> HttpAnswer:
        return write_json(to_plain(answered.FromString(content)))

    return Asked(message, write)


def _read_live(request: HttpRequest) -> Asked:
    return Asked(pb.ServerLiveRequest(), lambda content: _say(pb.ServerLiveResponse.FromString(content).live))


def _read_ready(request: HttpRequest) -> Asked:
    return Asked(pb.ServerReadyRequest(), lambda content: _say(pb.ServerReadyResponse.FromString(content).ready))


def _read_model_ready(request: HttpRequest) -> Asked:
    message = pb.ModelReadyRequest(name=request.names["model"], version=request.names.get("version", ""))
    return Asked(message, lambda content: _say(pb.ModelReadyResponse.FromString(content).ready))


def _say(good: bool) -> HttpAnswer:
    return HttpAnswer(b"", status=200 if good else _NOT_READY)


def _read_config(request: HttpRequest) -> Asked:
    message = pb.ModelConfigRequest(name=request.names["model"], version=request.names.get("version", ""))
    return Asked(message, lambda content: write_json(to_plain(pb.ModelConfigResponse.FromString(content).config)))


def _read_index(request: HttpRequest) -> Asked:
    ready = take(read_object(request.body, ("ready",)), "ready", bool)

    def write(content: bytes) -> HttpAnswer:
        return write_json([to_plain(one) for one in pb.RepositoryIndexResponse.FromString(content).models])

    return Asked(fill(pb.RepositoryIndexRequest(), ready=ready), write)


def _read_load(request: HttpRequest) -> Asked:
    return _read_managed(request, pb.RepositoryModelLoadRequest(model_name=request.names["model"]))


def _read_unload(request: HttpRequest) -> Asked:
    return _read_managed(request, pb.RepositoryModelUnloadRequest(model_name=request.names["model"]))


def _read_managed(request: HttpRequest, message: Any) -> Asked:
    """Read parameters, of which the method knows which there may be."""
    for name, value in (take(read_object(request.body, ("parameters",)), "parameters", dict) or {}).items():
        if isinstance(value, bool):
            message.parameters[name].bool_param = value
        elif isinstance(value, str):
            message.parameters[name].string_param = value
        else:
            raise InvalidInput(f"parameters[{name}]", show(value), "true, false or a string")
    return Asked(message, _write_nothing)


def _write_nothing(content: bytes) -> HttpAnswer:
    return write_json({})


def _read_logging(request: HttpRequest) -> Asked:
    message = pb.LogSettingsRequest()
    for name, value in read_object(request.body).items():
        setting = message.settings[name]
        if isinstance(value, bool):
            setting.bool_param = value
        elif isinstance(value, int) and 0 <= value < 2**32:
            setting.uint32_param = value
        elif isinstance(value, str):
            fill(setting, string_param=value)
        else:
            raise InvalidInput(f"settings[{name}]", show(value), "true, false, a number of 32 bits or a string")

    def write(content: bytes) -> HttpAnswer:
        settings = pb.LogSettingsResponse.FromString(content).settings
        return write_json({name: next(iter(to_plain(one).values()), None) for name, one in settings.items()})

    return Asked(message, write)


def _read_trace(request: HttpRequest) -> Asked:
    message = pb.TraceSettingRequest()
    for name, value in read_object(request.body).items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(one, str | int) for one in values):
            raise InvalidInput(f"settings[{name}]", show(value), "a string, a list of strings, or null")
        fill(message.settings[name], value=[str(one) for one in values])

    def write(content: bytes) -> HttpAnswer:
        settings = pb.TraceSettingResponse.FromString(content).settings
        plain = {name: list(one.value) for name, one in settings.items()}
        return write_json({name: value if name == "trace_level" else value[0] for name, value in plain.items()})

    return Asked(message, write)


def _read_status(name: str, request: HttpRequest) -> Asked:
    message = getattr(pb, f"{name}StatusRequest")(name=request.names.get("name", ""))

    def write(content: bytes) -> HttpAnswer:
        regions = getattr(pb, f"{name}StatusResponse").FromString(content).regions
        return write_json([to_plain(one) for one in regions.values()])

    return Asked(message, write)


def _read_register(name: str, request: HttpRequest) -> Asked:
    message = getattr(pb, f"{name}RegisterRequest")(name=request.names["name"])
    if name.startswith("System"):
        fields = read_object(request.body, ("key", "offset", "byte_size"))
        key, offset = need(fields, "key", str), take(fields, "offset", int)
        return Asked(fill(message, key=key, offset=offset, byte_size=need(fields, "byte_size", int)), _write_nothing)
    fields = read_object(request.body, ("raw_handle", "device_id", "byte_size"))
    handle = need(need(fields, "raw_handle", dict), "b64", str, "raw_handle.")
    try:
        message.raw_handle = base64.b64decode(handle, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("raw_handle.b64", show(handle), "base64") from None
    device, size = take(fields, "device_id", int), need(fields, "byte_size", int)
    return Asked(fill(message, device_id=device, byte_size=size), _write_nothing)


def _read_unregister(name: str, request: HttpRequest) -> Asked:
    return Asked(getattr(pb, f"{name}UnregisterRequest")(name=request.names.get("name", "")), _write_nothing)
