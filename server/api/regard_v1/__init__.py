"""regard.v1, the typed service."""
