"""Imports nats-py without what it needs for WebSockets alone, a sixth of the time that our own import took.

nats-py imports aiohttp as it is imported itself, and uses it for addresses with `ws://` and `wss://`. Here it
gets something in its place that imports the real one when it is asked for anything; nobody else sees it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

NAME = "aiohttp"


class _Later(ModuleType):
    """Stands for a module that is imported once it is used."""

    def __getattr__(self, name: str) -> Any:
        _take_away(self)
        return getattr(import_module(self.__name__), name)


def _take_away(module: ModuleType) -> None:
    if sys.modules.get(module.__name__) is module:
        del sys.modules[module.__name__]


def _import_nats() -> None:
    if NAME in sys.modules:
        import_module("nats")
        return
    later = sys.modules[NAME] = _Later(NAME)
    try:
        import_module("nats")
    finally:
        _take_away(later)


_import_nats()
