"""A colony of one's own in a folder: its keys, its broker and its services, in one program.

    <folder>/dev.lock   held by the program that runs it, with its pid
             keys/      the operator's and the owner's keys
             members/   credentials: owner, each service's, and whom `worker start` enrols
             nats/      the broker's: the ledger, its log, account tokens
             views/     what the projector derives, and what webhooks are still to hear

Every step of the first creation is whole or not there, and each start does those that are missing, so a
program killed at any point is just started again. Services stop first, the broker last. Nothing here is
for real deployments: there the operator, the owner and the broker live on machines of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import structlog
from colonies_projections.http.door import DEFAULT_PORT, Door, Listen, open_door

from colonies import founding
from colonies.contexts import Context
from colonies.creds import Credential
from colonies.errors import ColoniesError, Invalid, NotFound, Unavailable
from colonies.nkeys import KeyPair
from colonies.operator import Keyring
from colonies.reaper import Reaper
from colonies.server import EmbeddedServer, port_holder
from colonies.tasks import first_error
from colonies_cli.advertising import LOCK, Advertised
from colonies_cli.services import Kind, Place, Service, enrolled, exports_traces

NAME = "dev"  # of the colony
DEFAULT_LEASE_S = 10.0
PREVIOUS_BROKER_S = 10.0  # a killed program's broker is killed by its reaper; it may take a moment
POLL_S = 0.05
BROKER_STARTS_MAX = 5
TEMPORARY = "colonies-dev-"
ABANDONED_S = 60.0
KINDS: tuple[Kind, ...] = ("orchestrator", "projector", "webhooks", "operator", "http")

_log = structlog.get_logger("colonies.dev")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is asked for. Ports 0: any free one; `lease_s` None: the colony's own; `http_port` None: the
    usual one, or any free one if that is taken."""

    port: int
    lease_s: float | None
    sync: str
    http_port: int | None = None


class Broker:
    """The embedded nats-server, which is started again at the same port when it dies."""

    def __init__(self, folder: Path, keyring: Keyring, reaper: Reaper, *, port: int, sync: str) -> None:
        self._folder = folder
        self._keyring = keyring
        self._reaper = reaper
        self._port = port
        self._sync = sync
        self._server: EmbeddedServer | None = None

    async def __aenter__(self) -> Self:
        check_port(self._port)
        server = await self._start()
        self._port = int(server.url.rpartition(":")[2])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.stop()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self._port}"

    async def keep(self) -> None:
        """Start it again whenever it dies, until cancelled. Raises Unavailable if that fails too often."""
        while True:
            assert self._server is not None
            code = await self._server.wait()
            _log.error(
                "nats-server died; it is started again", exit_code=code, log=str(self._server.log_file)
            )
            await self._server.stop()
            await self._start_again()

    async def _start(self) -> EmbeddedServer:
        operator, account = self._keyring.operator, self._keyring.owner.account.public
        server = EmbeddedServer(
            self._folder,
            operator_jwt=operator.operator_jwt(),
            system_account=operator.system_account,
            accounts={
                operator.system_account: operator.system_jwt(),
                account: self._keyring.account_jwt(),
            },
            port=self._port or -1,
            sync_interval=self._sync,
            reaper=self._reaper,
        )
        await server.start()
        self._server = server
        return server

    async def _start_again(self) -> None:
        for n in range(1, BROKER_STARTS_MAX + 1):
            try:
                await self._start()
            except Unavailable as error:
                if n == BROKER_STARTS_MAX:
                    raise
                _log.warning("nats-server did not start", error=str(error), tries=n)
                await asyncio.sleep(0.2 * 2**n)
            else:
                _log.info("nats-server is back", url=self.url)
                return


