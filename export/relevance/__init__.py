"""Relevance as a graph: reverse rules for the operators that transformers are made of, without torch at run time."""
