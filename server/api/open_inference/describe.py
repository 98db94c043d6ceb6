"""What the protocol's messages say about models: metadata and configuration."""

import json
from collections.abc import Sequence

from artifact.contract import TensorContract
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.generation import describe_written
from server.api.open_inference.outputs import kept_name
from server.api.open_inference.parameters import ATTENTION_PREFIX, HIDDEN_STATES_PREFIX
from server.api.open_inference.tensors import DATATYPE_OF
from server.api.open_inference.towers import describe_outputs
from server.config import Config
from server.context import DEFAULT_PRIORITY, LAST_PRIORITY
from server.inference.alignment import can_align
from server.repository.loading import LoadedModel

_PLATFORM, _BACKEND = "onnxruntime_onnx", "onnxruntime"
Metadata = pb.ModelMetadataResponse.TensorMetadata


def describe_metadata(model: LoadedModel, versions: Sequence[int]) -> pb.ModelMetadataResponse:
    """Describe a model's tensors; -1 stands for what may change."""
    contract = model.contract
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=map(str, versions),
        platform=_PLATFORM,
        inputs=[_describe_tensor(spec) for spec in contract.inputs],
        outputs=[
            *(_describe_tensor(spec) for spec in contract.outputs),
            *_describe_further(model),
        ],
    )


def _describe_further(model: LoadedModel) -> list[Metadata]:
    """Describe outputs besides the graph's own: attention and hidden states, as far as they are to be listed."""
    contract, settings = model.contract, model.usage.settings
    described = [*describe_outputs(model), *describe_written(model)]
    if name := kept_name(model):
        described.append(Metadata(name=name, datatype="BOOL", shape=[-1, -1]))
    if settings.list_attention:
        described += [
            Metadata(name=f"{ATTENTION_PREFIX}{index}", datatype="FP32", shape=[-1, layer.num_heads, -1, -1])
            for index, layer in enumerate(contract.attention)
        ]
    if settings.list_hidden_states:
        described += [
            Metadata(name=f"{HIDDEN_STATES_PREFIX}{state.layer}", datatype="FP32", shape=[-1, -1, state.dim])
            for state in contract.hidden_states
        ]
    return described


def describe_config(model: LoadedModel, config: Config) -> pb.ModelConfig:
    """Describe how a model is run; dims leave out the batch axis of a model that is batched."""
    contract = model.contract
    start, one_of_both = 1 if contract.batched else 0, model.towers is not None
    described = pb.ModelConfig(
        name=model.name,
        platform=_PLATFORM,
        backend=_BACKEND,
        max_batch_size=config.max_batch_size if contract.batched else 0,
        input=[
            pb.ModelInput(
                name=spec.name,
                data_type=_number(spec),
                dims=_sizes(spec)[start:],
                optional=spec.token_types or one_of_both,
            )
            for spec in contract.inputs
        ],
        output=[
            *(
                pb.ModelOutput(name=spec.name, data_type=_number(spec), dims=_sizes(spec)[start:])
                for spec in contract.outputs
            ),
            *(
                pb.ModelOutput(name=one.name, data_type=_type_of(one.datatype), dims=one.shape[1:])
                for one in _describe_further(model)
            ),
        ],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=contract.writes_of_text),
        response_cache=pb.ModelResponseCache(enable=bool(config.cache_bytes)),
        version_policy=_describe_policy(model.usage.settings.versions),
    )
    if contract.batched:
        described.dynamic_batching.max_queue_delay_microseconds = round(config.max_queue_delay_ms * 1e3)
        described.dynamic_batching.priority_levels = LAST_PRIORITY
        described.dynamic_batching.default_priority_level = DEFAULT_PRIORITY
    if takes := [name for name, how in (("text", contract.text), ("image", contract.image)) if how]:
        described.parameters["accepts"].string_value = ",".join(takes)
    if contract.text and contract.text.pairs:
        described.parameters["accepts_pairs"].string_value = "true"
    if contract.writes_of_text:
        described.parameters["accepts_stop"].string_value = "true"
    if contract.hidden_states:
        layers = ",".join(str(state.layer) for state in contract.hidden_states)
        described.parameters["hidden_states_layers"].string_value = layers
    if contract.label_methods:
        described.parameters["relevance_methods"].string_value = ",".join(contract.label_methods)
        described.parameters["labels"].string_value = json.dumps(contract.labels, ensure_ascii=False)
    if model.towers:
        described.parameters["accepts_labels"].string_value = "true"
        described.parameters["label_template"].string_value = model.towers.contract.template
        described.parameters["accepts_image_with_text"].string_value = str(can_align(model)).lower()
    if contract.late:
        described.parameters["accepts_role"].string_value = "true"
    if contract.embedding and contract.embedding.matryoshka_dims:
        sizes = ",".join(map(str, contract.embedding.matryoshka_dims))
        described.parameters["matryoshka_dims"].string_value = sizes
    windows = [{"layer": layer.layer, **layer.window.model_dump()} for layer in contract.attention if layer.window]
    if windows:
        described.parameters["attention_windows"].string_value = json.dumps(windows)
    for name in ("mixes_heads", "class_attention"):
        if told := [str(layer.layer) for layer in contract.attention if getattr(layer, name)]:
            described.parameters[f"attention_{name}"].string_value = ",".join(told)
    return described


def _describe_policy(versions: int | str | tuple[int, ...]) -> pb.ModelVersionPolicy:
    if isinstance(versions, int):
        return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=versions))
    if isinstance(versions, tuple):
        return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=versions))
    return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())


def _describe_tensor(spec: TensorContract) -> Metadata:
    return Metadata(name=spec.name, datatype=DATATYPE_OF[spec.dtype], shape=_sizes(spec))


def _sizes(spec: TensorContract) -> list[int]:
    return [axis if isinstance(axis, int) else -1 for axis in spec.axes]


def _number(spec: TensorContract) -> pb.DataType:
    return _type_of(DATATYPE_OF[spec.dtype])


def _type_of(datatype: str) -> pb.DataType:
    return pb.DataType.Value("TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}")  # type: ignore[return-value]
