"""Writes Grafana's dashboard: `python -m deploy.dashboard`. Each row answers a question; a test asks every query."""

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "grafana" / "dashboards" / "regard.json"
_OVER = "[$__rate_interval]"


def _rate(metric: str, by: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{_OVER}))" if by else f"sum(rate({metric}{_OVER}))"


def _mean(metric: str, by: str, labels: str = "") -> str:
    return f"{_rate(f'{metric}_sum{labels}', by)} / {_rate(f'{metric}_count{labels}', by)}"


def _ratio(metric: str, other: str, by: str) -> str:
    return f"{_rate(metric, by)} / {_rate(other, by)}"


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', 'le')})"


_REPLICA = "(application, replica)"  # which Prometheus is told of replicas on Ray, and of no others
_OF_REPLICA = "{{application}} {{replica}}"
_OF_LAYER = "{{model}}, {{input}}, layer {{layer}}"
# The question, then panels: title, unit, and queries with their legends.
ROWS: dict[str, list[tuple[str, str, dict[str, str]]]] = {
    "Is it well?": [
        ("Requests a second", "reqps", {_rate("regard_requests_total", "method, code"): "{{method}} {{code}}"}),
        ("Faults", "percentunit", {"regard:faults:ratio5m": "faults"}),
        ("Replicas", "short", {"sum(regard_ready)": "ready", 'count(up{job="regard"})': "there"}),
        (
            "Time of a request",
            "s",
            {_quantile(share, "regard_request_seconds"): f"p{share * 100:g}" for share in (0.5, 0.95, 0.99)},
        ),
    ],
    "Where does the time go: queueing, compute, encoding?": [
        ("Stages, p95", "s", {"regard:stage_seconds:p95_5m": "{{stage}}, {{graph}}"}),
        ("Stages, mean", "s", {_mean("regard_stage_seconds", "stage"): "{{stage}}"}),
        (
            "Requests",
            "short",
            {
                "regard_queue_depth": "{{instance}} waiting",
                "regard_decoding_waiting": "{{instance}} images to decode",
                "regard_requests_in_flight": "{{instance}} in the server",
            },
        ),
        ("Work that waits", "s", {"regard_queue_seconds": "{{instance}}"}),
        ("Instances busy", "percentunit", {"regard_instances_busy / regard_instances": "{{instance}}"}),
    ],
    "Is it padding, or small batches?": [
        ("Rows of a batch, mean", "short", {_mean("regard_batch_rows", "model"): "{{model}}"}),
        ("Padding", "percentunit", {"regard:padding:ratio5m": "{{model}}"}),
        ("Time of a batch, mean", "s", {_mean("regard_batch_seconds", "model, graph"): "{{model}}, {{graph}}"}),
    ],
    "Is attention the cost?": [
        ("Instances by graph", "short", {_rate("regard_engine_seconds_total", "graph"): "{{graph}}"}),
        ("Attention sent", "Bps", {_rate("regard_attention_sent_bytes_total", "model"): "{{model}}"}),
        ("Hidden states sent", "Bps", {_rate("regard_hidden_states_sent_bytes_total", "model"): "{{model}}"}),
        ("Encoding, mean", "s", {_mean("regard_stage_seconds", "graph", '{stage="encode"}'): "{{graph}}"}),
    ],
    "Does attention move (where inputs are sampled)?": [
        (name.capitalize(), "percentunit", {_mean(f"regard_attention_{name}_ratio", "model, input, layer"): _OF_LAYER})
        for name in ("entropy", "sink", "distance")
    ]
    + [
        (
            "Inputs sampled a second",
            "short",
            {
                _rate("regard_attention_samples_total", "model"): "{{model}}",
                _rate("regard_attention_samples_dropped_total", "model, reason"): "{{model}}, dropped: {{reason}}",
            },
        ),
    ],
    "How fast is text written?": [
        ("Tokens a second", "short", {_rate("regard_generated_tokens_total", "model"): "{{model}}"}),
        (
            "To the first token, between two",
            "s",
            {
                _quantile(0.95, "regard_first_token_seconds"): "first, p95",
                _mean("regard_token_seconds", "model"): "{{model}}, between two",
            },
        ),
        (
            "Rows",
            "short",
            {
                "regard_generation_rows": "{{instance}}",
                _ratio(
                    "regard_generated_tokens_total", "regard_generation_steps_total", "model"
                ): "{{model}}, of a step",
            },
        ),
        ("Texts a second", "short", {_rate("regard_generations_total", "model, reason"): "{{model}}, {{reason}}"}),
    ],
    "Who is shed, who takes what?": [
        ("Refused a second", "reqps", {_rate("regard_refused_total", "reason"): "{{reason}}"}),
        ("Requests by client", "reqps", {_rate("regard_client_requests_total", "client"): "{{client}}"}),
        ("Instances by client", "short", {_rate("regard_client_compute_seconds_total", "client"): "{{client}}"}),
        (
            "CPUs that decode, by client",
            "short",
            {_rate("regard_client_decoding_seconds_total", "client"): "{{client}}"},
        ),
    ],
    "On Ray: which replica does what?": [
        ("Requests a second", "reqps", {f"sum by {_REPLICA} (rate(regard_requests_total{_OVER}))": _OF_REPLICA}),
        ("Work that waits", "s", {f"sum by {_REPLICA} (regard_queue_seconds)": _OF_REPLICA}),
        (
            "Instances busy",
            "percentunit",
            {f"sum by {_REPLICA} (regard_instances_busy) / sum by {_REPLICA} (regard_instances)": _OF_REPLICA},
        ),
    ],
    "What does the process take?": [
        (
            "Memory",
            "bytes",
            {
                'process_resident_memory_bytes{job="regard"}': "{{instance}}",
                "regard_held_bytes": "{{instance}}, held for callers",
                "regard_generation_cache_bytes": "{{instance}}, caches of texts",
            },
        ),
        ("CPUs", "short", {f'rate(process_cpu_seconds_total{{job="regard"}}{_OVER})': "{{instance}}"}),
        ("Open files", "short", {'process_open_fds{job="regard"}': "{{instance}}"}),
    ],
}


def queries() -> list[str]:
    """Every query, as Prometheus takes it."""
    asked = (query for panels in ROWS.values() for _, _, targets in panels for query in targets)
    return [query.replace("$__rate_interval", "1m") for query in asked]


def make_dashboard() -> dict[str, Any]:
    """Build the dashboard in Grafana's JSON model."""
    panels = list[dict[str, Any]]()
    for number, (question, row) in enumerate(ROWS.items()):
        y, width = 9 * number, 24 // len(row)
        panels.append({"type": "row", "title": question, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})
        for place, (title, unit, asked) in enumerate(row):
            where = {"h": 8, "w": width, "x": place * width, "y": y + 1}
            panels.append(_panel(title, unit, asked) | {"gridPos": where})
    return {
        "uid": "regard",
        "title": "regard",
        "refresh": "15s",
        "time": {"from": "now-30m", "to": "now"},
        "schemaVersion": 41,
        "panels": [panel | {"id": number} for number, panel in enumerate(panels, 1)],
    }


def _panel(title: str, unit: str, asked: dict[str, str]) -> dict[str, Any]:
    targets = [
        {"refId": chr(65 + number), "expr": query, "legendFormat": legend}
        for number, (query, legend) in enumerate(asked.items())
    ]
    return {
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def main() -> None:
    """Write it."""
    FILE.write_text(json.dumps(make_dashboard(), indent=1) + "\n")


if __name__ == "__main__":
    main()
