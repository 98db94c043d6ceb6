"""Whose turn it is, who shares a batch, and the instances that run the batches."""
