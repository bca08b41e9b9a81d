"""docs/webhooks.md shows a receiver: it works as it stands, with the commands around it."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
COLONIES = Path(sys.executable).with_name("colonies")


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("dev")
def test_the_pages_receiver_hears_what_the_page_says(tmp_path: Path) -> None:
    section = PAGE.partition("## A receiver\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    add, start, test = re.findall(r"^    (.*)$", section.rpartition("```")[2], re.MULTILINE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    secret = re.findall("whsec_.*", run(add.replace("8000", port)))[0]
    (tmp_path / "receiver.py").write_text(code)
    command = shlex.split(start.replace("whsec_...", secret).replace("8000", port))
    heard: Queue[str] = Queue()
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, *command[1:]], cwd=tmp_path, **streams) as receiver:
        assert receiver.stdout is not None
        reading = threading.Thread(target=lambda: [heard.put(line) for line in receiver.stdout or ()])
        reading.start()
        try:
            until_it_listens(int(port))
            assert "answered 204" in run(test)
            said = re.findall(r"The receiver prints `(.*?)`", section)[0]
            assert heard.get(timeout=60) == f"{said}\n"
            run(f"colonies process submit --spec {ROOT / 'examples' / 'sayhello.json'}")
            assert heard.get(timeout=60).startswith("colonies.process.queued process/")
        finally:
            receiver.kill()
        reading.join(60)


def run(line: str) -> str:
    done = subprocess.run(
        [COLONIES, *shlex.split(line)[1:]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def until_it_listens(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            threading.Event().wait(0.05)
    raise AssertionError("the receiver does not listen")
