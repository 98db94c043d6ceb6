"""Maps reactions with the package rxnmapper, in a virtual environment of its own: it wants transformers below 5.

Reads a JSON list of reactions from each line of standard input, and writes a JSON list of [map, confidence] for it.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

from rxnmapper import RXNMapper  # type: ignore[import-not-found]  # noqa: E402 -- after the filter, which it needs


def main() -> None:
    """Answer until the input ends."""
    mapper = RXNMapper()
    print(json.dumps([]), flush=True)  # ready
    for line in sys.stdin:
        maps = mapper.get_attention_guided_atom_maps(json.loads(line))
        print(json.dumps([[one["mapped_rxn"], one["confidence"]] for one in maps]), flush=True)


if __name__ == "__main__":
    main()
