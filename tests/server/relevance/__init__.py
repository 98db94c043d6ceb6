"""Relevance: what is planned, and what is made of what was computed."""
