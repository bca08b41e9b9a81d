"""Functions and calls: what a worker offers, and what a client asks for.

A function's signature is its contract. From it come the JSON schema that the worker publishes and the check
of every call's arguments; calling the decorated function still just calls it. A `Call` is data: a spec that
knows which type its result has.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic_core import PydanticSerializationError

from colonies import pending
from colonies.code import code_digest
from colonies.core.spec import Spec
from colonies.errors import Invalid
from colonies.pending import Pending

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A function with its arguments, ready to be submitted. `returns` types the result.

    With what it `uses`, it is for the workflow whose nodes give that.
    """

    spec: Spec
    returns: TypeAdapter[T] | None = None
    uses: tuple[Pending, ...] = ()


class Function(Generic[P, R, T]):
    """A Python function that a worker offers under its name.

    Called, it gives R, as it always did; its result as a process is T (what a coroutine gives in the end).
    """

    def __init__(
        self, function: Callable[P, R], runtimetype: str, name: str | None = None, **options: Any
    ) -> None:
        self.function = function
        self.runtimetype = runtimetype
        self.name = name or function.__name__
        self.description = inspect.getdoc(function) or ""
        self.options = options
        self.is_async = inspect.iscoroutinefunction(function)
        self.code = code_digest(function)
        self._signature = inspect.signature(function)
        self._hints = _hints(function)
        self._model = _arguments_model(self.name, self._signature, self._hints)
        self._models = {frozenset[str](): self._model}
        self.returns: TypeAdapter[Any] | None = _adapter(self._hints.get("return", Any))
        self.__doc__ = function.__doc__
        self.__name__ = self.name
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """The call as data, for `submit`.

        Raises:
            Invalid: these arguments do not fit the function's signature.
        """
        problem: Exception | None = None
        given: Any = [[], {}]
        uses: tuple[Pending, ...] = ()
        try:
            given, uses = pending.plain([list(args), kwargs])
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            problem = error
        self.bind(args, kwargs, partly=bool(uses))
        if problem is not None:
            raise Invalid(f"{self.name}: an argument cannot be sent: {problem}")
        plain_args, plain_kwargs = pending.escaped(given) if uses else given
        data = {
            "func": self.name,
            "args": plain_args,
            "kwargs": plain_kwargs,
            "conditions": {"runtimetype": self.runtimetype},
            **self.options,
        }
        return Call(Spec.parse(data, where=self.name), self.returns, uses)

    def bind(
        self, args: typing.Sequence[Any], kwargs: typing.Mapping[str, Any], *, partly: bool = False
    ) -> inspect.BoundArguments:
        """The arguments, checked and converted to the types of the signature. `partly`: but for those in
        which something is pending.

        Raises:
            Invalid: one line for each argument that does not fit.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
            given = bound.arguments
            later = frozenset(name for name in given if pending.holds(given[name])) if partly else frozenset()
            checked = self._model_without(later).model_validate(
                {name: value for name, value in given.items() if name not in later} if later else given
            )
        except TypeError as error:
            raise Invalid(f"{self.name}: {error}; it takes {self._signature}") from None
        except ValidationError as error:
            lines = [
                f"{self.name}: {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors(include_url=False)[:10]
            ]
            raise Invalid("\n".join(lines)) from None
        fields = type(checked).model_fields
        for field, info in fields.items():
            name = info.alias or field
            if name in bound.arguments:
                bound.arguments[name] = getattr(checked, field)
        return bound

    def _model_without(self, names: frozenset[str]) -> type[BaseModel]:
        """The model of the arguments, but for these."""
        found = self._models.get(names)
        if found is None:
            parameters = [p for p in self._signature.parameters.values() if p.name not in names]
            rest = self._signature.replace(parameters=parameters)
            found = self._models[names] = _arguments_model(self.name, rest, self._hints)
        return found

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments; empty where a type has none."""
        try:
            return self._model.model_json_schema(by_alias=True)
        except PydanticInvalidForJsonSchema:
            return {}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise Invalid(f"{function.__name__}: {error}; annotate with names that its module knows") from None


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    if hint is Any or hint is inspect.Signature.empty:
        return None
    try:
        return TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def _arguments_model(name: str, signature: inspect.Signature, hints: dict[str, Any]) -> type[BaseModel]:
    """A model with one aliased field per parameter (a parameter may have any name, a field may not)."""
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(signature.parameters.values()):
        hint: Any = hints.get(parameter.name, Any)
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        if parameter.kind == inspect.Parameter.VAR_POSITIONAL:
            hint, default = types.GenericAlias(tuple, (hint, ...)), ()
        elif parameter.kind == inspect.Parameter.VAR_KEYWORD:
            hint, default = types.GenericAlias(dict, (str, hint)), {}
        fields[f"argument_{number}"] = (hint, Field(default, alias=parameter.name))
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid", title=name), **fields)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        first = str(error).splitlines()[0]
        raise Invalid(f"{name}: its arguments cannot be checked: {first}") from None
