"""The Open Inference Protocol, as Triton's and KServe's clients speak it, beside regard.v1 on the same port."""
