"""What all models of people's input have in common: strict, frozen, every field described, one plain form.

A field's description says what is allowed, in one place; refusals (`colonies.core.parsing`) quote it.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar, get_args

from pydantic import BaseModel, ConfigDict, model_serializer


class Words(BaseModel):
    """A strict, frozen object of named fields whose plain form holds only what differs from the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    EXAMPLE: ClassVar[str] = "{}"

    @model_serializer
    def wire(self) -> dict[str, object]:
        """The plain form for the ledger: canonical words, sizes in bytes, times in seconds; no defaults."""
        return {
            field: _plain(value)
            for field, default in _defaults(type(self)).items()
            if (value := getattr(self, field)) != default
        }


def _plain(value: object) -> object:
    if isinstance(value, Words):
        return value.wire()
    if isinstance(value, list):
        return [item.wire() if isinstance(item, Words) else item for item in value]
    # 60 and 60.0 are the same time, so they are written, and digested, the same way.
    return int(value) if isinstance(value, float) and value.is_integer() else value


@cache
def _defaults(model: type[Words]) -> dict[str, object]:
    return {
        field: info.get_default(call_default_factory=True, validated_data={})
        for field, info in model.model_fields.items()
    }


@cache
def inner(model: type[Words]) -> dict[str, type[Words]]:
    """The fields of a model that hold a model of ours themselves."""
    return {
        field: part
        for field, info in model.model_fields.items()
        for part in (info.annotation, *get_args(info.annotation))
        if isinstance(part, type) and issubclass(part, Words)
    }
