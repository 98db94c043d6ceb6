"""What is changed: cosmic-ray's operators without those that no test could notice, and three of our own."""

import importlib
from collections.abc import Iterator
from typing import Any, ClassVar

# cosmic-ray and its parser live in a virtual environment of their own, so nothing is known of their types.
_OURS = "Minimum", "Statement", "Step"
# Of cosmic-ray's: a boundary, the opposite and the other direction; not the dozens of replacements that any test sees.
_THEIRS = (
    "ReplaceComparisonOperator_Lt_LtE", "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_Gt_GtE", "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_Lt_Gt", "ReplaceComparisonOperator_Gt_Lt",
    "ReplaceComparisonOperator_LtE_GtE", "ReplaceComparisonOperator_GtE_LtE",
    "ReplaceComparisonOperator_Eq_NotEq", "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Is_IsNot", "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceBinaryOperator_Add_Sub", "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_Div", "ReplaceBinaryOperator_Div_Mul",
    "ReplaceBinaryOperator_FloorDiv_Div", "ReplaceBinaryOperator_Mod_Mul",
    "ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not",
    "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer",
    "ZeroIterationForLoop",
)  # fmt: skip
# Nothing inside these is changed: texts, annotations, and what decorators say of how a dataclass is stored.
_SKIPPED_NODES = frozenset(("fstring", "raise_stmt", "decorator", "decorators", "assert_stmt", "import_from"))
# Nor these arguments: checks that only a fault of ours would need, and how pydantic stores a model.
_SKIPPED_ARGUMENTS = frozenset(("strict", "frozen", "slots", "exc_info", "daemon"))


class Minimum:
    """Takes the largest for the smallest, and the other way round."""

    _OTHER: ClassVar = {"min": "max", "max": "min"}

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type == "name" and node.value in self._OTHER and node.get_next_leaf() == "(":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        del index
        node.value = self._OTHER[node.value]
        return node


class Statement:
    """Leaves out a statement that stands for what it does: a call, or an assignment to an attribute or an element."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.parent is not None and node.parent.type == "simple_stmt" and _does_something(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        del index
        tree = importlib.import_module("parso.python.tree")
        return tree.Keyword("pass", node.start_pos, node.get_first_leaf().prefix)


class Step:
    """Counts down instead of up, and the other way round."""

    _OTHER: ClassVar = {"+=": "-=", "-=": "+="}

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type == "operator" and node.value in self._OTHER:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        del index
        node.value = self._OTHER[node.value]
        return node


def _does_something(node: Any) -> bool:
    if node.get_code().strip().startswith(("_log.", "super(")):
        return False
    called = node.children[1] if node.type == "await" else node
    if called.type in ("atom_expr", "power") and called.children[-1].type == "trailer":
        return bool(called.children[-1].children[0].value == "(")
    if node.type == "await":
        return True
    return node.type == "expr_stmt" and node.children[0].type in ("power", "atom_expr") and node.children[1] == "="


class _Sifted:
    """An operator that leaves some places alone."""

    def __init__(self, operator: Any) -> None:
        self._operator = operator

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        for position in self._operator.mutation_positions(node):
            if not _is_skipped(node):
                yield position

    def mutate(self, node: Any, index: int) -> Any:
        return self._operator.mutate(node, index)


def _is_skipped(node: Any) -> bool:
    if node.type == "except_clause" and "." in node.get_code():  # which cosmic-ray cannot change
        return True
    if node.type == "operator" and node.parent.type in ("param", "parameters", "arglist", "testlist_star_expr"):
        return True  # a star, not a product
    inner, outer = node, node.parent
    while outer is not None:
        if inner.type in _SKIPPED_NODES or (outer.type == "annassign" and inner is outer.children[1]):
            return True
        if outer.type == "argument" and getattr(outer.children[0], "value", "") in _SKIPPED_ARGUMENTS:
            return True
        if outer.type == "param" and inner is outer.annotation:
            return True
        if outer.type in ("funcdef", "lambdef") and inner is outer.annotation:
            return True
        if outer.type == "trailer" and outer.parent.children[0] == "Literal":
            return True
        inner, outer = outer, outer.parent
    return False


def operators() -> dict[str, Any]:
    """All of them by name."""
    provider = importlib.import_module("cosmic_ray.operators.provider").OperatorProvider()
    theirs = {name: _Sifted(provider[name]()) for name in _THEIRS}
    return theirs | {name: _Sifted(globals()[name]()) for name in _OURS}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Make every changed version of a module that compiles, each with the operator's name."""
    change = importlib.import_module("cosmic_ray.mutating").mutate_code
    for name, operator in operators().items():
        number = 0
        while (changed := change(source, operator, number)) is not None:
            number += 1
            if _compiles(changed):
                yield name, changed


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True
