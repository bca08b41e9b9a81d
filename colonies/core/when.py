"""Conditions of nodes: a JMESPath expression over a node's inputs, true or not.

JMESPath (jmespath.org) has one grammar, implementations in all languages, and no side effects. Everybody
who verifies a ledger evaluates these expressions, so of its grammar only what looks at values is taken,
nothing that makes new ones: an expression costs no more than its own length. Never raises at evaluation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError

from colonies.core.names import shown
from colonies.errors import Invalid

MAX_WHEN_CHARS: Final = 1_000
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
    try:
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


@lru_cache(maxsize=1_024)
def _compiled(expression: str) -> Any:
    return jmespath.compile(expression)
