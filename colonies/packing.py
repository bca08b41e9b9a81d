"""Submits the runs of generators, for an orchestrator that folds the ledger.

Which arguments make a run, and when, says the ledger; a run's id derives from the generator and its number.
So another that says the same does no harm, and whoever was away finds all that is due. It allots nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from colonies.core.events import SECOND, WorkflowSubmitted
from colonies.core.generators import Generator, Group, run_id, source_of
from colonies.errors import ColoniesError, Conflict
from colonies.history import History, WorkflowStory
from colonies.session import Session

AT_ONCE = 64  # generators looked at together, and runs that one of them gets before the others' turn
AGAIN_S = 1.0
CHECK_S = 5.0  # then what was said is on the ledger, or is said again

Later = Callable[[float, Callable[[], None]], None]

_log = structlog.get_logger("colonies.orchestrator")


class Runs:
    """`later` has something done after so many seconds."""

    def __init__(self, session: Session, history: History, later: Later) -> None:
        self._session = session
        self._history = history
        self._later = later
        self._touched: set[str] = set()
        self._said: dict[str, set[tuple[int, int]]] = {}  # by name: added and run
        self._timed: dict[str, int] = {}  # by name: the ledger time (ns) at which it is looked at again

    def on_generator(self, name: str) -> None:
        """An event of this generator was folded."""
        self._touched.add(name)

    @property
    def has_work(self) -> bool:
        return bool(self._touched)

    async def act(self, now: int) -> None:
        """Submit what is due at this ledger time (ns), or a part of it: then there is work still."""
        names = [self._touched.pop() for _ in range(min(AT_ONCE, len(self._touched)))]
        await asyncio.gather(*(self._look(name, now) for name in names))

    async def _look(self, name: str, now: int) -> None:
        """Submit the runs of one generator, in order."""
        chain = self._history.generators.get(name)
        if chain is None:
            return
        said = self._said.setdefault(name, set())
        due = [
            (generator, group)
            for generator in chain.all()
            for group in generator.due(now)
            if (generator.added, group.run) not in said
        ]
        for generator, group in due[:AT_ONCE]:
            if not await self._submit(generator, group):
                self._later(AGAIN_S, lambda: self._touched.add(name))
                break
            said.add((generator.added, group.run))
        else:
            if len(due) > AT_ONCE:
                self._touched.add(name)
        if due:
            self._later(CHECK_S, lambda: self._check(name))
        else:
            self._said.pop(name, None)
        self._time(name, chain.generator, now)

    def _check(self, name: str) -> None:
        self._said.pop(name, None)
        self._touched.add(name)

    def _time(self, name: str, generator: Generator | None, now: int) -> None:
        """Look again when the open group's time is over."""
        group = generator.open if generator is not None else None
        if group is None or group.ends is None or group.ends <= now or self._timed.get(name) == group.ends:
            return
        ends = self._timed[name] = group.ends

        def due() -> None:
            if self._timed.get(name) == ends:
                del self._timed[name]
            self._touched.add(name)

        self._later((ends - now) / SECOND + 0.002, due)

    async def _submit(self, generator: Generator, group: Group) -> bool:
        """Was it submitted, by us?"""
        id = run_id(generator.name, generator.added, group.run)
        event = WorkflowSubmitted(source=source_of(generator, group))
        try:
            if group.count < generator.trigger and not await self._is_all(generator, group):
                _log.debug("read on first", generator=generator.name, run=group.run)
                return False
            at = WorkflowStory(None, [], 0)
            await self._session.record_workflow(id, event, at=at, known=self._history)
        except Conflict as error:  # another was faster, and we shall read of it
            _log.debug("not submitted here", generator=generator.name, run=group.run, error=str(error))
            return False
        except ColoniesError as error:
            _log.warning("failed, tried again", generator=generator.name, run=group.run, error=str(error))
            return False
        except Exception:
            _log.exception("failed, tried again", generator=generator.name, run=group.run)
            return False
        _log.info("run submitted", generator=generator.name, run=group.run, workflow=id)
        return True

    async def _is_all(self, generator: Generator, group: Group) -> bool:
        """Has this group, whose time is over, all that was packed for it? What we follow may be behind the
        clock; the leader's word is not, and nothing joins the group any more."""
        chain = (await self._session.knowledge.generators.read(generator.name)).chain
        found = chain.find(generator.added)
        there = found.group(group.run) if found is not None else None
        return there is not None and there.count == group.count
