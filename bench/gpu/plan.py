"""The checks, in their order: what has to be right first, then what it costs, then what harms the device."""

from bench.gpu.running import Check

_IN = "bench.gpu.checks"
CHECKS = (
    Check("machine", f"{_IN}.machine:check", share=0.3, needs_seconds=0.5),
    Check("placement", f"{_IN}.placement:check", share=1.0),
    Check("parity", f"{_IN}.parity:check", share=2.0),
    Check("reductions", f"{_IN}.reductions:check", share=0.6),
    Check("bound buffers", f"{_IN}.buffers:check", share=0.8),
    Check("generation", f"{_IN}.generation:check", share=0.8),
    Check("CUDA graphs", f"{_IN}.cuda_graphs:check", share=0.6),
    Check("TensorRT", f"{_IN}.tensorrt:check", share=0.8),
    Check("throughput", f"{_IN}.throughput:check", share=2.0),
    Check("server", f"{_IN}.serving:check", share=2.5, needs_seconds=5),
    Check("shared memory", f"{_IN}.shared_memory:check", share=0.6),
    Check("out of memory", f"{_IN}.out_of_memory:check", share=2.0, needs_seconds=5),
    Check("memory", f"{_IN}.memory:check", share=5.0, needs_seconds=5, most_seconds=300),
)
