"""One verb on many: those whose ids are given, or all that filters find, counted and confirmed first.

What filters find says a view; each is read from the ledger before anything is done to it (`colonies.bulk`),
so what has changed meanwhile is left as it is and counted.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import command, exits, ids, listing, output
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.bulk import Act, Done
    from colonies.client import Client
    from colonies_cli.command import Here

MAX_MATCHED = 100_000
OPEN = ("blocked", "waiting", "running")  # of processes; of workflows, running ones
SAID = 20  # of those that could not be
REDRAW_S = 0.1

All = Annotated[bool, typer.Option("--all", help="All there are, without any filter.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show to which it would be done.")]


@dataclass(frozen=True, slots=True)
class Verb:
    """What is to be done to the items of a view (`one` and `many` name them), and how it is called when it is
    done. `states` are those that are meant where no --state is given."""

    name: str
    done: str
    one: ids.Noun
    many: str
    view: str
    states: Sequence[str]
    act: Callable[[Client], Act]

    def why_not(self, state: str) -> str | None:
        """Why nothing would be done to one of this state; None: it would."""
        if (state in OPEN) == (self.done == "cancelled"):
            return None
        return f"{state} already" if self.done == "cancelled" else f"{state} still"

    def counted(self, number: int) -> str:
        return f"{number} {self.one if number == 1 else self.many}"


def processes(name: str, done: str, states: Sequence[str], act: Callable[[Client], Act]) -> Verb:
    return Verb(name, done, "process", "processes", "processes", states, act)


def workflows(name: str, done: str, states: Sequence[str], act: Callable[[Client], Act]) -> Verb:
    return Verb(name, done, "workflow", "workflows", "workflows", states, act)


@dataclass(frozen=True, slots=True)
class Chosen:
    """To what: these ids, what filters find, or everything; whether to ask, and whether to do it at all."""

    ids: Sequence[str]
    filters: Mapping[str, Any]
    everything: bool
    yes: bool
    dry_run: bool

    @property
    def one(self) -> str | None:
        """The id, if it is one and nothing else. Raises Invalid: it cannot be one."""
        if len(self.ids) != 1 or self.filters or self.everything or self.dry_run:
            return None
        ids.check(self.ids[0])
        return self.ids[0]

    def check(self, verb: Verb) -> None:
        """Raises Invalid: it is not said to what, or said twice."""
        from colonies.errors import Invalid

        if self.ids and (self.filters or self.everything):
            raise Invalid(f"{verb.name}: ids or filters; allowed: one of them, not both")
        if self.ids and self.dry_run:
            raise Invalid("--dry-run: it shows what filters find, and here are ids; allowed: filters")
        if self.filters and self.everything:
            raise Invalid("--all: it stands for no filter at all; leave out it or the filters")
        if not self.ids and not self.filters and not self.everything:
            raise Invalid(f"{verb.name} what? allowed: ids, filters such as --state and --since, or --all")
        for id in self.ids:
            ids.check(id)


def run(
    here: Here,
    verb: Verb,
    chosen: Chosen,
    *,
    leave: Callable[[dict[str, Any]], str | None] = lambda _: None,
) -> Coroutine[Any, Any, None] | None:
    """Do it; what is left to do after the question comes back. `leave` says of an item why it is none for it.

    Raises Invalid: it is not said to what, or said twice.
    """
    chosen.check(verb)
    if chosen.ids:
        return _run(here, verb, chosen.ids)
    found = command.run_now(_matching(here, verb, chosen.filters))
    reasons = [verb.why_not(item["state"]) or leave(item) for item in found]
    for why, number in Counter(filter(None, reasons)).items():
        exits.say(f"{verb.counted(number)} left out: {why}")
    meant = [item for item, why in zip(found, reasons, strict=True) if why is None]
    if chosen.dry_run:
        _show_found(here, verb, meant)
        return None
    if not meant:
        exits.say(f"no {verb.one} is such")
        return None
    if not chosen.yes:
        counted = verb.counted(len(meant))
        question = f"{counted}; {verb.name} {'it' if len(meant) == 1 else 'them'}?"
        command.confirm(question, otherwise=f"{counted} would be {verb.done}")
    return _run(here, verb, [item["id"] for item in meant])


async def _matching(here: Here, verb: Verb, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items that filters find, of the states that are meant: what of them is needed.

    One state after the other: what goes on from one to the next meanwhile is found once.
    """
    from colonies.errors import Invalid

    found: dict[str, dict[str, Any]] = {}
    states = given["state"].split(",") if "state" in given else verb.states
    async with here.session() as session:
        for state in states:
            question = {**given, "state": state}
            async for item in listing.every(session.ledger, verb.view, question):
                found[item["id"]] = {
                    name: item[name] for name in ("id", "state", "func", "workflow", "name") if name in item
                }
                if len(found) > MAX_MATCHED:
                    raise Invalid(
                        f"there are more than {MAX_MATCHED} such {verb.many}; so many are allowed at a time: "
                        "narrow the filters, such as by --since and --until"
                    )
    return list(found.values())


