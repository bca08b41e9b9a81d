"""The main job, end to end and for real: what `make demo` shows.

A colony is started in a temporary folder, a worker runs `echo sayhello`, another worker is killed in the
middle of its work and a third finishes it, and the ledger tells and proves all of that. The commands shown
are the ones that are run. Ends with 1 if anything is not as promised, and leaves nothing behind, also after
Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

COLONIES = Path(sys.executable).with_name("colonies")
EXAMPLES = Path(__file__).resolve().parent
WIDTH = 80
LIMIT_S = 60.0
STOP_S = 20.0


class Broken(Exception):
    """Something is not as promised."""


def say(text: str) -> None:
    print("\n" + textwrap.fill(text, WIDTH), flush=True)


def shown(*words: str) -> None:
    print("\n$ " + shlex.join(["colonies", *words]), flush=True)


def echo(text: str) -> None:
    """What a command said, indented; the ends of long lines are left out."""
    for line in text.splitlines():
        line = "  " + line.rstrip()
        print(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…", flush=True)


def colonies(*words: str, quiet: bool = False) -> str:
    """The stdout of a command, which is shown unless `quiet`."""
    if not quiet:
        shown(*words)
    done = subprocess.run(
        [COLONIES, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if not quiet:
        echo(done.stdout)
    if done.returncode:
        raise Broken(f"`colonies {shlex.join(words)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Background:
    """A command that goes on beside the others. `lines` are what it says on stdout."""

    def __init__(self, log: Path, *words: str, name: str = "") -> None:
        shown(*words)
        self.log = log
        self._name = name
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [COLONIES, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        self.lines: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            echo(f"{self._name}: {line.rstrip()}" if self._name else line.rstrip())
            self.lines.put(line)
        self.lines.put(None)

    def wait_for(self, text: str) -> str:
        """The next line that begins with `text`."""
        deadline = time.monotonic() + LIMIT_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self.lines.get(timeout=left)
            except Empty:
                break
            if line is None:
                raise Broken(f"{self._name or 'colonies dev'} ended early:\n{self.log.read_text()}")
            if line.startswith(text):
                return line
        raise Broken(f"{self._name or 'colonies dev'} did not say {text!r} within {LIMIT_S:.0f} s")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_S)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        if self.process.poll() is None:
            self.kill()
        self._reader.join(STOP_S)


@contextlib.contextmanager
def temporary_colony() -> Iterator[tuple[Path, contextlib.ExitStack]]:
    """A folder for all that is written, and what is stopped at the end. The user's own stays untouched."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name, contextlib.ExitStack() as stack:
        for variable in ("COLONIES_CONTEXT", "COLONIES_URL", "COLONIES_CREDS", "COLONIES_LOG"):
            os.environ.pop(variable, None)
        os.environ |= {
            "COLONIES_CONFIG_DIR": f"{name}/config",
            "COLONIES_DATA_DIR": f"{name}/data",
            "XDG_CACHE_HOME": f"{name}/cache",
        }
        os.chdir(EXAMPLES)
        yield Path(name), stack


def ended(process: str) -> dict[str, object]:
    """The process as it is once it is final."""
    return dict(json.loads(colonies("process", "watch", process, "-o", "json", quiet=True).splitlines()[-1]))


def expect(what: str, found: object, promised: object) -> None:
    if found != promised:
        raise Broken(f"{what} is {found!r}, promised is {promised!r}")


def start_worker(folder: Path, stack: contextlib.ExitStack, name: str) -> Background:
    worker = Background(
        folder / f"{name}.log", "worker", "start", "--name", name, "--runtimetype", "cli", name=name
    )
    stack.callback(worker.stop)
    return worker


def demo(folder: Path, stack: contextlib.ExitStack) -> None:
    say("1. A colony of your own: a broker, a signed ledger, its services.")
    dev = Background(folder / "dev.log", "dev", "--port", "0", "--lease", "2s")
    stack.callback(dev.stop)
    dev.wait_for("ready ")

    say("2. Work is a process: what to run, and which kind of worker may run it.")
    print("\n$ cat sayhello.json")
    echo((EXAMPLES / "sayhello.json").read_text())
    hello = colonies("process", "submit", "--spec", "sayhello.json", "-o", "name").strip()

    say("3. A worker takes it. Its command's output is the process's output.")
    worker = start_worker(folder, stack, "testworker")
    worker.wait_for("sayhello")
    expect("the output", ended(hello)["output"], "sayhello")
    colonies("process", "get", hello)

    say("4. Another process takes three seconds. In the middle, its worker is killed ...")
    print("\n$ cat countdown.json")
    echo((EXAMPLES / "countdown.json").read_text())
    countdown = colonies("process", "submit", "--spec", "countdown.json", "-o", "name").strip()
    worker.wait_for("2")
    print(f"\n$ kill -9 {worker.process.pid}", flush=True)
    worker.kill()

    say("... and another worker finishes it, once the lease of 2 s is over.")
    second = start_worker(folder, stack, "helper")
    second.wait_for("done")
    found = ended(countdown)
    expect("the state", found["state"], "successful")
    attempts = found["attempts"]
    assert isinstance(attempts, list)
    expect(
        "who tried",
        [(attempt["worker"], attempt["outcome"]) for attempt in attempts],
        [("testworker", "lost"), ("helper", "successful")],
    )

    say("5. The ledger tells what happened: events, signed by their authors, judged.")
    colonies("process", "history", hello)
    colonies("process", "history", countdown)
    say("6. Whoever may read it can check every signature, chain, role and transition.")
    colonies("ledger", "verify")
    expect("dev", dev.process.poll(), None)


def stop_on_signals() -> None:
    """SIGTERM and SIGHUP end it as Ctrl-C does: with all that was started."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)


def main() -> int:
    stop_on_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    began = time.monotonic()
    try:
        with temporary_colony() as (folder, stack):
            demo(folder, stack)
    except KeyboardInterrupt:
        print("\nInterrupted; everything it started is stopped and removed.", file=sys.stderr)
        return 130
    except (Broken, OSError, subprocess.SubprocessError) as error:
        print(f"\nNot as promised: {error}", file=sys.stderr)
        return 1
    print(
        f"""
That was all of it, in {time.monotonic() - began:.0f} s; everything it made is removed again.

To have `colonies` on your PATH, here in this folder:

    pipx install .          or        uv tool install .

Then try, each in a terminal of its own, in the folder examples:

    colonies dev
    colonies process submit --spec sayhello.json
    colonies worker start --name testworker --runtimetype cli

and read on in README.md."""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
