"""What must hold of a feed: whoever goes on from the event it had last is told every event once, each with
the verdict that it has for who reads everything.

Lifetimes with a subscriber are others than those of the same seeds without one: it takes its share of chance.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Any

from colonies import feed
from colonies.history import Judged
from colonies.session import Session
from tests.simulator.link import Host

Opened = Callable[[Host], Awaitable[tuple[Session, Any]]]


class Subscriber:
    """One subscriber. `heard` is what it has on its disk: sequence, verdict and rule."""

    def __init__(self, seed: int, founding: int) -> None:
        dice = Random(seed ^ 0xFEED)
        self.crashes = [
            (1 + int(80 * dice.random() ** 1.5), dice.random() < 0.5)
            for _ in range(dice.choice([0, 1, 2, 3]))
        ]
        self.heard: list[tuple[int, str, str]] = []
        self._founding = founding

    @property
    def position(self) -> int:
        return self.heard[-1][0] if self.heard else self._founding

    async def run(self, host: Host, session_of: Opened) -> None:
        session, ledger = await session_of(host)
        try:
            async for told in feed.tell(session, self.position):
                if host.dead:
                    return
                seen = told.seen
                self.heard.append((seen.stored.sequence, seen.verdict.kind, seen.verdict.rule))
        finally:
            await session.close()
            await ledger.close()

    def check(self, judged: Iterable[Judged], last: int, broken: Callable[..., None]) -> None:
        """`judged` is a fold of all that is not the founding, up to `last`."""
        sequences = [sequence for sequence, _, _ in self.heard]
        if sequences != list(range(self._founding + 1, last + 1)):
            twice = sorted({n for n in sequences if sequences.count(n) > 1})
            never = sorted(set(range(self._founding + 1, last + 1)) - set(sequences))
            broken(f"of the events up to {last} the feed told {twice} more than once, and {never} never")
            return
        for (sequence, kind, rule), seen in zip(self.heard, judged, strict=True):
            if kind != seen.verdict.kind:
                verdict = f"{seen.verdict.kind} ({seen.verdict.rule})"
                broken(
                    f"the feed said {kind} ({rule}) of {sequence}, which is {verdict}", seen.stored.subject
                )