class Home:
    """The colony in `folder`. `run` is all of its life."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self._settings = settings
        self._members = folder / "members"

    async def run(self, started: Callable[[Context, str], None]) -> None:
        """Run it until cancelled; `started` is called once everything is ready, also with the URL of HTTP.

        Raises Unavailable (the folder or the port is in use, the broker does not start), Invalid (keys that
        cannot be read or written).
        """
        keyring = self._keyring()
        await _gone(self.folder / "nats")
        with http_door(self._settings.http_port) as door:
            async with (
                Reaper() as reaper,
                Broker(
                    self.folder / "nats", keyring, reaper, port=self._settings.port, sync=self._settings.sync
                ) as broker,
            ):
                await self._run(keyring, broker, door, started)

    async def _run(
        self, keyring: Keyring, broker: Broker, door: Door, started: Callable[[Context, str], None]
    ) -> None:
        owner = self._owner(keyring)
        await founding.found(broker.url, keyring.owner, owner, name=NAME, lease_s=self._settings.lease_s)
        place = Place(broker.url, self.folder / "views", keyring.operator, keyring.owner, door)
        place.views.mkdir(mode=0o700, exist_ok=True)
        kinds: tuple[Kind, ...] = (*KINDS, "traces") if exports_traces() else KINDS
        services = [Service(kind, place, partial(self._member, broker.url, keyring, kind)) for kind in kinds]
        with first_error():
            async with asyncio.TaskGroup() as group:
                group.create_task(broker.keep(), name="broker")
                for service in services:
                    group.create_task(service.keep(), name=service.kind)
                for service in services:
                    await service.ready.wait()
                started(self._context(broker.url), door.url)

    def _keyring(self) -> Keyring:
        keys = self.folder / "keys"
        return Keyring.open(keys) if keys.exists() else Keyring.create(keys)

    def _owner(self, keyring: Keyring) -> Credential:
        """The owner's credential: its key is on disk before the genesis names it."""
        path = self._members / "owner.creds"
        try:
            return Credential.read(path)
        except NotFound:
            key = KeyPair.new("user")
            Credential.of(keyring.owner.mint("owner", "owner", key.public), key).write(path)
            return Credential.read(path)

    async def _member(self, url: str, keyring: Keyring, kind: Kind) -> Credential:
        # The owner's credential is read each time: its key may have been changed meanwhile.
        return await enrolled(url, self._owner(keyring), keyring.owner, kind, kind, self._members)

    def _context(self, url: str) -> Context:
        return Context(
            NAME,
            url,
            str(self._members / "owner.creds"),
            str(self.folder / "keys" / "owner"),
            str(self._members),
        )


# --- the folder --------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder is ours while this lasts. Raises Unavailable, naming the pid of whoever has it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="ascii")
    except OSError as error:
        raise Invalid(f"{folder} cannot be used: {error.strerror}; name another with --dir") from None
    with file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                pid = file.read().strip()
                raise Unavailable(
                    f"{folder} is in use by a `colonies dev` with pid {pid or 'unknown'}. Stop that, or run "
                    f"a second colony: {command(dir=str(folder) + '-2', port='0')}"
                ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A new folder that is gone afterwards; those that killed programs left go as well."""
    base = Path(tempfile.gettempdir())
    for left in base.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError, ColoniesError):
            if left.stat().st_uid == os.getuid() and time.time() - left.stat().st_mtime > ABANDONED_S:
                with locked(left):
                    shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _gone(nats: Path) -> None:
    """Wait until the broker of a killed program before us has left the folder."""
    if sys.platform == "win32" or not (nats / "lock").exists():
        return None
    import fcntl

    with (nats / "lock").open("ab") as file, contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PREVIOUS_BROKER_S):
            while True:
                with contextlib.suppress(BlockingIOError):
                    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                await asyncio.sleep(POLL_S)


# --- the port ----------------------------------------------------------------------------------------


def check_port(port: int) -> None:
    """Raises Unavailable if somebody listens there: who, and the exact command with a free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return
        except OSError as error:
            taken = error
    if taken.errno == errno.EACCES:
        raise Unavailable(f"port {port} needs more rights than you have. {_free_port()}")
    if taken.errno != errno.EADDRINUSE:
        raise Unavailable(f"port {port} cannot be used: {taken.strerror}. {_free_port()}")
    holder = port_holder(port) or "another program"
    raise Unavailable(f"port {port} is taken by {holder}. Stop that, or: {_free_port()}")


def http_door(port: int | None) -> Door:
    """A port on 127.0.0.1 for HTTP; None: the usual one, or any if that is taken. Raises Unavailable."""
    listen = Listen(port=DEFAULT_PORT if port is None else port)
    return open_door(listen, elsewhere=port is None, free="--http-port 0")


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return command(port=str(probe.getsockname()[1]))


def command(**changed: str) -> str:
    """The command line that we were started with, with these options changed, to be pasted into a shell."""
    words = list(sys.argv[1:])
    for name, value in changed.items():
        option = f"--{name}"
        words = [w for i, w in enumerate(words) if w != option and (i == 0 or words[i - 1] != option)]
        words = [w for w in words if not w.startswith(f"{option}=")]
        words += [option, value]
    return shlex.join(["colonies", *words])


async def serve(
    folder: Path, settings: Settings, advertised: Advertised, ready: Callable[[Context, str], None]
) -> None:
    """Run the colony in `folder` until cancelled."""

    def started(context: Context, http: str) -> None:
        ready(advertised.save(folder, context), http)

    with advertised, locked(folder):
        await Home(folder, settings).run(started)
