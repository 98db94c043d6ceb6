"""What is wanted of the hidden states, what that takes, and how it is made of them."""
