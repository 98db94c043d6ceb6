"""Why this label: what is wanted of the relevance of positions, what that takes, and what is made of it."""
