"""The services of a colony, kept running: what `colonies dev` and `colonies server start` have in common.

A service is one task with one connection. What it dies of is said in the log, and it starts again after a
pause that doubles up to MAX_PAUSE_S. Nothing here decides anything about processes, and no service keeps
what it cannot derive from the ledger: killed at any point, it is just started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import structlog

from colonies import founding, jetstream
from colonies.connection import session_of
from colonies.creds import Credential
from colonies.errors import ColoniesError, Conflict, Invalid, NotFound, Refused
from colonies.operator import OperatorKeys, OwnerKeys
from colonies.orchestrator import Orchestrator
from colonies.roles import RoleName
from colonies.session import Session
from colonies.tasks import first_error

if TYPE_CHECKING:
    from colonies_projections.http import Door

FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 10.0
STOP_S = 30.0  # a broker takes at most 10 of them
STEADY_S = 60.0  # whoever ran this long has earned the first pause again
MEMBER_CHECK_S = 0.5
MAX_SAME_NAME = 100

Kind = Literal["orchestrator", "projector", "webhooks", "operator", "http", "traces"]

# The operator's service only reads the ledger; what it may do beyond that, it may by the operator's keys.
ROLES: Mapping[Kind, RoleName] = {
    "orchestrator": "service",
    "projector": "observer",
    "webhooks": "observer",
    "operator": "observer",
    "http": "observer",
    "traces": "observer",
}

_log = structlog.get_logger("colonies.services")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the services of a colony work. The keys are needed by the operator's service only, the door by
    the HTTP server; webhooks reach public addresses only, if `public_only`."""

    url: str
    views: Path
    operator: OperatorKeys | None = None
    owner: OwnerKeys | None = None
    door: Door | None = None
    public_only: bool = False


class _Running(Protocol):
    """What all services have: they say when they are ready, and run until cancelled."""

    ready: asyncio.Event

    async def run(self) -> None: ...


class _Operator:
    """The operator's service, ready once the broker has been told of all revocations."""

    def __init__(self, session: Session, place: Place) -> None:
        if place.operator is None:
            raise Invalid("the operator's service needs the operator's keys; it runs where they are kept")
        self.ready = asyncio.Event()
        self._operator = founding.Operator(session, place.operator, place.url)

    async def run(self) -> None:
        await self._operator.push()
        self.ready.set()
        await self._operator.run()


