"""Texts written by the embedded model for a standard client: stop texts and each step's attention, as regard.v1 has."""

import io
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import regard
from tests.processes import StartProcess

_PROGRAM = """
import queue, sys
import numpy as np
import tritonclient.grpc as triton

def strings(name, *values):
    tensor = triton.InferInput(name, [len(values)], "BYTES")
    tensor.set_data_from_numpy(np.array(values, dtype=np.object_))
    return tensor

answers = queue.Queue()

def write(inputs, **asked):
    client.async_stream_infer("g2p", inputs, enable_empty_final_response=True, **asked)
    told = []
    while True:
        result, error = answers.get(timeout=60)
        if error:
            return str(error)
        if result.get_response().parameters["triton_final_response"].bool_param:
            return told, result
        told.append(result)

with triton.InferenceServerClient(sys.argv[1]) as client:
    client.start_stream(lambda result, error: answers.put((result, error)))
    parameters = {
        "num_beams": 1, "cross_attention_layers": "-1", "cross_attention_heads": "0,2",
        "self_attention_layers": 0, "self_attention_reduce": "mean",
    }
    told, _ = write([strings("text", b"gauge")], parameters=parameters)
    last = client.get_model_metadata("g2p").outputs[-1].name.rpartition(".")[2]
    cross, own = f"cross_attention.{last}", "self_attention.0"
    found = {f"cross{place}": one.as_numpy(cross) for place, one in enumerate(told)}
    found |= {f"self{place}": one.as_numpy(own) for place, one in enumerate(told)}
    outputs = [triton.InferRequestedOutput(name) for name in (cross, own, "token")]
    whole = client.infer("g2p", [strings("text", b"gauge")], outputs=outputs, parameters={"num_beams": 1})
    found |= {"cross": whole.as_numpy(cross), "self": whole.as_numpy(own)}
    _, stopped = write([strings("text", b"gauge"), strings("stop", b"JH", b"EY")], parameters={"num_beams": 1})
    found |= {"text": stopped.as_numpy("generated_text"), "reason": stopped.as_numpy("finish_reason")}
    found = {name: array.astype(str) if array.dtype == object else array for name, array in found.items()}
    errors = [
        write([strings("text", b"a")], parameters={"num_beams": 1, "cross_attention_layers": "0,9"}),
        write([strings("text", b"a")], parameters={"num_beams": 1, "self_attention_heads": 8}),
        write([strings("text", b"a")], outputs=[triton.InferRequestedOutput("cross_attention.9")]),
        write([strings("text", b"a")], parameters={"num_beams": 2, "cross_attention": True}),
        write([strings("text", b"a"), strings("stop", b"x", b"")], parameters={"num_beams": 1}),
    ]
    np.savez(sys.stdout.buffer, errors=errors, **found)
"""


@pytest.mark.skipif(find_spec("tritonclient") is None, reason="tritonclient is not installed")
def test_tritonclient_stops_at_texts_and_sees_what_each_step_attended_to(start_process: StartProcess) -> None:
    """The same numbers and the same faults."""
    with start_process() as server, regard.Client(server.address) as client:
        command = [sys.executable, "-W", "ignore", "-c", _PROGRAM, server.address]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        assert not done.returncode, done.stderr.decode()
        with np.load(io.BytesIO(done.stdout)) as found:
            _check(client, dict(found))


def _check(client: regard.Client, found: dict[str, Any]) -> None:
    cross = regard.AttentionRequest(layers=(-1,), heads=(0, 2))
    own = regard.AttentionRequest(layers=(0,), reduce_heads="mean")
    expected = client.generate_text("gauge", model="g2p", num_beams=1, cross_attention=cross, self_attention=own)
    tokens = expected.results[0].tokens
    for place, token in enumerate(tokens):
        seen, read = (layer.weights for layer in token.attention)
        assert found[f"cross{place}"].shape == (1, 2, 1, len(expected.source))
        np.testing.assert_allclose(found[f"cross{place}"][0, :, 0], seen, atol=1e-5)
        np.testing.assert_allclose(found[f"self{place}"], read[np.newaxis, np.newaxis], atol=1e-5)
    assert f"cross{len(tokens)}" not in found
    assert found["cross"].shape[2:] == (len(tokens), len(expected.source))
    np.testing.assert_allclose(found["cross"][0, [0, 2]], expected.results[0].alignment().weights, atol=1e-5)
    assert found["self"].shape[2:] == (len(tokens), len(tokens))
    np.testing.assert_allclose(found["self"].sum(-1), 1, atol=1e-5)
    assert not np.triu(found["self"][0, 0], 1).any()
    stopped = client.generate_text("gauge", model="g2p", num_beams=1, stop=("JH", "EY"))
    assert (found["text"], found["reason"]) == ([[stopped.text]], [["stop"]])
    assert stopped.text.endswith("EY")
    layers, heads, named, beams, stop = found["errors"]
    assert "parameters[cross_attention_layers]: 9; expected from -" in layers
    assert "parameters[self_attention_heads]: 8; expected from -" in heads
    assert "outputs[cross_attention.9]: 9; expected from -" in named
    assert "parameters[cross_attention]: given; expected none with num_beams of 2" in beams
    assert "inputs[stop][1]: empty; expected 1 to 256 characters" in stop
