"""Relevance: each rule against autograd, and whole networks against an independent implementation in PyTorch."""
