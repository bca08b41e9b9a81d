"""Generators as a client has them: added, packed, looked at, removed.

Packing returns when the arguments are on the ledger; then each is in exactly one run, in order. What is shown
is read from the leader. It submits nothing; that is the orchestrator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgpack

from colonies import subjects, values
from colonies.core.events import (
    MAX_INTERVAL_S,
    MAX_PACKED,
    MAX_TRIGGER,
    GeneratorAdded,
    GeneratorPacked,
    GeneratorRemoved,
    checked_reason,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.generators import Chain, Generator, Group, arguments, run_id
from colonies.core.names import name as checked_name
from colonies.core.spec import Spec
from colonies.errors import ColoniesError, Invalid, NotFound
from colonies.flows import declare_queues
from colonies.looking import workflow_now

if TYPE_CHECKING:
    from colonies.client import Client

MAX_ARGUMENT_BYTES = values.MAX_INLINE_BYTES
MAX_PACKED_BYTES = 640 * 1024  # in one event
MIN_TIMEOUT_S = 1.0
MAX_RUNS_SHOWN = 1_000


@dataclass(frozen=True, slots=True)
class RunNow:
    """A run of a generator: its number, its workflow, which arguments it has (`count` from `first` on), and
    its state: that of the workflow, or `due` before it is submitted."""

    run: int
    workflow: str
    first: int
    count: int
    state: str


@dataclass(frozen=True, slots=True)
class GeneratorNow:
    """A generator as it is. `added` is a sequence, `added_at` and `ends` are ledger times (ns).

    `packed` arguments came so far and make `runs` runs; `waiting` of them are for the next one, which takes
    no more from `ends` on.
    """

    name: str
    spec: WorkflowSpec
    trigger: int
    timeout_s: float | None
    added_by: str
    added: int
    added_at: int
    packed: int
    runs: int
    waiting: int
    ends: int | None


class GeneratorClient:
    """What a client does with generators."""

    async def add_generator(
        self,
        name: str,
        work: WorkflowSpec | Spec | list[Any] | dict[str, Any],
        *,
        trigger: int,
        timeout_s: float | None = None,
    ) -> GeneratorNow:
        """Add a generator: a workflow or process that runs whenever `trigger` arguments were packed, or,
        `timeout_s` seconds after the first of them, with those that are there.

        Raises:
            Invalid: it makes no sense. Conflict: there is a generator of this name.
        """
        return await _add(_client(self), name, work, trigger, timeout_s)

    async def pack(self, name: str, *args: Any) -> None:
        """Pack arguments for a generator's runs, in order; when this returns they are on the ledger.

        Raises:
            NotFound: there is no such generator. Invalid: an argument is none, or over 128 KiB.
        """
        await _pack(_client(self), name, args)

    async def generators(self) -> list[GeneratorNow]:
        """All generators, by name."""
        return await _all(_client(self))

    async def generator(self, name: str) -> GeneratorNow:
        """A generator as it is now. Raises NotFound."""
        return await _now_of(_client(self), name)

    async def waiting_arguments(self, name: str) -> list[Any]:
        """The arguments that wait for a generator's next run. Raises NotFound."""
        return await _waiting(_client(self), name)

    async def generator_runs(self, name: str, limit: int = 10) -> list[RunNow]:
        """The last runs of a generator, the newest first. Raises NotFound."""
        return await _runs(_client(self), name, limit)

    async def remove_generator(self, name: str, reason: str = "") -> None:
        """Remove a generator: what waits never runs. Raises NotFound, Refused."""
        await _remove(_client(self), name, reason)


def _client(self: GeneratorClient) -> Client:
    """The client that it is a part of."""
    return cast("Client", self)


async def _add(
    client: Client,
    name: str,
    work: WorkflowSpec | Spec | list[Any] | dict[str, Any],
    trigger: int,
    timeout_s: float | None,
) -> GeneratorNow:
    """Add a generator. Raises as `Client.add_generator`."""
    checked_name(name, "generator")
    if type(trigger) is not int or not 1 <= trigger <= MAX_TRIGGER:
        raise Invalid(f"trigger: {trigger!r}; a whole number of arguments from 1 to {MAX_TRIGGER} is allowed")
    if timeout_s is not None and not MIN_TIMEOUT_S <= timeout_s <= MAX_INTERVAL_S:
        raise Invalid(
            f"timeout: {timeout_s!r}; {MIN_TIMEOUT_S:g} to {MAX_INTERVAL_S} seconds are allowed, or none"
        )
    spec = spec_of(work, name)
    _check_references(spec, trigger)
    spec.without("previous", "only runs of a cron have one before them; a generator's have none")
    await declare_queues(client, spec)
    event = GeneratorAdded(spec, trigger, float(timeout_s) if timeout_s is not None else None)
    await client.session.knowledge.generators.record(name, lambda _: event)
    return _now(await _there(client, name), await client.ledger.now())


def spec_of(work: WorkflowSpec | Spec | list[Any] | dict[str, Any], name: str) -> WorkflowSpec:
    """What each run shall be: a workflow, or one process. Raises Invalid."""
    if isinstance(work, WorkflowSpec):
        return work.checked()
    return WorkflowSpec.of(work.wire() if isinstance(work, Spec) else work, name)


