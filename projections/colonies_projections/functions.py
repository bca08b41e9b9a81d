"""The view of functions: what workers have and what processes ask for, who can run it, how it went so far.

A function is a name and a runtime type. Those that workers have come with each schema that they registered.
Numbers and times are the statistics' (`colonies_projections.facts`), so a function that only submissions
name, such as a Unix command, is here as long as the statistics tell it apart.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from colonies.core.colony_events import WorkerStarted
from colonies.core.events import Record
from colonies.core.shapes import Function
from colonies.show import rfc3339
from colonies_projections import counted
from colonies_projections.counted import Range
from colonies_projections.facts import MINUTE_S
from colonies_projections.listing import like
from colonies_projections.queues import MAX_INSTANCES
from colonies_projections.tally import OUTCOMES, STATES, Tally
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Write
from colonies_projections.workers import Instances

MAX_HOLDERS: Final = 100  # instances named with a function
MAX_SCHEMAS: Final = 10  # of a function, in an answer
MAX_SCHEMA_BYTES: Final = 32_768  # in an answer
BREATH_S: Final = 0.02

_SECOND_NS: Final = 1_000_000_000
_TABLES = """
CREATE TABLE functions_schemas (
    name TEXT NOT NULL,
    runtimetype TEXT NOT NULL,
    digest TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    description TEXT NOT NULL,
    schema TEXT,
    PRIMARY KEY (name, runtimetype, digest)
) WITHOUT ROWID;
CREATE TABLE functions_instances (
    worker TEXT NOT NULL,
    instance TEXT NOT NULL,
    since INTEGER NOT NULL,
    digests TEXT NOT NULL,
    PRIMARY KEY (worker, instance)
) WITHOUT ROWID;
"""
_SCHEMA = """
INSERT INTO functions_schemas (name, runtimetype, digest, sequence, description, schema)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_INSTANCE = """
INSERT INTO functions_instances (worker, instance, since, digests) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET since = excluded.since, digests = excluded.digests
"""
_DIGESTS = """
SELECT worker, instance, digests FROM functions_instances
WHERE worker || '.' || instance IN (SELECT value FROM json_each(?))
"""
_SPANS = f"""
SELECT value AS number,
    (SELECT min(start) FROM statistics_counts WHERE func = value AND span = {MINUTE_S}) AS first,
    (SELECT max(start) FROM statistics_counts WHERE func = value AND span = {MINUTE_S}) AS last
FROM json_each(?)
"""
_OPEN = f"SELECT max(start) AS start, max(sequence) AS sequence FROM statistics_spans WHERE span = {MINUTE_S}"
_ANY = ""  # no function is called so


@dataclass(slots=True)
class _Held:
    """Who has a function: `holders` are instances that did not stop, the living first."""

    holders: list[Row] = field(default_factory=list)

    @property
    def alive(self) -> int:
        return sum(row["state"] == "alive" for row in self.holders)


class Functions:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "functions"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Filter]] = {
        "name": Filter(),
        "runtimetype": Filter(),
        "served": Filter(("yes", "no")),
        "text": Filter(read=like),
    }
    sorts: ClassVar[Sequence[str]] = ("name", "first")

    def __init__(self) -> None:
        self._instances = Instances()

    def fold(self, batch: Batch) -> Iterable[Write]:
        for record in batch.others:
            if isinstance(record.event, WorkerStarted):
                yield from _registered(record, record.event)

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """`{name, runtimetype, alive, holders, schemas, submitted, open, running, ...}`. `open` are processes
        that are not final, `running` those of them that run; `first_at` and `last_at` are minutes in which
        something of it was counted."""
        held = await self._held(at)
        rows = await counted.functions(at, *_where(asked.filters))
        by = "name" if asked.sort == "name" else "number"
        keyed = [([row[by], row["number"]], row) for row in rows if _is_asked_for(row, asked.filters, held)]
        if asked.after is not None:
            last = list(asked.after)
            if not isinstance(last[0], str if by == "name" else int):
                last = ["" if by == "name" else 0, 0]
            keyed = [(key, row) for key, row in keyed if (key < last if asked.down else key > last)]
        keyed.sort(key=lambda pair: pair[0], reverse=asked.down)
        shown = keyed[: asked.limit]
        items = await self._items(at, [row for _, row in shown], held)
        return Page(items, [key for key, _ in shown], len(keyed) > len(shown))

    async def _held(self, at: Snapshot) -> dict[tuple[str, str], _Held]:
        """Who has what. Instances without functions run what they are told to: they are of _ANY."""
        found: dict[tuple[str, str], _Held] = {}
        started = time.monotonic()
        for state in ("alive", "lost"):
            rows, _ = await self._instances.find(at, {"state": state}, MAX_INSTANCES)
            for row in rows:
                for name in json.loads(row["functions"]) or [_ANY]:
                    found.setdefault((name, row["runtimetype"]), _Held()).holders.append(row)
                if time.monotonic() - started > BREATH_S:  # others are asking too
                    await asyncio.sleep(0)
                    started = time.monotonic()
        return found

    async def _items(
        self, at: Snapshot, rows: Sequence[Row], held: Mapping[tuple[str, str], _Held]
    ) -> list[dict[str, Any]]:
        numbers = [row["number"] for row in rows]
        tallies = await counted.counted(at, Range(functions=numbers, apart=True))
        minutes = await _minutes(at, numbers)
        schemas = await _schemas(at, {row["name"] for row in rows})
        of = [held.get((row["name"], row["runtimetype"]), _Held()) for row in rows]
        holders = [one for has in of for one in has.holders[:MAX_HOLDERS]]
        keys = {f"{one['name']}.{one['instance']}" for one in holders}
        digests = {
            (row["worker"], row["instance"]): json.loads(row["digests"])
            for row in await at.select(_DIGESTS, (json.dumps(sorted(keys)),))
        }
        items = []
        for row, has in zip(rows, of, strict=True):
            key = row["name"], row["runtimetype"]
            tally = tallies.get((row["number"], 0), Tally())
            first, last = minutes.get(row["number"], (None, None))
            items.append(
                {
                    "name": row["name"],
                    "runtimetype": row["runtimetype"],
                    "alive": has.alive,
                    "holders": [_holder(one, digests, row["name"]) for one in has.holders[:MAX_HOLDERS]],
                    "schemas": schemas.get(key, []),
                    **_numbers(tally),
                    "first_at": first,
                    "last_at": last,
                }
            )
        return items


