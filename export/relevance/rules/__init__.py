"""The reverse rules, by operator; each file says what an operator computes and what its gradient is."""

from collections.abc import Mapping

from export.relevance.reverse import Rule
from export.relevance.rules.activations import ACTIVATIONS
from export.relevance.rules.choices import CHOICES
from export.relevance.rules.moves import MOVES
from export.relevance.rules.norms import NORMS
from export.relevance.rules.picks import PICKS
from export.relevance.rules.places import PLACES
from export.relevance.rules.powers import POWERS
from export.relevance.rules.products import PRODUCTS
from export.relevance.rules.reductions import REDUCTIONS
from export.relevance.rules.rotary import ROTARY
from export.relevance.rules.softmax import SOFTMAX
from export.relevance.rules.sums import SUMS

RULES: Mapping[str, Rule] = {
    **ACTIVATIONS,
    **CHOICES,
    **MOVES,
    **NORMS,
    **PICKS,
    **PLACES,
    **POWERS,
    **PRODUCTS,
    **REDUCTIONS,
    **ROTARY,
    **SOFTMAX,
    **SUMS,
}
