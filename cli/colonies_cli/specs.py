"""What commands are given: specs in files or on stdin, values in JSON.

All of it is refused here, before anybody is asked.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colonies.core.flow import WorkflowSpec
    from colonies.core.spec import Spec


def read_spec(place: str) -> Spec:
    """The spec of a process in a file, or on standard input (`-`). Raises Invalid."""
    from colonies import files
    from colonies.core.parsing import MAX_SPEC_BYTES

    if place == "-":
        return files.spec_of(standard_input(MAX_SPEC_BYTES), files.STANDARD_INPUT)
    return files.read_spec(place)


def read_workflow(place: str) -> WorkflowSpec:
    """The workflow in a file, or on standard input (`-`). Raises Invalid."""
    from colonies import files

    if place == "-":
        return files.workflow_of(standard_input(files.MAX_WORKFLOW_BYTES), files.STANDARD_INPUT)
    return files.read_workflow(place)


def read_work(place: str, name: str) -> WorkflowSpec:
    """A workflow, or one process as the workflow of one node, by default of that name. Raises Invalid."""
    from colonies import files

    if place == "-":
        return files.work_of(standard_input(files.MAX_WORKFLOW_BYTES), files.STANDARD_INPUT, name)
    return files.read_work(place, name)


def standard_input(most_bytes: int, hint: str = "put large values into files of their own") -> bytes:
    """What comes by standard input, at most so many bytes; `hint`: what to do with more. Raises Invalid."""
    from colonies.errors import Invalid

    if sys.stdin is None:
        raise Invalid("standard input: it is closed; pipe something in")
    text = sys.stdin.buffer.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise Invalid(f"standard input: more than {most_bytes} bytes; allowed: at most {most_bytes} ({hint})")
    return text


def json_given(text: str | None, option: str) -> Any:
    """The JSON value of an option; null without it. Raises Invalid."""
    from colonies.core.parsing import json_value
    from colonies.core.plain import checked_value
    from colonies.errors import Invalid

    if text is None:
        return None
    try:
        value = json_value(text, option, "")
    except Invalid as error:
        problem = str(error).partition("; allowed")[0]
        raise Invalid(
            f'{problem}; allowed: a JSON value, such as 0.1, \'"small"\' or \'{{"by": "phone"}}\''
        ) from None
    return checked_value(value, option)


def parameters(given: list[str]) -> dict[str, Any]:
    """The values of --parameter NAME=JSON. Raises Invalid."""
    from colonies.errors import Invalid

    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Invalid(f"--parameter {text}: allowed: NAME=JSON, such as rate=0.1 or 'model=\"small\"'")
        if name in found:
            raise Invalid(f"--parameter {name}: it is given twice")
        found[name] = json_given(value, f"--parameter {name}")
    return found
