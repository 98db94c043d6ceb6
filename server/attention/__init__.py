"""What is wanted of the attention weights, what that takes, and how it is made of them."""
