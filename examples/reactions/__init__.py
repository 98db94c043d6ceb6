"""Maps the atoms of chemical reactions by one head of one layer of a served network: `python -m examples.reactions`."""
