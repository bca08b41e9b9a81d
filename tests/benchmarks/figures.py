"""What is measured, group by group. Rates and times are medians of rounds that alternate with the limit's."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from colonies import codec, subjects
from colonies.calls import Call
from colonies.client import Client
from colonies.core.colony import Colony
from colonies.core.events import Assigned, Queued
from colonies.core.members import Held, Member
from colonies.core.spec import Spec, queue_of
from colonies.history import examine
from colonies.ids import new_id
from colonies.ledger import Stored
from colonies.nkeys import KeyPair
from tests.benchmarks.actor import work_functions
from tests.benchmarks.costs import costs, trip
from tests.benchmarks.crons import crons
from tests.benchmarks.effort import BATCH, BROKER_CAN, CONCURRENCY, Effort, say
from tests.benchmarks.figure import Figure, median, percentile
from tests.benchmarks.flows import large_workflow, workflows
from tests.benchmarks.ground import Ground, Part, cpu_s, resident_bytes
from tests.benchmarks.scale import cold, instances, ledger_size, queues
from tests.benchmarks.views import lag, many, views

# --- processes, end to end --------------------------------------------------------------------------


async def processes(effort: Effort) -> AsyncIterator[Figure]:
    """No-ops from the first submission to the last verified result."""
    noop = work_functions("bench", None).functions["noop"]
    async with Ground(profile=effort.profile) as ground:
        limit = await ground.bare()
        parts = {
            "orchestrator": (await ground.orchestrator()).pid,
            "worker": (await ground.worker("w1", concurrency=CONCURRENCY)).pid,
            "broker": ground.server.pid,
            "client": 0,
        }
        client = await ground.client()

        async def ours(count: int) -> float:
            started = time.perf_counter()
            handles = await client.submit_many(noop.call() for _ in range(count))
            await asyncio.gather(*(handle.result() for handle in handles))
            return time.perf_counter() - started

        await ours(effort.processes // 4)
        rates: list[float] = []
        limits: dict[str, list[float]] = {"batches": [], "singly": []}
        for way in limits:
            await limit.tasks(effort.processes // 4, way)
        spent: dict[str, list[float]] = {name: [] for name in parts}
        for number in range(effort.rounds):
            for way, found in limits.items():
                found.append(effort.processes / await limit.tasks(effort.processes, way))
            before = {name: _spent(pid) for name, pid in parts.items()}
            rates.append(effort.processes / await ours(effort.processes))
            for name, pid in parts.items():
                spent[name].append((_spent(pid) - before[name]) * 1e6 / effort.processes)
            bare = " or ".join(f"{found[-1]:.0f} {way}" for way, found in limits.items())
            say(f"round {number + 1}: {rates[-1]:.0f} processes/s; tasks/s of the bare broker: {bare}")
    note = (
        f"{effort.processes} no-ops, submit_many to the last verified result; one client, one worker "
        f"(concurrency {CONCURRENCY}) and one orchestrator process; limit: {BROKER_CAN}, "
    )
    singly = f"{note}one publish, pull and ack for each task"
    yield Figure("processes_per_s", median(rates), "1/s", median(limits["singly"]), 0.2, 0.32, singly)
    batches = f"{note}tasks pulled 500 at a time"
    yield Figure("processes_per_s_beside_bulk", median(rates), "1/s", median(limits["batches"]), note=batches)
    for name, values in spent.items():
        yield Figure(f"cpu_{name}", median(values), "us/process", note="processor time in the same rounds")


def _spent(pid: int) -> float:
    return cpu_s(pid) if pid else time.process_time()


# --- round trip -------------------------------------------------------------------------------------


async def round_trip(effort: Effort) -> AsyncIterator[Figure]:
    """One process at a time, from submit to its verified result."""
    noop = work_functions("bench", None).functions["noop"]
    async with Ground(profile=effort.profile) as ground:
        limit = await ground.bare()
        await ground.orchestrator()
        await ground.worker("w1")
        client = await ground.client()

        async def ours() -> float:
            started = time.perf_counter()
            await (await client.submit(noop.call())).result()
            return time.perf_counter() - started

        for _ in range(20):
            await limit.round_trip()
            await ours()
        found: dict[int, list[float]] = {50: [], 95: [], 99: []}
        limits: dict[int, list[float]] = {50: [], 95: [], 99: []}
        for number in range(effort.rounds):
            bare = [await limit.round_trip() for _ in range(effort.round_trips)]
            times = [await ours() for _ in range(effort.round_trips)]
            for percent, values in found.items():
                values.append(percentile(times, percent) * 1e3)
                limits[percent].append(percentile(bare, percent) * 1e3)
            say(f"round {number + 1}: p50 {found[50][-1]:.2f} ms, the bare broker {limits[50][-1]:.2f} ms")
        note = (
            f"{effort.round_trips} in a row, submit to verified result; "
            f"limit: {BROKER_CAN}, task and result stored"
        )
        for percent, values in found.items():
            wanted = (2.5, 1.7) if percent == 50 else (None, None)
            yield Figure(
                f"round_trip_p{percent}", median(values), "ms", median(limits[percent]), *wanted, note=note
            )


# --- submitting -------------------------------------------------------------------------------------


async def submits(effort: Effort) -> AsyncIterator[Figure]:
    """How fast one client puts processes on the ledger; nobody works."""
    call = work_functions("nobody", None).functions["noop"].call
    async with Ground(profile=effort.profile) as ground:
        limit = await ground.bare()
        client = await ground.client()
        await client.submit(call())
        count = effort.submits

        async def one_by_one() -> float:
            started = time.perf_counter()
            for _ in range(count):
                await client.submit(call())
            return time.perf_counter() - started

        async def together(size: int, atomic: bool) -> float:
            started = time.perf_counter()
            for _ in range(0, count, size):
                await client.submit_many((call() for _ in range(size)), atomic=atomic)
            return time.perf_counter() - started

        ways: dict[str, tuple[Callable[[], Awaitable[float]], Callable[[], Awaitable[float]]]] = {
            "one_by_one": (one_by_one, lambda: limit.one_by_one(count)),
            "pipelined": (lambda: together(count, False), lambda: limit.pipelined(count)),
            "batched": (lambda: together(min(BATCH, count), True), lambda: limit.batched(count, BATCH)),
        }
        for name, (way, bare) in ways.items():
            rates, limits = [], []
            for _ in range(effort.rounds):
                limits.append(count / await bare())
                rates.append(count / await way())
            say(f"{name}: {median(rates):.0f} submits/s, the bare broker {median(limits):.0f}")
            note = f"{count} by one client; limit: unsigned publishes to {BROKER_CAN}"
            yield Figure(f"submits_{name}_per_s", median(rates), "1/s", median(limits), note=note)


# --- signing and verifying --------------------------------------------------------------------------


async def signatures(effort: Effort) -> AsyncIterator[Figure]:
    """Sealing and examining one event, beside the bare arithmetic of `cryptography` on the same bytes."""
    account, key = KeyPair.new("account").public, KeyPair.new("user")
    colony = Colony(account, name="bench")
    colony.members["ann"] = Member("ann", "user", (Held(key.public, 0, 0),))
    spec = Spec.parse({"func": "noop", "conditions": {"runtimetype": "bench"}})
    process, event = new_id(), Queued(spec)
    subject = subjects.subject_of(event, process, "ann", queue_of(spec.conditions, 0))

    def seal() -> codec.Sealed:
        data = codec.data_of(event)
        return codec.seal(
            key, account, subject, id=process, type=event.type, time=1, author="ann", prev=None, data=data
        )

    stored = Stored(subject, 1, 1, seal().data)
    assert examine(colony, stored).verdict.valid
    signed = codec.open_(account, subject, stored.data).signed
    private = Ed25519PrivateKey.generate()
    public, signature = private.public_key(), private.sign(signed)
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "sign": (seal, lambda: private.sign(signed)),
        "verify": (lambda: examine(colony, stored), lambda: public.verify(signature, signed)),
    }
    for name, (ours, bare) in pairs.items():
        rates, limits = [], []
        for _ in range(effort.rounds):
            limits.append(_rate(bare, effort.signatures))
            rates.append(_rate(ours, effort.signatures))
        say(f"{name}: {median(rates):.0f}/s, bare cryptography {median(limits):.0f}/s")
        note = f"one event of {len(stored.data)} bytes, one core; limit: bare cryptography on the same bytes"
        yield Figure(f"{name}_per_s", median(rates), "1/s", median(limits), note=note)


def _rate(call: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - started)


# --- disk and memory --------------------------------------------------------------------------------


async def storage(effort: Effort) -> AsyncIterator[Figure]:
    """What a finished process costs for ever: bytes of the ledger, and of a fresh broker's memory."""
    noop = work_functions("bench", None).functions["noop"]
    async with Ground() as ground:
        await _restart(ground)
        empty = resident_bytes(ground.server.pid)
        orchestrator = await ground.orchestrator()
        worker = await ground.worker("w1", concurrency=CONCURRENCY)
        client = await ground.client()
        before = await _ledger_bytes(client)
        for done in range(0, effort.stored, 2_000):
            say(f"{done} of {effort.stored} processes stored")
            handles = await client.submit_many(noop.call() for _ in range(2_000))
            await asyncio.gather(*(handle.result() for handle in handles))
        disk = await _ledger_bytes(client) - before
        bare = disk / (3 * effort.stored)
        for part in (worker, orchestrator):
            await part.stop()
        await _restart(ground)
        memory = resident_bytes(ground.server.pid) - empty
        note = f"{effort.stored} finished no-ops, three events each"
        yield Figure("disk_per_process", disk / effort.stored, "bytes", note=f"{note}; {bare:.0f} an event")
        note += ": resident memory of a restarted broker, less that of one with an empty ledger"
        yield Figure("broker_memory_per_process", memory / effort.stored, "bytes", note=note)


