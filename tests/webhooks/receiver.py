"""A receiver of webhooks in a process of its own: `python receiver.py PORT FOLDER`.

What it answers is the first word of the path: `/ok`, `/status/500`, `/fails/2` (the first two tries of each
id), `/slow/0.5`, `/later/2` (429 and Retry-After, the first time only), `/redirect` (to `/ok`), `/file` (the
status in the file `status`), `/endless` (a body that never ends), `/mute` (no answer at all). Each request is
a line of JSON in the file `requests`, written before it is answered.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[2])
SEEN: Counter[str] = Counter()
LOCK = threading.Lock()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer goes out in one piece

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with LOCK:
            id = self.headers["webhook-id"]
            SEEN[id] += 1
            SEEN[""] += 1
            tries, all = SEEN[id], SEEN[""]
            headers = {name.lower(): value for name, value in self.headers.items()}
            line = {"path": self.path, "headers": headers, "body": body.decode(), "at": time.time()}
            with (FOLDER / "requests").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        kind, *given = self.path.strip("/").split("/")
        if kind == "slow":
            time.sleep(float(given[0]))
        if kind == "mute":
            time.sleep(3_600)
        if kind == "endless":
            self.endless()
            return
        self.answer(self.status(kind, given, tries), kind, given, all)

    do_GET = do_POST

    def status(self, kind: str, given: list[str], tries: int) -> int:
        match kind:
            case "status":
                return int(given[0])
            case "fails":
                return 500 if tries <= int(given[0]) else 200
            case "later":
                return 429 if SEEN[""] == 1 else 200
            case "redirect":
                return 307
            case "file":
                return int((FOLDER / "status").read_text())
        return 200

    def answer(self, status: int, kind: str, given: list[str], all: int) -> None:
        self.send_response(status)
        if kind == "later" and status == 429:
            self.send_header("retry-after", given[0])
        if kind == "redirect":
            self.send_header("location", "/ok")
        said = b"a secret of this network"
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def endless(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(10**12))
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65_536)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