class Service:
    """One service of a colony. `credential` is asked at each start: which member it is then.

    `ready` is set when it has been ready for the first time.
    """

    def __init__(self, kind: Kind, place: Place, credential: Callable[[], Awaitable[Credential]]) -> None:
        self.kind = kind
        self.ready = asyncio.Event()
        self._place = place
        self._credential = credential

    async def keep(self, *, give_up: bool = False) -> None:
        """Run it, and again whenever it ends, until cancelled.

        Raises what trying again does not mend (Refused, Invalid, NotFound) if the service was never ready,
        or at any time if `give_up`.
        """
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began = loop.time()
            try:
                await self._run()
                _log.error("service ended by itself", service=self.kind)
            except ColoniesError as error:
                if isinstance(error, Refused | Invalid | NotFound) and (give_up or not self.ready.is_set()):
                    raise
                _log.error("service ended", service=self.kind, error=str(error))
            except Exception:
                _log.exception("service died of an error that is ours", service=self.kind)
            if loop.time() - began > STEADY_S:
                pause_s = FIRST_PAUSE_S
            _log.info("service starts again", service=self.kind, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _run(self) -> None:
        async with session_of(self._place.url, await self._credential()) as session:
            service = self._make(session)
            with first_error():
                async with asyncio.TaskGroup() as group:
                    beside = [
                        group.create_task(self._announce(service), name=f"{self.kind} ready"),
                        group.create_task(session.ledger.lost(), name=f"{self.kind} connection"),
                        group.create_task(_until_revoked(session), name=f"{self.kind} membership"),
                    ]
                    await service.run()
                    for task in beside:
                        task.cancel()

    def _make(self, session: Session) -> _Running:
        if self.kind == "orchestrator":
            assert isinstance(session.ledger, jetstream.JetStreamLedger)
            return Orchestrator(session, session.ledger.machinery())
        if self.kind == "projector":
            from colonies_projections import VIEWS, Projector, installed_views

            views = (*VIEWS, *installed_views(VIEWS))
            return Projector(session, self._place.views / "views.sqlite", views)
        if self.kind == "http":
            from colonies_projections.http.service import HttpService

            assert self._place.door is not None
            return HttpService(session, self._place.door)
        if self.kind == "webhooks":
            from colonies_projections.webhooks import Webhooks

            path = self._place.views / "webhooks.sqlite"
            return Webhooks(session, path, public_only=self._place.public_only)
        if self.kind == "traces":
            from colonies_projections.traces.exporter import Exporter

            return Exporter(session, self._place.views / "traces.sqlite")
        return _Operator(session, self._place)

    async def _announce(self, service: _Running) -> None:
        await service.ready.wait()
        if not self.ready.is_set():
            _log.info("service ready", service=self.kind)
        self.ready.set()


def exports_traces() -> bool:
    """Is the service `traces` to run beside the others: does the environment say where to? If it cannot, that
    is logged. Raises as `check_endpoint`."""
    from colonies_projections import traces

    if not traces.wanted():
        if (other := traces.unsupported()) is not None:
            _log.warning("no traces are exported", reason=other)
        return False
    check_endpoint()
    if (reason := traces.why_not()) is not None:
        _log.warning("no traces are exported", reason=reason)
        return False
    return True


def check_endpoint() -> None:
    """Raises Invalid: the environment says an endpoint for traces that is none."""
    from colonies_projections import traces

    from colonies.errors import Invalid

    if (wrong := traces.malformed()) is not None:
        raise Invalid(wrong)


async def _until_revoked(session: Session) -> None:
    """Raises Refused once this member is none any more: the ledger says it before the broker does."""
    while True:
        _ = session.role
        await asyncio.sleep(MEMBER_CHECK_S)


async def enrolled(
    url: str, owner: Credential, keys: OwnerKeys, base: str, kind: Kind, folder: Path
) -> Credential:
    """The credential of the member that this service is, enrolled by the owner if need be.

    It is called `base`; where that name is revoked or is another's, `base-2` and so on, since names are
    never used again. Raises Conflict if MAX_SAME_NAME of them are taken.
    """
    async with session_of(url, owner) as session:
        for n in range(1, MAX_SAME_NAME + 1):
            name = base if n == 1 else f"{base}-{n}"
            with contextlib.suppress(Conflict):
                return Credential.read(await founding.enrol(session, keys, name, ROLES[kind], folder))
    raise Conflict(
        f"the names {base} to {base}-{MAX_SAME_NAME} are all taken; revoke none, clean up {folder}"
    )


def host_name() -> str:
    """This host's name as it can stand in a member's: at most 16 of a-z, 0-9 and -."""
    name = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")
    return name[:16].rstrip("-") or "host"


def run_until_stopped(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` until it ends or this process is asked to stop: by Ctrl-C, SIGTERM or SIGHUP.

    Asked to stop, `main` is cancelled and cleans up, and this returns: for a server that is a good end. It
    raises what `main` raises. If cleaning up takes longer than STOP_S, which is a defect, the process ends
    with 1 on the spot, and its reaper stops what it started.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_until_stopped(main))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _until_stopped(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    _on_signals(stop)
    body = asyncio.create_task(main(), name="main")
    asked = asyncio.create_task(stop.wait(), name="asked to stop")
    try:
        await asyncio.wait({body, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        stopped = not body.done()
        body.cancel()
        await asyncio.wait({body}, timeout=STOP_S)
        if not body.done():
            left = sorted({task.get_name() for task in asyncio.all_tasks()})
            _log.error("not stopped in time; ended without cleaning up", waited_s=STOP_S, tasks=left)
            os._exit(1)
        # Who reads our log may be gone before us, as `tee` is after Ctrl-C.
        with contextlib.suppress(asyncio.CancelledError, BrokenPipeError):
            await body
    if stopped:
        with contextlib.suppress(BrokenPipeError):
            _log.info("stopped")


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        for number in (signal.SIGINT, signal.SIGBREAK):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        return
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` means: stay
        terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]
        loop.add_signal_handler(signal.SIGHUP, _hung_up, stop, terminals)


def _hung_up(stop: asyncio.Event, terminals: list[int]) -> None:
    """The terminal is gone: writing to it from now on would be an error in the middle of stopping."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in terminals:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    stop.set()
