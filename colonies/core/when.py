"""Conditions of nodes: a JMESPath expression over a node's inputs, true or not.

JMESPath (jmespath.org) has one grammar, implementations in all languages, and no side effects. Everybody
who verifies a ledger evaluates these expressions, so of its grammar only what looks at values is taken,
nothing that makes new ones: an expression costs no more than its own length. How deep it may be is counted in
characters, not found out by whose stack ends first: all must agree. Never raises at evaluation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError

from colonies.core.names import shown
from colonies.core.plain import encodable
from colonies.errors import Invalid

MAX_WHEN_CHARS: Final = 1_000
MAX_WHEN_MARKS: Final = 100  # of those below, wherever they stand: each may be one level
MARKS: Final = "([{!&|<>="
WHEN_ALLOWED: Final = (
    f"a JMESPath expression of at most {MAX_WHEN_CHARS} characters over the outputs of the node's parents, "
    'such as "train.accuracy > `0.9`"'
)

_NODES: Final = frozenset(
    {
        "field",
        "subexpression",
        "index_expression",
        "index",
        "comparator",
        "and_expression",
        "or_expression",
        "not_expression",
        "literal",
        "function_expression",
        "identity",
        "current",
    }
)
_FUNCTIONS: Final = frozenset(
    {"contains", "starts_with", "ends_with", "length", "type", "abs", "ceil", "floor"}
)


def check(expression: str, where: str) -> None:
    """Raises Invalid if it is no condition."""
    if not encodable(expression):
        raise Invalid(f"{where}: {shown(expression)} holds half a surrogate pair; allowed: {WHEN_ALLOWED}")
    marks = sum(map(expression.count, MARKS))
    if marks > MAX_WHEN_MARKS:
        raise Invalid(f"{where}: {marks} characters of {MARKS}; at most {MAX_WHEN_MARKS} are allowed")
    try:
        for literal in _LITERALS.findall(expression):
            if literal.startswith("`"):  # the library takes others, which no grammar knows
                json.loads(literal[1:-1].replace("\\`", "`"), parse_constant=_no_constant)
        tree = _compiled(expression).parsed
    except (JMESPathError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise Invalid(f"{where}: {shown(expression)}: {text}; allowed: {WHEN_ALLOWED}") from None
    left = [tree]
    while left:
        item = left.pop()
        kind = item["type"]
        if kind not in _NODES:
            raise Invalid(
                f"{where}: {shown(expression)}: a {kind.replace('_', ' ')} is not allowed; allowed: names, "
                "indexes, literals, comparisons, &&, ||, ! and functions"
            )
        if kind == "function_expression" and item["value"] not in _FUNCTIONS:
            raise Invalid(
                f"{where}: {shown(expression)}: {item['value']}() is not allowed; allowed: "
                f"{', '.join(sorted(_FUNCTIONS))}"
            )
        left += item["children"]


def names(expression: object) -> set[str]:
    """The inputs that a condition looks at, by name; of what is none, nothing."""
    if not isinstance(expression, str):
        return set()
    try:
        check(expression, "")
    except Invalid:
        return set()
    found = set()
    left = [_compiled(expression).parsed]
    while left:
        item = left.pop()
        if item["type"] == "field":
            found.add(item["value"])
        # What stands behind a dot or in brackets is looked for in what stands before it; @ is all inputs.
        within = item["type"] in ("subexpression", "index_expression")
        whole = within and item["children"][0]["type"] == "current"
        left += item["children"][:1] if within and not whole else item["children"]
    return found


def unknown(expression: str, parents: Sequence[str]) -> list[str]:
    """The names in a condition, sorted, for which there is never an input: those of no parent, nor of what a
    parent may add."""
    added = tuple(f"{parent}{mark}" for parent in parents for mark in "/[")
    return sorted(name for name in names(expression) - set(parents) if not name.startswith(added))


def holds(expression: str, inputs: dict[str, Any]) -> bool | str:
    """Does the condition hold? Text: why it cannot be said. What is missing, null, false or empty does
    not."""
    try:
        found = _compiled(expression).search(inputs)
    except TypeError:  # what has no order: by JMESPath's rules null, which does not hold
        return False
    except Exception as error:  # whatever is wrong, all readers must come to the same verdict
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return not (found is None or found is False or found in ("", [], {}))


# Texts first, in which a back quote is none: 'raw', "name", `literal`.
_LITERALS: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`""", re.DOTALL)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@lru_cache(maxsize=1_024)
def _compiled(expression: str) -> Any:
    return jmespath.compile(expression)
