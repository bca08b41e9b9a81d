"""What is imported for WebSockets alone is imported once somebody uses one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from colonies.server import find_server

LIMIT_S = 30.0

_CONNECT = """
import asyncio, sys
import colonies, nats
print("aiohttp" in sys.modules)

async def main():
    client = await nats.connect(sys.argv[1])
    await client.flush()
    await client.close()
    import aiohttp.web
    from nats.aio import transport
    print("aiohttp" in sys.modules, transport.aiohttp.ClientSession is aiohttp.ClientSession)

asyncio.run(main())
"""


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def address(folder: Path) -> str:
    """Where the server waits for WebSockets, once it has said so."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        for path in folder.glob("*.ports"):
            with suppress(ValueError):  # not written yet
                (url,) = json.loads(path.read_text())["websocket"]
                return str(url)
        assert time.monotonic() < deadline, "no server here"
        time.sleep(0.02)


def test_a_websocket_works_and_nothing_is_imported_for_it_before(tmp_path: Path) -> None:
    (tmp_path / "ws.conf").write_text(
        f'listen: "127.0.0.1:-1"\nports_file_dir: "{tmp_path}"\n'
        'websocket { listen: "127.0.0.1:-1", no_tls: true }\n'
    )
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([find_server(), "-c", str(tmp_path / "ws.conf")], stderr=log)
    try:
        assert run(_CONNECT, address(tmp_path)) == "False\nTrue True\n"
    finally:
        server.terminate()
        server.wait(LIMIT_S)


def test_what_was_imported_before_is_left_as_it_is() -> None:
    program = "import sys, aiohttp, colonies; print(sys.modules['aiohttp'] is aiohttp, aiohttp.ClientSession)"
    assert run(program) == "True <class 'aiohttp.client.ClientSession'>\n"
