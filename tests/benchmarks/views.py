"""What views cost: catching up with a ledger, the file that comes of it, answers out of many rows, and how
far behind the ledger they are while work goes on.

The large ledger is made of generated events, once; it is kept in the user's folder for caches.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import msgpack
from colonies_projections import build as building
from colonies_projections.build import Build
from colonies_projections.projector import VIEWS
from colonies_projections.question import read_question
from colonies_projections.signatures import WORTH_IT, helpers_for
from colonies_projections.store import schema_of
from colonies_projections.view import View
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from platformdirs import user_cache_path

from colonies.asking import ask_all
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Ledger, Stored
from tests.benchmarks.effort import CONCURRENCY, Effort, say
from tests.benchmarks.figure import Figure, median, percentile
from tests.benchmarks.generated import FUNCTIONS, Generated
from tests.benchmarks.ground import Ground

FOLDER = user_cache_path("colonies-benchmarks")
READ = 512  # events in a batch, as from a broker
RATE = 500  # processes/s submitted while the lag is looked at
LOOK_S = 0.05

QUESTIONS: dict[str, dict[str, Any]] = {
    "newest": {},
    "state": {"state": "failed"},
    "func_and_state": {"func": FUNCTIONS[1], "state": "cancelled"},
    "label": {"label": "paper-7", "submitter": "ann", "worker": "w3"},
    "text": {"text": "shard 17"},
    "ended": {"sort": "-ended"},
    "none": {"state": "running"},
}


class Given:
    """A ledger that is there as a file of events."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self.colony = str(next(iter(msgpack.Unpacker(file))))
            file.seek(-5, 2)
            self.events = int.from_bytes(file.read()[1:], "big")

    async def last_sequence(self) -> int:
        return int(self.events)

    async def scan(self, after: int = 0, pattern: str = "") -> AsyncIterator[list[Stored]]:
        with self._path.open("rb") as file:
            unpacker = iter(msgpack.Unpacker(file, max_buffer_size=0))
            next(unpacker)
            batch: list[Stored] = []
            for stored in unpacker:
                if isinstance(stored, int):
                    break
                subject, sequence, at, data = stored
                if sequence > after:
                    batch.append(Stored(subject, sequence, at, data))
                if len(batch) == READ:
                    yield batch
                    batch = []
            if batch:
                yield batch


def ledger_of(processes: int) -> Given:
    """A generated ledger of so many processes, made if it is not there yet."""
    path = FOLDER / f"ledger-{processes}.msgpack"
    if not path.exists():
        say(f"making a ledger of {processes:,} processes")
        FOLDER.mkdir(exist_ok=True, parents=True)
        made = Generated(processes)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            file.write(msgpack.packb(made.colony))
            for stored in made.stored():
                file.write(msgpack.packb([stored.subject, stored.sequence, stored.time, stored.data]))
            file.write(b"\xce" + made.sequence.to_bytes(4, "big"))  # msgpack, in a width that is known
        unfinished.rename(path)
    return Given(path)


async def _built(ledger: Given, path: Path, helpers: Callable[[int], int]) -> tuple[Build, float, float]:
    """Views of a whole ledger, from nothing; the seconds that it took, and those of one processor's time."""
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    building.helpers_for = helpers
    build = await Build.open(cast(Ledger, ledger), path, [make() for make in VIEWS])
    started, spent, told = time.perf_counter(), time.process_time(), time.monotonic()
    async for position in build.catch_up():
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(f"{position:,} of {ledger.events:,} events")
    return build, time.perf_counter() - started, time.process_time() - spent


def _verifications_per_s(number: int) -> float:
    """What the bare arithmetic of a signature allows, in processor time."""
    private = Ed25519PrivateKey.generate()
    public, message = private.public_key(), b"x" * 400
    signature = private.sign(message)
    started = time.process_time()
    for _ in range(number):
        public.verify(signature, message)
    return number / (time.process_time() - started)


