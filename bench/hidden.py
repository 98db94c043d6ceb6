"""Hidden states beside none: `python -m bench.hidden` embeds 1,000 short texts, and asks for one layer's CLS as well.

In turn, round by round, as bench/many.py does: 32 callers of a text a call, and four of 64. What counts is the ratio
within a round, of each to the same calls without hidden states.
"""

from bench.many import SINGLE_CALLERS, Way, arguments, run
from regard import HiddenStatesRequest

LAYER = 3  # of six: a middle one, which no output of the plain graph shows
_CLS = HiddenStatesRequest(layers=(LAYER,), pooling="cls")
_CALLS = ((SINGLE_CALLERS, 1), (4, 64))


def main() -> None:
    """Print a table for each kind of calls, in Markdown."""
    parser = arguments("python -m bench.hidden", __doc__ or "")
    args = parser.parse_args()
    for callers, texts in _CALLS:
        run(parser, args, (Way(callers, texts), Way(callers, texts, _CLS)))


if __name__ == "__main__":
    main()
