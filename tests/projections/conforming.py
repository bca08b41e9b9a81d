"""Holding JSON against an OpenAPI description: as much of JSON Schema as ours uses, and no more.

What the schema has no word for is a finding too: a field that is not in it, a keyword that is not known here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

_KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_SAID = {"title", "description", "default", "x-data"}  # which narrow nothing
_KEYWORDS = {
    *("$ref", "anyOf", "type", "enum", "const", "format", "minimum", "properties", "required", "items"),
    *("prefixItems", "minItems", "maxItems", "additionalProperties"),
}


def findings(value: Any, schema: dict[str, Any], whole: dict[str, Any], where: str = "$") -> list[str]:
    """What of a value is not as a schema has it; `whole` is the description that it is of."""
    if unknown := schema.keys() - _SAID - _KEYWORDS:
        return [f"{where}: the schema says {sorted(unknown)}"]
    if "$ref" in schema:
        return findings(value, resolved(schema["$ref"], whole), whole, where)
    if "anyOf" in schema:
        each = [findings(value, one, whole, where) for one in schema["anyOf"]]
        return [] if any(not found for found in each) else min(each, key=len)
    found: list[str] = []
    kind = schema.get("type")
    if kind is not None and (
        not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean")
    ):
        return [f"{where}: {value!r} is no {kind}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} is none of {schema['enum']}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{where}: {value!r} is less than {schema['minimum']}")
    if schema.get("format") == "date-time" and datetime.fromisoformat(value).tzinfo is None:
        found.append(f"{where}: {value!r} has no zone")
    if isinstance(value, dict):
        found += _of_object(value, schema, whole, where)
    if isinstance(value, list):
        found += _of_array(value, schema, whole, where)
    return found


def resolved(ref: str, whole: dict[str, Any]) -> dict[str, Any]:
    """What a reference within the description leads to."""
    found: Any = whole
    for name in ref.removeprefix("#/").split("/"):
        found = found[name]
    assert isinstance(found, dict)
    return found


def _of_object(value: dict[str, Any], schema: dict[str, Any], whole: dict[str, Any], where: str) -> list[str]:
    fields = schema.get("properties", {})
    found = [f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value]
    others = schema.get("additionalProperties", not fields)
    for name, one in value.items():
        if name in fields:
            found += findings(one, fields[name], whole, f"{where}.{name}")
        elif isinstance(others, dict):
            found += findings(one, others, whole, f"{where}.{name}")
        elif not others:
            found.append(f"{where}.{name} is not in the schema")
    return found


def _of_array(value: list[Any], schema: dict[str, Any], whole: dict[str, Any], where: str) -> list[str]:
    found = []
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        found.append(f"{where}: it has {len(value)} items")
    each = schema.get("prefixItems") or [schema.get("items", {})] * len(value)
    for number, (one, of) in enumerate(zip(value, each, strict=False)):
        found += findings(one, of, whole, f"{where}[{number}]")
    return found