async def views(effort: Effort) -> AsyncIterator[Figure]:
    """Events/s that a projector takes in from nothing, and what it makes of them."""
    ledger = ledger_of(effort.generated)
    path = FOLDER / "views.sqlite"
    one, all_, limits = [], [], []
    for _ in range(effort.rounds):
        limits.append(_verifications_per_s(effort.signatures))
        build, _, spent_s = await _built(ledger, path, lambda events: 0)
        await build.close()
        one.append(ledger.events / spent_s)
        build, wall_s, _ = await _built(ledger, path, lambda events: max(1, helpers_for(WORTH_IT)))
        await build.close()
        all_.append(ledger.events / wall_s)
        say(f"{one[-1]:.0f} events/s on one core, {all_[-1]:.0f} on all; bare {limits[-1]:.0f}")
    note = f"{ledger.events:,} events of {effort.generated:,} processes; limit: bare verifications, one core"
    yield Figure("catch_up_one_core", median(one), "events/s", median(limits), 0.6, note=note)
    yield Figure("catch_up_all_cores", median(all_), "events/s", median(limits), note=note)
    size = path.stat().st_size / effort.generated
    yield Figure("view_size", size, "bytes/process", note="all views in SQLite, with their past")


async def many(effort: Effort) -> AsyncIterator[Figure]:
    """Answers out of a view of many processes."""
    ledger = ledger_of(effort.viewed)
    path = FOLDER / f"views-{effort.viewed}-{schema_of([make() for make in VIEWS])[:8]}.sqlite"
    if not path.exists():
        for former in FOLDER.glob(f"views-{effort.viewed}[-.]*"):  # of another version
            former.unlink()
        say(f"building views of {effort.viewed:,} processes")
        build, _, _ = await _built(ledger, path.with_suffix(".unfinished"), helpers_for)
        await build.close()
        path.with_suffix(".unfinished").rename(path)
    copy = FOLDER / "views-in-use.sqlite"
    await asyncio.to_thread(shutil.copyfile, path, copy)
    processes: View = VIEWS[0]()

    async def ask(build: Build, asked: dict[str, Any]) -> float:
        started = time.perf_counter()
        question = read_question(processes, json.dumps(asked).encode())
        page, _ = await build.answer(processes, question.asked, question.at)
        assert page.items or asked == QUESTIONS["none"]
        return (time.perf_counter() - started) * 1e3

    started = time.perf_counter()
    build = await Build.open(cast(Ledger, ledger), copy, [make() for make in VIEWS])
    await ask(build, {})
    note = f"{effort.viewed:,} processes, 50 of them in an answer"
    yield Figure("first_answer", (time.perf_counter() - started) * 1e3, "ms", note=f"{note}, the file opened")
    for name, asked in QUESTIONS.items():
        took = [await ask(build, asked) for _ in range(20)]
        yield Figure(f"process_ls_{name}", median(took), "ms", reach=50, note=note)
    middle = {"at": ledger.events // 2}
    for name in ("newest", "state", "func_and_state"):
        took = [await ask(build, QUESTIONS[name] | middle) for _ in range(5)]
        yield Figure(f"process_ls_{name}_in_the_past", median(took), "ms", note=note)
    await build.close()


async def lag(effort: Effort) -> AsyncIterator[Figure]:
    """How far the views are behind the ledger while processes come and go."""
    async with Ground(profile=effort.profile) as ground:
        await ground.orchestrator()
        await ground.worker("w1", concurrency=CONCURRENCY)
        await ground.projector()
        client = await ground.client()
        ledger = client.ledger
        assert isinstance(ledger, JetStreamLedger)
        work = {"func": "noop", "conditions": {"runtimetype": "bench"}}
        await (await client.submit(work)).result()

        async def submit() -> None:
            per_round = max(1, int(RATE * LOOK_S))
            for number in range(effort.processes // per_round):
                due = started + number * LOOK_S
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await client.submit_many([work] * per_round)

        started = time.perf_counter()
        behind: list[float] = []
        submitting = asyncio.create_task(submit())
        while not submitting.done():
            [answer] = await ask_all(ledger, "query.projections", {}, wait_s=10, answers=1)
            behind.append(answer["items"][0]["lag_events"])
            await asyncio.sleep(LOOK_S)
        await submitting
        rate = effort.processes / (time.perf_counter() - started)
        note = f"{rate:.0f} processes/s submitted, {RATE} wanted; looked at {len(behind)} times"
        yield Figure("view_lag_p50", percentile(behind, 50), "events", note=note)
        yield Figure("view_lag_p95", percentile(behind, 95), "events", note=note)