async def _ledger_bytes(client: Client) -> float:
    info: dict[str, Any] = await client.ledger.stream_info(subjects.LEDGER)  # type: ignore[attr-defined]
    return float(info["state"]["bytes"])


async def _restart(ground: Ground) -> None:
    await ground.server.stop()
    await ground.server.start()
    await asyncio.sleep(1.0)


# --- failover ---------------------------------------------------------------------------------------


async def failover(effort: Effort) -> AsyncIterator[Figure]:
    """From the kill of a worker to the next `assigned` on the ledger, by ledger times, in leases."""
    lease_s = 2.0
    hold = work_functions("bench", None).functions["hold"]
    async with Ground(lease_s=lease_s) as ground:
        await ground.orchestrator()
        names = [f"w{number}" for number in range(effort.kills + 1)]
        workers = {name: await ground.worker(name, concurrency=1) for name in names}
        client = await ground.client()
        found = []
        for number in range(effort.kills):
            found.append(await _killed(client, hold.call(), workers) / lease_s)
            say(f"kill {number + 1}: {found[-1]:.2f} leases to the next assignment")
        note = f"{len(found)} x SIGKILL at a random moment, lease {lease_s:g} s; worst {max(found):.2f}"
        yield Figure("failover", median(found), "leases", reach=1.2, note=note)


