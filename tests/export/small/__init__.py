"""Configurations of small networks of the transformers library, by what they take; tests/export/families.py has all."""
