"""The checks: each a function that takes a Setting and yields rows."""
