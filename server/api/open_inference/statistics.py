"""What was counted of models, in Triton's words."""

from collections.abc import Iterable

from server.api.open_inference import open_inference_pb2 as pb
from server.repository.loading import LoadedModel
from server.telemetry.counts import Counts, Duration

# Triton's name of a figure, and ours.
_ANSWERED = {
    "success": "total_ns",
    "queue": "queue_ns",
    "compute_input": "decode_ns",
    "compute_infer": "compute_ns",
    "compute_output": "encode_ns",
}
_FURTHER = {"fail": "failed", "cache_hit": "cache_hit", "cache_miss": "cache_miss"}
_BATCHES = {"compute_input": "collate", "compute_infer": "run", "compute_output": "split"}


def describe_statistics(models: Iterable[LoadedModel], counts: Counts) -> pb.ModelStatisticsResponse:
    """Say what was counted of these models."""
    response = pb.ModelStatisticsResponse()
    for model in models:
        counted = counts.of(model.name, model.version)
        one = response.model_stats.add(
            name=model.name,
            version=model.version,
            last_inference=counted.last_answer_ms,
            inference_count=counted.rows,
            execution_count=counted.batches,
        )
        for name, own in _ANSWERED.items():
            _fill(getattr(one.inference_stats, name), Duration(counted.answered, getattr(counted, own)))
        for name, own in _FURTHER.items():
            _fill(getattr(one.inference_stats, name), getattr(counted, own))
        for size, steps in sorted(counted.by_size.items()):
            batch = one.batch_stats.add(batch_size=size)
            for name, own in _BATCHES.items():
                _fill(getattr(batch, name), getattr(steps, own))
    return response


def _fill(message: pb.StatisticDuration, duration: Duration) -> None:
    message.count, message.ns = duration.count, duration.ns