async def _killed(client: Client, call: Call[Any], workers: dict[str, Part]) -> float:
    """Kill whoever took the process; the seconds until another was assigned it."""
    handle = await client.submit(call)
    async for seen in handle.events():
        if seen.record is not None and isinstance(seen.record.event, Assigned):
            break
    await asyncio.sleep(random.uniform(1.0, 2.0))
    killed_at = await client.ledger.now()
    workers.pop(seen.stored.subject.rsplit(".", 1)[1]).kill()
    process = await handle.wait(30)
    return (process.attempts[1].started_at - killed_at) / 1e9


GROUPS: dict[str, Callable[[Effort], AsyncIterator[Figure]]] = {
    "processes": processes,
    "round_trip": round_trip,
    "submits": submits,
    "costs": costs,
    "trip": trip,
    "signatures": signatures,
    "storage": storage,
    "failover": failover,
    "ledger_size": ledger_size,
    "queues": queues,
    "instances": instances,
    "cold": cold,
    "workflows": workflows,
    "large_workflow": large_workflow,
    "crons": crons,
    "views": views,
    "many": many,
    "lag": lag,
}


async def measure(names: Iterable[str], effort: Effort) -> AsyncIterator[Figure]:
    """The figures of these groups, as they come."""
    for name in names:
        print(f"{name}: {(GROUPS[name].__doc__ or '').splitlines()[0]}", file=sys.stderr, flush=True)
        async for figure in GROUPS[name](effort):
            yield figure
