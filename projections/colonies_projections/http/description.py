"""The OpenAPI description: what may be asked, what is answered, and how errors look, for people and for
programs that generate clients from it."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from colonies_projections.http.answers import CloudEvent, Problem
from colonies_projections.http.problems import MEDIA_TYPE
from colonies_projections.view import Asking

AT: Final = "As it was: at a sequence, a time (RFC 3339), or an age such as 2h."
WHEN: Final = "a time (RFC 3339), an age such as 2h, or a sequence."

_WORDS: Final = {
    400: "The question makes no sense; `detail` says what would.",
    401: "No token, or none that is good; `detail` says what is wrong with it.",
    403: "The member's role may not see it.",
    404: "There is no such thing.",
    503: "The broker or a projector does not answer, or there are too many at once; try again after "
    "`Retry-After` seconds.",
}
_COMMON: Final = {
    "limit": ("integer", "At most so many items, 1 to 1,000; 50 if it is left out."),
    "cursor": ("string", "Go on where an earlier answer ended: its `cursor`."),
    "sort": ("string", "What to sort by; - before it for the largest first."),
    "at": ("string", AT),
    "at_least": ("integer", "Answer only when the view has this sequence of the ledger."),
}
_BOUNDS: Final = {"limit": {"minimum": 1, "maximum": 1_000, "default": 50}, "at_least": {"minimum": 0}}
_FILTERS: Final = {
    "id": "Only the one with this id.",
    "begins": "Only those whose id begins so.",
    "state": "Only those in this state.",
    "func": "Only those of this function.",
    "name": "Only those of this name.",
    "runtimetype": "Only those of this runtime type.",
    "queue": "Only those of this queue: its id.",
    "worker": "Only those of this worker.",
    "submitter": "Only those that this member submitted.",
    "label": "Only those with this label.",
    "workflow": "Only those of this workflow: its id.",
    "source": "Only those that this submitted, such as `cron nightly`.",
    "served": "yes: only those that a living worker serves; no: only those that none does.",
    "role": "Only members of this role.",
    "author": "Only those by this member.",
    "verdict": "Only those with this verdict.",
    "kind": "Only those of this kind of thing, such as process.",
    "entity": "Only those about the thing of this id or name.",
    "event": "Only those of this type, such as process.completed.",
    "sequence": "Only the one at this sequence.",
    "process": "Only those of this process: its id.",
    "stream": "Only those of this stream, such as stderr.",
    "text": "Only those with these words.",
    "every": "In pieces of this length; all is one piece.",
    "by": "One item for each of these.",
    "histogram": "yes: times with `sum_s` and `histogram`.",
    "since": f"Only from then on: {WHEN}",
    "until": f"Only before then: {WHEN}",
}
_NEEDED: Final = {("nodes", "workflow")}


class Described(FastAPI):
    """An application whose description knows how errors look."""

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        for model in (Problem, CloudEvent):
            schemas.setdefault(model.__name__, model.model_json_schema())
        return schema


def ref(model: type[BaseModel]) -> str:
    """Where the description has a model."""
    return f"#/components/schemas/{model.__name__}"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a path answers beside 200, for its description."""
    content = {MEDIA_TYPE: {"schema": {"$ref": ref(Problem)}}}
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": _WORDS[status], "content": content} for status in statuses
    }
    return {**found, "default": {"description": "Any other error.", "content": content}}


def parameters(view: type[Asking] | Asking | None) -> list[dict[str, Any]]:
    """Of a view's filters and sorts, as OpenAPI has parameters. None: a view that is not known here."""
    filters = view.filters if view is not None else {}
    sorts = view.sorts if view is not None else ()
    found: list[dict[str, Any]] = []
    for name, filter in filters.items():
        values = {} if filter.allowed is None else {"enum": list(filter.allowed)}
        needed = view is not None and (view.name, name) in _NEEDED
        one: dict[str, Any] = {"type": "string", **values}
        said = _FILTERS.get(name, f"Only those with this {name}.")
        if filter.several:  # with commas between
            several = _parameter(name, said, {"type": "array", "items": one}, needed)
            found.append({**several, "style": "form", "explode": False})
        else:
            found.append(_parameter(name, said, one, needed))
    for name, (kind, description) in _COMMON.items():
        schema: dict[str, Any] = {"type": kind, **_BOUNDS.get(name, {})}
        if name in ("sort", "cursor") and view is not None and not sorts:
            continue
        if name == "sort" and sorts:
            names = [sort.removeprefix("-") for sort in sorts]
            schema |= {"enum": [*names, *(f"-{name}" for name in names)], "default": sorts[0]}
        found.append(_parameter(name, description, schema))
    return found


def _parameter(name: str, description: str, schema: dict[str, Any], needed: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": needed, "description": description, "schema": schema}