def _registered(record: Record, event: WorkerStarted) -> Iterator[Write]:
    digests: dict[str, str] = {}
    schemas = []
    for function in event.functions:
        said, digest = _schema(function)
        digests[function.name] = digest
        schemas.append(
            (function.name, event.runtimetype, digest, record.sequence, function.description, said)
        )
    yield _SCHEMA, schemas
    yield _INSTANCE, [(record.entity, event.instance, record.sequence, json.dumps(digests))]


def _schema(function: Function) -> tuple[str | None, str]:
    """A function's schema as text, and a digest of all that is said of it."""
    said = None if function.schema is None else json.dumps(function.schema, sort_keys=True)
    digest = hashlib.sha256(json.dumps([function.description, said]).encode()).hexdigest()[:16]
    return said, digest


def _where(filters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    conditions = {"name": "name = ?", "runtimetype": "runtimetype = ?", "text": "name LIKE ? ESCAPE '\\'"}
    asked = {conditions[name]: value for name, value in filters.items() if name in conditions}
    return " AND ".join(["name <> ''", *asked]), list(asked.values())


def _is_asked_for(row: Row, filters: Mapping[str, Any], held: Mapping[tuple[str, str], _Held]) -> bool:
    if "served" not in filters:
        return True
    found = (held.get((name, row["runtimetype"])) for name in (row["name"], _ANY))
    served = any(has is not None and has.alive > 0 for has in found)
    return served if filters["served"] == "yes" else not served


async def _minutes(at: Snapshot, numbers: Sequence[int]) -> dict[int, tuple[str | None, str | None]]:
    """Of each function the first and the last minute of which there is anything."""
    [opened] = await at.select(_OPEN, ())
    fresh = await at.select(
        "SELECT DISTINCT func FROM statistics_facts WHERE sequence >= ?", (opened["sequence"] or 0,)
    )
    now = {row["func"] for row in fresh}
    found = {}
    for row in await at.select(_SPANS, (json.dumps(list(numbers)),)):
        last = opened["start"] if row["number"] in now else row["last"]
        first = row["first"] if row["first"] is not None else last
        found[row["number"]] = _time(first), _time(last)
    return found


def _time(start: int | None) -> str | None:
    return None if start is None else rfc3339(start * _SECOND_NS)


async def _schemas(at: Snapshot, names: Iterable[str]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What was registered, the newest first."""
    rows = await at.select(
        "SELECT * FROM functions_schemas WHERE name IN (SELECT value FROM json_each(?)) "
        "ORDER BY sequence DESC",
        (json.dumps(sorted(names)),),
    )
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        of = found.setdefault((row["name"], row["runtimetype"]), [])
        if len(of) >= MAX_SCHEMAS:
            continue
        large = row["schema"] is not None and len(row["schema"]) > MAX_SCHEMA_BYTES
        schema = None if row["schema"] is None or large else json.loads(row["schema"])
        item = {"digest": row["digest"], "sequence": row["sequence"], "description": row["description"]}
        of.append({**item, "schema": schema, **({"left_out": ["schema"]} if large else {})})
    return found


def _holder(row: Row, digests: Mapping[tuple[str, str], Mapping[str, str]], name: str) -> dict[str, Any]:
    of = digests.get((row["name"], row["instance"]), {})
    return {
        "worker": row["name"],
        "instance": row["instance"],
        "state": row["state"],
        "schema": of.get(name),
    }


def _numbers(tally: Tally) -> dict[str, Any]:
    counts = tally.counts
    ended = sum(counts[f"attempts_{outcome}"] for outcome in OUTCOMES)
    return {
        "submitted": counts["submitted"],
        "open": counts["submitted"] - sum(counts[state] for state in STATES),
        "running": counts["started"] - ended,
        **{state: counts[state] for state in STATES},
        "attempts": counts["started"],
        "failures": counts["attempts_failed"] + counts["attempts_timeout"],
        "lost": counts["attempts_lost"],
        "retries": counts["retries"],
        **{what: times.wire() for what, times in tally.times.items()},
    }
