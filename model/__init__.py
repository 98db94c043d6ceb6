"""The networks, in PyTorch, to be read top to bottom: attention, positions, encoder, text, vit, checkpoint."""
