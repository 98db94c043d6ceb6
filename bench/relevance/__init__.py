"""What relevance costs: calls of it, plain requests beside it, and the same in eager PyTorch."""
