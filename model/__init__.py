"""The networks, in PyTorch, to be read top to bottom.

attention, positions, encoder, text, vit; then decoder, encoder_decoder, generation; then checkpoint.
"""
