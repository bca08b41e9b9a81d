"""What `ls` may be asked for, as options that other commands have as well: a command that takes one of these
classes gets its fields as options.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from colonies_cli import listing, options

PROCESS_STATES = ("blocked", "waiting", "running", "successful", "failed", "cancelled", "skipped")
WORKFLOW_STATES = ("running", "successful", "failed", "cancelled")


class Filters:
    """Those of one view."""

    def given(self) -> dict[str, Any]:
        """Those that were given, as the view is asked. Raises Invalid: there is no such state."""
        raise NotImplementedError


def _given(of: Any, states: tuple[str, ...]) -> dict[str, Any]:
    words = [word.strip() for text in of.state or () for word in text.split(",")]
    for word in words:
        listing.check_state(word, states)
    found = {field.name: getattr(of, field.name) for field in fields(of)}
    found["state"] = ",".join(dict.fromkeys(words)) or None
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class ProcessFilters(Filters):
    """Of processes."""

    state: Annotated[list[str] | None, options.states(PROCESS_STATES)] = None
    func: Annotated[
        str | None, typer.Option("--func", metavar="FUNC", help="Only those of this function.")
    ] = None
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only those of this name.")] = (
        None
    )
    runtimetype: Annotated[
        str | None, typer.Option("--runtimetype", metavar="T", help="Only those for this kind of worker.")
    ] = None
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="NAME", help="Only those that this worker took last.")
    ] = None
    submitter: Annotated[
        str | None, typer.Option("--submitter", metavar="MEMBER", help="Only those of this member.")
    ] = None
    label: Annotated[
        str | None, typer.Option("--label", metavar="LABEL", help="Only those with this label.")
    ] = None
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="ID", help="Only the nodes of this workflow.")
    ] = None
    queue: Annotated[str | None, typer.Option("--queue", metavar="ID", help="Only those of this queue.")] = (
        None
    )
    since: options.Since = None
    until: options.Until = None
    text: options.Text = None

    def given(self) -> dict[str, Any]:
        return _given(self, PROCESS_STATES)


@dataclass(frozen=True)
class WorkflowFilters(Filters):
    """Of workflows."""

    state: Annotated[list[str] | None, options.states(WORKFLOW_STATES)] = None
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only those of this name.")] = (
        None
    )
    label: Annotated[
        str | None, typer.Option("--label", metavar="LABEL", help="Only those with this label.")
    ] = None
    submitter: Annotated[
        str | None, typer.Option("--submitter", metavar="MEMBER", help="Only those of this member.")
    ] = None
    since: options.Since = None
    until: options.Until = None
    text: options.Text = None

    def given(self) -> dict[str, Any]:
        return _given(self, WORKFLOW_STATES)
