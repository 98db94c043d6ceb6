"""Text written token by token: many requests share each step of the decoder."""
