"""Many lifetimes, on all processors: progress, failures as they come, and where to go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial

CHUNK = 250
SHOWN = 10  # failures
EVERY_S = 5.0

Failure = tuple[int, list[str]]


def _begin() -> None:
    """In every process that simulates: the parent stops it, nobody else."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lay()


def lay() -> None:
    """Prepare this process for nothing but lifetimes."""
    import gc

    from tests.simulator.ground import lay

    lay()
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)


def _live(seeds: range, *, subscribed: bool, plant: str | None) -> tuple[int, list[Failure], float]:
    """The end of a range, what failed in it, and the processor time that it took (s)."""
    from tests.simulator.planted import planted
    from tests.simulator.world import lifetime

    began = time.process_time()
    with planted(plant):
        results = [lifetime(seed, subscribed=subscribed) for seed in seeds]
    failures = [(result.seed, result.failures) for result in results if result.failures]
    return seeds.stop, failures, time.process_time() - began


def _chunks(first: int, count: int) -> Iterator[range]:
    for start in range(first, first + count, CHUNK):
        yield range(start, min(start + CHUNK, first + count))


def simulate(first: int, count: int, jobs: int, *, subscribed: bool = False, plant: str | None = None) -> int:
    """Live them all. Returns the exit code: 0, 1 if any failed, 130 if interrupted."""
    live = partial(_live, subscribed=subscribed, plant=plant)
    also = " --subscribed" * subscribed
    failed: list[Failure] = []
    done, cpu_s, began, said = first, 0.0, time.monotonic(), time.monotonic()
    print(f"seeds {first} to {first + count - 1}, {jobs} processes", flush=True)
    with multiprocessing.get_context("spawn").Pool(jobs, _begin) as pool:
        try:
            for end, failures, took_s in pool.imap(live, _chunks(first, count)):
                done, cpu_s = end, cpu_s + took_s
                for seed, broken in failures:
                    if len(failed) < SHOWN:
                        print(f"seed {seed} failed: {broken[0]}\n    {_replay(seed)}{also}", flush=True)
                    failed.append((seed, broken))
                if time.monotonic() - said > EVERY_S:
                    said = time.monotonic()
                    _say_progress(first, done, count, len(failed), said - began)
        except KeyboardInterrupt:
            pool.terminate()
            rest = first + count - done
            print(f"\ninterrupted: seeds {first} to {done - 1} are done, {len(failed)} failed; go on with")
            print(f"    make simulate FROM={done} SEEDS={rest}")
            return 130
    said_failed = f"failed: {' '.join(str(seed) for seed, _ in failed)}" if failed else "none failed"
    print(f"seeds {first} to {done - 1}: {count} lifetimes, {cpu_s:.0f} s of processor time, {said_failed}")
    return 1 if failed else 0


def _say_progress(first: int, done: int, count: int, failed: int, took_s: float) -> None:
    rate = (done - first) / took_s
    left_s = (first + count - done) / rate
    print(
        f"{done - first:>9} of {count}, {rate:.0f} a second, {failed} failed, {left_s / 60:.0f} minutes left",
        file=sys.stderr,
        flush=True,
    )


def _replay(seed: int) -> str:
    return f"{os.path.relpath(sys.executable)} -m tests.simulator --replay {seed}"