def _check_references(spec: WorkflowSpec, trigger: int) -> None:
    """No run has more arguments than the trigger says."""
    for node in spec.nodes:
        for reference in (*node.references, *([node.map] if node.map is not None else [])):
            first = reference.path[0] if reference.kind == "packed" and reference.path else "0"
            if first.isdecimal() and int(first) >= trigger:
                raise Invalid(
                    f"node {node.name}: {reference}: a run has at most {trigger} arguments, counted from 0"
                )


async def _pack(client: Client, name: str, given: Sequence[Any]) -> None:
    """Pack arguments, in order. Raises as `Client.pack`."""
    checked_name(name, "generator")
    if not given:
        raise Invalid(f"generator {name}: there is nothing to pack; give at least one argument")
    done = 0
    for args in _cut([_argument(arg, number) for number, arg in enumerate(given)]):

        def event_of(chain: Chain, args: list[Any] = args) -> GeneratorPacked:
            return GeneratorPacked(_of(client, chain).total, args)

        try:
            await client.session.knowledge.generators.record(name, event_of)
        except ColoniesError as error:
            if done:
                raise type(error)(
                    f"the first {done} of {len(given)} arguments are packed, the others not: {error}"
                ) from None
            raise
        done += len(args)


def _argument(value: Any, number: int) -> bytes:
    data = values.pack(value, f"argument {number}")
    if len(data) > MAX_ARGUMENT_BYTES:
        raise Invalid(
            f"argument {number}: {len(data)} bytes; at most {MAX_ARGUMENT_BYTES} are allowed "
            "(put large values into a file or a process's output, and pack where it is)"
        )
    return data


def _cut(packed: Sequence[bytes]) -> list[list[Any]]:
    """The arguments, in as many as fit into one event each."""
    found: list[list[Any]] = []
    size = 0
    for data in packed:
        if not found or len(found[-1]) == MAX_PACKED or size + len(data) > MAX_PACKED_BYTES:
            found.append([])
            size = 0
        found[-1].append(msgpack.unpackb(data))
        size += len(data)
    return found


async def _remove(client: Client, name: str, reason: str) -> None:
    """Remove a generator. Raises as `Client.remove_generator`."""
    checked_name(name, "generator")
    checked_reason(reason)

    def event_of(chain: Chain) -> GeneratorRemoved:
        _of(client, chain)
        return GeneratorRemoved(reason)

    await client.session.knowledge.generators.record(name, event_of)


# --- looking ----------------------------------------------------------------------------------------


async def _all(client: Client) -> list[GeneratorNow]:
    """All that there are, by name."""
    names = set()
    async for batch in client.ledger.scan(0, subjects.GENERATORS_ADDED):
        names |= {found.entity for stored in batch if (found := subjects.parse(stored.subject)) is not None}
    now = await client.ledger.now()
    chains = [(await client.session.knowledge.generators.read(name)).chain for name in sorted(names)]
    return [_now(chain.generator, now) for chain in chains if chain.generator is not None]


async def _now_of(client: Client, name: str) -> GeneratorNow:
    """One generator. Raises NotFound."""
    return _now(await _there(client, name), await client.ledger.now())


async def _waiting(client: Client, name: str) -> list[Any]:
    """The arguments that wait for the next run. Raises NotFound."""
    found = await _there(client, name)
    group = _open(found, await client.ledger.now())
    if group is None:
        return []
    return list(arguments(group, await client.session.knowledge.generators.packs(name, group)))


async def _runs(client: Client, name: str, limit: int) -> list[RunNow]:
    """The last `limit` runs, the newest first. Raises NotFound."""
    if not 1 <= limit <= MAX_RUNS_SHOWN:
        raise Invalid(f"limit: {limit}; 1 to {MAX_RUNS_SHOWN} runs are allowed")
    found = await _there(client, name)
    groups = found.due(await client.ledger.now())[-limit:]
    return [await _run(client, found, group) for group in reversed(groups)]


async def _run(client: Client, found: Generator, group: Group) -> RunNow:
    id = run_id(found.name, found.added, group.run)
    try:
        state: str = (await workflow_now(client, id)).state
    except NotFound:
        state = "due"
    return RunNow(group.run, id, group.first, group.count, state)


async def _there(client: Client, name: str) -> Generator:
    checked_name(name, "generator")
    return _of(client, (await client.session.knowledge.generators.read(name)).chain)


def _of(client: Client, chain: Chain) -> Generator:
    if chain.generator is None:
        raise NotFound(
            f"there is no generator {chain.name} in the colony {client.colony}; see `colonies generator ls`"
        )
    return chain.generator


def _open(found: Generator, now: int) -> Group | None:
    """The group that waits, unless its time is over."""
    group = found.open
    return None if group is None or (group.ends is not None and group.ends <= now) else group


def _now(found: Generator, now: int) -> GeneratorNow:
    group = _open(found, now)
    return GeneratorNow(
        name=found.name,
        spec=found.spec,
        trigger=found.trigger,
        timeout_s=found.timeout_s,
        added_by=found.submitter,
        added=found.added,
        added_at=found.added_at,
        packed=found.total,
        runs=found.runs + (1 if group is None and found.open is not None else 0),
        waiting=group.count if group is not None else 0,
        ends=group.ends if group is not None else None,
    )
