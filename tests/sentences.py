"""What the code says of events that are not valid, read from its text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

COLONIES = Path(__file__).parents[1] / "colonies"
MODULES = (
    *("core/rules", "core/nodes", "core/workflow", "core/colony", "core/crons", "core/generators"),
    "core/webhooks",
    "history",
)


def sentences(callers: tuple[str, ...], modules: tuple[str, ...] = MODULES) -> Iterator[str]:
    """The sentences that are given to these functions, with `…` for what differs."""
    for module in modules:
        tree = ast.parse((COLONIES / f"{module}.py").read_text(encoding="utf-8"))
        named = dict(_named(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in callers:
                said = node.args[0]
                if isinstance(said, ast.Name):
                    said = named.get(said.id, said)
                parts = said.values if isinstance(said, ast.JoinedStr) else [said]
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)


def _named(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Texts that have a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
