"""`python -m tests.simulator`: live the lifetimes of a range of seeds; see docs/simulator.md.

python -m tests.simulator --seeds 1000000 --from 0      many, each failure with the command that replays it
python -m tests.simulator --replay 4303                 one, with everything that happened in it
python -m tests.simulator --planted                     is each planted bug found?
python -m tests.simulator --subscribed --seeds 1000     with a subscriber
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys

from tests.simulator.many import lay, simulate

NICE = 5  # whoever waits for an answer goes first


def replay(seed: int, plant: str | None, *, subscribed: bool) -> int:
    """One lifetime with all that happened in it."""
    lay()
    from tests.simulator.plan import draw
    from tests.simulator.planted import planted
    from tests.simulator.world import lifetime

    with planted(plant):
        result = lifetime(seed, tracing=True, subscribed=subscribed)
    print(draw(seed))
    print("\n".join(result.trace))
    for broken in result.failures:
        print(f"BROKEN: {broken}")
    digest = hashlib.sha256("\n".join(result.trace).encode()).hexdigest()
    print(f"seed {seed}: {result.events} events, {result.seconds:.3f} s, digest {digest[:16]}")
    return 1 if result.failures else 0


def digests(first: int, count: int) -> int:
    """One line for each seed: the digest of all that happened. Each is lived twice."""
    lay()
    from tests.simulator.world import lifetime

    for seed in range(first, first + count):
        one, two = (lifetime(seed, tracing=True) for _ in range(2))
        if one.trace != two.trace:
            print(f"seed {seed} is not the same twice")
            return 1
        print(seed, hashlib.sha256("\n".join(one.trace).encode()).hexdigest()[:16], len(one.trace))
    return 0


def find_planted(names: list[str]) -> int:
    """A line of JSON for each planted bug: the first seed that finds it, by what, within how many."""
    lay()
    from tests.simulator.planted import BUGS, planted
    from tests.simulator.world import lifetime

    missed = 0
    for bug in [bug for bug in BUGS if not names or bug.name in names]:
        found: dict[str, object] = {"bug": bug.name, "within": bug.within, "seed": None}
        with planted(bug.name):
            for seed in bug.seeds():
                result = lifetime(seed, subscribed=bug.subscribed)
                if result.failures:
                    found |= {"seed": seed, "by": result.failures[0]}
                    break
        missed += found["seed"] is None
        print(json.dumps(found), flush=True)
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description="Simulate lifetimes.")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=20_000, help="how many")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes")
    parser.add_argument("--replay", type=int, metavar="SEED", help="one lifetime, told in full")
    parser.add_argument("--plant", metavar="BUG", help="with this bug in the code")
    parser.add_argument("--digests", action="store_true", help="print what tells two runs apart")
    parser.add_argument("--planted", nargs="*", metavar="BUG", help="look for the planted bugs")
    parser.add_argument("--subscribed", action="store_true", help="with a subscriber, without a projector")
    asked = parser.parse_args()
    if hasattr(os, "nice"):
        os.nice(NICE)
    if asked.replay is not None:
        return replay(asked.replay, asked.plant, subscribed=asked.subscribed)
    if asked.planted is not None:
        return find_planted(asked.planted)
    if asked.digests:
        return digests(asked.first, asked.seeds)
    jobs = max(1, asked.jobs)
    return simulate(asked.first, asked.seeds, jobs, subscribed=asked.subscribed, plant=asked.plant)


if __name__ == "__main__":
    sys.exit(main())
