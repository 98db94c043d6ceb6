"""Gives a graph its attention weights as further outputs: one rule a file for each way of writing attention."""