def _show_found(here: Here, verb: Verb, found: Sequence[dict[str, Any]]) -> None:
    if here.output == Output.json:
        for item in found:
            output.json_line({**_object(item["id"]), "outcome": "found", "detail": item["state"]})
    elif here.output == Output.name:
        for item in found:
            output.line(item["id"])
    else:
        names = [item.get("func") or item.get("name") for item in found]
        rows = [(item["id"], item["state"], name) for item, name in zip(found, names, strict=True)]
        output.table(("ID", "STATE", "FUNC" if verb.view == "processes" else "NAME"), rows, elastic=2)
        exits.say(f"{verb.counted(len(found))} would be {verb.done}")


# --- doing it -----------------------------------------------------------------------------------------


async def _run(here: Here, verb: Verb, given: Sequence[str]) -> None:
    from colonies import bulk

    async with here.client(submits=verb.done == "submitted") as client:
        meant = [await ids.whole(client.session.ledger, verb.one, id) for id in given]
        meant = list(dict.fromkeys(meant))
        told = _Told(here, verb, len(meant))
        act = verb.act(client)
        try:
            await bulk.each(meant, act, told.hear)
        finally:
            told.end()
    if told.counts["refused"] or told.counts["failed"]:
        raise exits.Ended(exits.FAILED)


@dataclass(slots=True)
class _Told:
    """Prints what became of each, and at the end how many of what."""

    here: Here
    verb: Verb
    total: int
    counts: Counter[str] = field(default_factory=Counter)
    _drawn: float = 0.0

    def hear(self, done: Done) -> None:
        self.counts[done.outcome] += 1
        if done.outcome in ("refused", "failed") and sum(map(self._wrong, self.counts)) <= SAID:
            self._clear()
            exits.say(f"{done.id}: {done.detail}")
        self._show(done)
        self._draw()

    def _wrong(self, outcome: str) -> int:
        return self.counts[outcome] if outcome in ("refused", "failed") else 0

    def _show(self, done: Done) -> None:
        if self.here.output == Output.json:
            output.json_line(as_object(done, self.verb.done))
        elif done.outcome in ("done", "existing"):
            self._show_done(done)

    def _show_done(self, done: Done) -> None:
        if self.here.output == Output.name:
            output.line(done.new or done.id)
        elif done.new is not None:
            self._clear()
            output.line(arrow(done))

    def _draw(self) -> None:
        number, now = sum(self.counts.values()), time.monotonic()
        if _on_terminal() and now - self._drawn > REDRAW_S:
            self._drawn = now
            output.raw(f"\r{self.verb.name}: {number} of {self.total}\x1b[K", sys.stderr)

    def _clear(self) -> None:
        if self._drawn:
            output.raw("\r\x1b[K", sys.stderr)

    def end(self) -> None:
        """Say how many of what; also when it was interrupted."""
        self._clear()
        counts = self.counts
        wrong = counts["refused"] + counts["failed"]
        if wrong > SAID:
            exits.say(f"and {wrong - SAID} more that could not be")
        kinds = ((counts["done"], self.verb.done), (counts["skipped"], "left as they are"))
        parts = [f"{number} {what}" for number, what in kinds]
        if counts["existing"]:
            parts.insert(1, f"{counts['existing']} {self.verb.done} before with this key")
        parts += [f"{counts[kind]} {kind}" for kind in ("refused", "failed") if counts[kind]]
        rest = self.total - sum(counts.values())
        parts += [f"{rest} not tried, or not known"] if rest else []
        said = f"{self.verb.counted(self.total)}: {', '.join(parts)}"
        exits.say(said) if self.here.output != Output.table else output.line(said)


def as_object(done: Done, word: str) -> dict[str, Any]:
    """What became of one, as JSON; `word` says that it was done."""
    outcome = word if done.outcome == "done" else done.outcome
    return {**_object(done.id), "outcome": outcome, "detail": done.detail or None, "new": done.new}


def arrow(done: Done) -> str:
    """What was made of one, as a line."""
    before = f" ({done.detail})" if done.outcome == "existing" else ""
    return f"{done.id} -> {done.new}{before}"


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _object(id: str) -> dict[str, Any]:
    """What became of one, before that is known."""
    return {"id": id, "outcome": None, "detail": None, "new": None}
