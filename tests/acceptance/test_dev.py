"""`colonies dev` and `colonies server start` as people have them: the installed command, real processes.

Everything waits for facts; the limits are only there so that a hang is a failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from colonies import contexts
from colonies.connection import session_of

SAYHELLO = Path(__file__).parents[2] / "examples" / "sayhello.json"
COLONIES = Path(sys.executable).with_name("colonies")
LIMIT_S = 60.0
POLL_S = 0.02

pytestmark = pytest.mark.timeout(180)


@dataclass
class Running:
    """A `colonies` command that runs until it is stopped. `ready` is the line it said on stdout."""

    popen: subprocess.Popen[str]
    log: Path
    ready: str = ""

    @property
    def url(self) -> str:
        return self.ready.split()[1]

    @property
    def folder(self) -> Path:
        return Path(self.said("folder"))

    def said(self, key: str) -> str:
        """The value of `key=` in the ready line."""
        return next(word for word in shlex.split(self.ready) if word.startswith(f"{key}=")).partition("=")[2]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(LIMIT_S)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a `colonies` command and wait for its ready line; whatever still runs afterwards is killed."""
    started: list[Running] = []

    def start(*arguments: str, ready: bool = True) -> Running:
        log = tmp_path / f"{arguments[0]}-{len(started)}.log"
        with log.open("w") as stderr:
            popen = subprocess.Popen(
                [COLONIES, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        running = Running(popen, log)
        started.append(running)
        if ready:
            assert popen.stdout is not None
            running.ready = popen.stdout.readline()
            assert running.ready.startswith("ready "), log.read_text()
        return running

    yield start
    for running in started:
        with contextlib.suppress(ProcessLookupError):
            running.popen.send_signal(signal.SIGKILL)
        running.popen.wait(LIMIT_S)
        assert running.popen.stdout is not None
        running.popen.stdout.close()


def colonies(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COLONIES, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def done(*arguments: str) -> str:
    """The stdout of a command that must succeed."""
    result = colonies(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def until(fact: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not fact():
        assert time.monotonic() < deadline, f"not after {LIMIT_S:.0f} s: {what}"
        time.sleep(POLL_S)


def family(pid: int) -> dict[int, str]:
    """The living descendants of a process, each with its command line."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(stat.parent.name)] = int(parent)
    found: dict[int, str] = {}
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        for child in new:
            with contextlib.suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
    return found


def alive(processes: dict[int, str]) -> list[str]:
    """Those of the processes that still live, and are not others under their numbers."""
    left = []
    for pid, line in processes.items():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") == line:
                left.append(f"{pid} {line}")
    return left


def broker_pid(folder: Path) -> int:
    return int((folder / "nats" / "nats.pid").read_text())


def submit() -> str:
    """The id of a process that nobody runs."""
    return done("process", "submit", "--spec", str(SAYHELLO), "-o", "name").strip()


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def test_one_line_tells_all_addresses_and_the_context_leads_there(start: Start, tmp_path: Path) -> None:
    dev = start("dev", "--port", "0")

    http = r"http=http://127\.0\.0\.1:\d+"
    assert re.fullmatch(
        rf"ready nats://127\.0\.0\.1:\d+ colony=dev context=dev folder=\S+ {http}\n", dev.ready
    )
    assert dev.folder == tmp_path / "data" / "dev"
    context = contexts.load("dev")
    assert context.url == dev.url
    assert contexts.in_use() == "dev"
    assert contexts.credential_of(context).role == "owner"
    assert dev.stop() == 0
    assert dev.popen.stdout is not None
    assert dev.popen.stdout.read() == ""


def test_a_context_that_the_user_chose_stays_in_use(start: Start) -> None:
    contexts.save(contexts.Context("mine", "nats://elsewhere:4222", "mine.creds"))
    contexts.use("mine")

    dev = start("dev", "--port", "0")

    assert contexts.in_use() == "mine"
    assert "say --context dev, or" in dev.log.read_text()


def test_a_restart_goes_on_with_the_same_ledger(start: Start) -> None:
    first = start("dev", "--port", "0", "--lease", "3s")
    process = submit()
    assert first.stop() == 0

    second = start("dev", "--port", "0")

    (found,) = map(json.loads, done("process", "get", process, "-o", "json").splitlines())
    assert (found["id"], found["state"]) == (process, "waiting")
    assert json.loads(done("ledger", "verify", "-o", "json"))["events"] > 0
    assert second.stop() == 0


async def lease_s() -> float:
    """The lease of the colony in use, as its ledger tells."""
    context = contexts.resolve()
    async with session_of(context.url, contexts.credential_of(context)) as session:
        return session.colony.lease_s


async def test_the_lease_is_the_colonys_own_until_another_is_given(start: Start) -> None:
    for arguments, lease in (((), 10.0), (("--lease", "3s"), 3.0), ((), 3.0), (("--lease=1m",), 60.0)):
        dev = start("dev", "--port", "0", *arguments)
        assert await lease_s() == lease
        assert dev.stop() == 0


@pytest.mark.parametrize("lease", ["1s", "1999ms", "0", "-2s", "25h", "soon", ""])
def test_a_lease_below_two_seconds_or_beyond_sense_is_refused(lease: str, tmp_path: Path) -> None:
    result = colonies("dev", "--port", "0", f"--lease={lease}")

    assert result.returncode == 2
    assert "from 2s to 24h" in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_taken_port_is_named_with_its_holder_and_the_command_that_works(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = colonies("dev", "--port", str(port), "--dir", str(tmp_path / "my colony"))

    assert result.returncode == 6
    assert f"port {port} is taken by " in result.stderr
    if sys.platform == "linux":
        assert f"(pid {os.getpid()})" in result.stderr
    command = re.search(r"colonies dev .*", result.stderr)
    assert command is not None
    words = shlex.split(command[0])
    assert words[:4] == ["colonies", "dev", "--dir", str(tmp_path / "my colony")]
    assert words[4] == "--port"
    with socket.socket() as free:
        free.bind(("127.0.0.1", int(words[5])))


def test_a_second_dev_in_one_folder_says_the_first_ones_pid(start: Start) -> None:
    first = start("dev", "--port", "0")

    second = colonies("dev", "--port", "0")

    assert second.returncode == 6
    assert f"pid {first.popen.pid}" in second.stderr
    assert contexts.load("dev").url == first.url


def test_two_devs_in_two_folders_do_not_meet(start: Start, tmp_path: Path) -> None:
    first = start("dev", "--port", "0", "--dir", str(tmp_path / "one"))
    second = start("dev", "--port", "0", "--dir", str(tmp_path / "two"))

    assert first.url != second.url
    assert first.folder != second.folder


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_however_it_is_stopped(start: Start, number: int) -> None:
    dev = start("dev", "--port", "0")
    children = family(dev.popen.pid)
    assert any("nats-server" in line for line in children.values())

    code = dev.stop(number)

    assert code == (-9 if number == signal.SIGKILL else 0), dev.log.read_text()
    until(lambda: not alive(children), f"gone: {children}")
    again = start("dev", "--port", "0")
    assert again.folder == dev.folder


@linux
def test_closing_its_terminal_leaves_nothing(start: Start, tmp_path: Path) -> None:
    terminal, inner = os.openpty()
    dev = subprocess.Popen(
        [sys.executable, "-c", _IN_TERMINAL, str(COLONIES), "dev", "--port", "0"],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    said = b""
    while b"ready nats://" not in said:
        said += os.read(terminal, 4_096)
    children = family(dev.pid)

    os.close(terminal)

    assert dev.wait(LIMIT_S) == 0
    until(lambda: not alive(children), f"gone: {children}")


# A session that has a terminal hears of its end.
_IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@linux
def test_ephemeral_leaves_nothing(start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))

    dev = start("dev", "--ephemeral", "--port", "0")

    assert dev.folder.parent == temporary
    assert submit()
    assert dev.stop() == 0
    assert list(temporary.iterdir()) == []
    assert contexts.names() == []
    assert contexts.in_use() is None
    assert not (tmp_path / "data").exists()


def test_a_second_colony_leaves_the_context_of_one_that_runs(start: Start, tmp_path: Path) -> None:
    first = start("dev", "--port", "0")
    second = start("dev", "--port", "0", "--dir", str(tmp_path / "dev-2"))
    passing = start("dev", "--ephemeral", "--port", "0")

    assert [dev.said("context") for dev in (first, second, passing)] == ["dev", "dev-2", "ephemeral"]
    assert contexts.load("dev").url == first.url
    assert contexts.load("dev-2").url == second.url
    assert contexts.in_use() == "dev"
    assert "`colonies context use dev-2`" in second.log.read_text()
    id = submit()
    assert colonies("process", "get", id, "--context", "dev-2").returncode == 5
    assert passing.stop() == 0
    assert contexts.names() == ["dev", "dev-2"]
    assert second.stop() == 0
    assert first.stop() == 0
    again = start("dev", "--port", "0", "--dir", str(tmp_path / "dev-2"))
    assert contexts.load(again.said("context")).url == again.url


def test_a_context_dev_that_was_added_by_hand_is_not_written_over(start: Start, tmp_path: Path) -> None:
    creds = tmp_path / "mine.creds"
    creds.write_text("")
    mine = contexts.Context("dev", "nats://elsewhere:4222", str(creds))
    contexts.save(mine)

    dev = start("dev", "--port", "0")

    assert dev.said("context") == "dev-2"
    assert contexts.load("dev") == mine


def test_ephemeral_gives_the_context_of_one_that_does_not_run_back(start: Start) -> None:
    lasting = start("dev", "--port", "0")
    assert lasting.stop() == 0
    passing = start("dev", "--ephemeral", "--port", "0")
    assert contexts.load("dev").url == passing.url

    assert passing.stop() == 0

    assert contexts.load("dev").url == lasting.url
    assert contexts.in_use() == "dev"


POINTS = (
    "dev.lock",
    "keys",
    "nats/nats.pid",
    "members/owner.creds",
    "nats/jetstream",
    "members/projector.creds",
)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_of_its_first_start_it_starts_again(
    start: Start, tmp_path: Path, point: str
) -> None:
    folder = tmp_path / "data" / "dev"
    first = start("dev", "--port", "0", ready=False)
    until((folder / point).exists, point)
    assert first.stop(signal.SIGKILL) == -9

    second = start("dev", "--port", "0")

    process = submit()
    assert json.loads(done("process", "get", process, "-o", "json"))["state"] == "waiting"
    assert second.stop() == 0


@linux
@pytest.mark.parametrize("point", ["keys", "nats/nats.pid", "members/owner.creds"])
def test_stopped_before_it_is_ready_it_stops_cleanly(start: Start, tmp_path: Path, point: str) -> None:
    dev = start("dev", "--port", "0", ready=False)
    until((tmp_path / "data" / "dev" / point).exists, point)
    children = family(dev.popen.pid)

    assert dev.stop(signal.SIGINT) == 0, dev.log.read_text()

    until(lambda: not alive(children), f"gone: {children}")


@linux
def test_a_broker_that_dies_is_started_again_at_the_same_port(start: Start) -> None:
    dev = start("dev", "--port", "0")
    before = submit()
    pid = broker_pid(dev.folder)

    os.kill(pid, signal.SIGKILL)
    until(lambda: "nats-server is back" in dev.log.read_text(), "the broker is back")

    assert broker_pid(dev.folder) != pid
    assert contexts.load("dev").url == dev.url
    after = submit()
    for process in (before, after):
        assert json.loads(done("process", "get", process, "-o", "json"))["state"] == "waiting"
    assert dev.stop() == 0


def test_a_revoked_service_comes_back_as_another_member(start: Start) -> None:
    dev = start("dev", "--port", "0")

    done("member", "revoke", "orchestrator", "--yes")

    until((dev.folder / "members" / "orchestrator-2.creds").exists, "another orchestrator")
    assert dev.stop() == 0


_STUBBORN = """
import asyncio, contextlib
from colonies_cli import services

async def main():
    print("ready", flush=True)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3_600)

services.STOP_S = 0.1
services.run_until_stopped(main)
"""


def test_a_stop_that_hangs_is_cut_short() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as stubborn:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == "ready\n"
        stubborn.send_signal(signal.SIGTERM)
        stubborn.communicate(timeout=LIMIT_S)
    assert stubborn.returncode == 1


# --- colonies server start ---------------------------------------------------------------------------


def test_services_of_an_external_broker_enrol_themselves_by_the_owners_keys(start: Start) -> None:
    start("dev", "--port", "0")

    services = start("server", "start")

    assert services.said("services") == "orchestrator,projector,webhooks,operator"
    members = [json.loads(line) for line in done("member", "ls", "-o", "json").splitlines()]
    assert any(m["name"].startswith("orchestrator-") and m["role"] == "service" for m in members)
    assert any(m["name"].startswith("projector-") and m["role"] == "observer" for m in members)
    assert any(m["name"].startswith("webhooks-") and m["role"] == "observer" for m in members)
    assert services.stop() == 0


def test_one_service_runs_with_a_credential_of_its_own_and_survives_a_kill(
    start: Start, tmp_path: Path
) -> None:
    dev = start("dev", "--port", "0")
    for name, only in (
        ("orchestrator", "orchestrator"),
        ("projector", "projector"),
        ("webhooks", "webhooks"),
        ("projector", "operator"),
    ):
        creds = str(dev.folder / "members" / f"{name}.creds")
        arguments = ("server", "start", "--only", only, "--url", dev.url, "--creds", creds)
        if only == "operator":
            result = colonies(*arguments)
            assert result.returncode == 2
            assert "operator's keys" in result.stderr
            continue
        service = start(*arguments, "--views", str(tmp_path / "views"))
        assert service.said("services") == only
        assert service.stop(signal.SIGKILL) == -9
        assert start(*arguments, "--views", str(tmp_path / "views")).stop() == 0


def test_a_credential_of_the_wrong_role_runs_no_service(start: Start) -> None:
    dev = start("dev", "--port", "0")
    creds = str(dev.folder / "members" / "projector.creds")

    result = colonies("server", "start", "--only", "orchestrator", "--creds", creds)

    assert result.returncode == 2
    assert "role service" in result.stderr
