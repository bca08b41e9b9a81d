"""What MODULE:NAME on a command line means: something in a module of the folder where the command runs."""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import Any


def found_at(place: str, allowed: str) -> tuple[types.ModuleType, Any]:
    """The module, and what is called so in it; None if there is nothing of that name.

    Raises:
        Invalid: there is no such module, or it cannot be imported; the message says where it fails.
    """
    from colonies.errors import Invalid

    module_name, colon, attribute = place.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise Invalid(f"{place}: allowed: {allowed}")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise Invalid(f"{place}: {module_name} imports {error.name}, which is not installed") from error
        raise Invalid(f"{place}: there is no module {module_name} in {os.getcwd()}") from error
    except Exception as error:
        raise Invalid(f"{place}: {_where(error)}{type(error).__name__}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return module, found


def _where(error: BaseException) -> str:
    """The line of the user's code that an error came from."""
    import traceback

    if isinstance(error, SyntaxError):
        return ""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and frame.filename != __file__
    ]
    own = [frame for frame in frames if not frame.filename.endswith("importlib/__init__.py")]
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
