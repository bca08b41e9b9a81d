"""What listens at an address may answer anything: it is said what was wrong, and sending goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from colonies_projections.webhooks.sending import open_sender

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
LATER = b"HTTP/1.1 429 Too Many\r\nretry-after: %s\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The address of what answers each request so, and ends the connection."""

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(answered, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00",
        b"banana\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 -200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzzz\r\nnot chunked",
        b"HTTP/1.1 500 \xff\xfe\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n",
        *(LATER % given for given in (b"", b"soon", b"-1", b"9" * 400, b"Mon, 99 Foo 99999999999999 0:0:0")),
    ],
)
async def test_an_answer_that_is_no_good_is_a_failure_with_a_reason(answer: bytes) -> None:
    async with answering(answer) as url, open_sender(wait_s=10) as sender:
        outcome = await sender.send(url, bytes(32), "evt_1", b"{}")
    assert outcome.error
    assert "ours" not in outcome.error
    assert len(outcome.error) < 300
    assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s <= 86_400


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 202 Accepted\r\n\r\nnever mind",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\ncut off",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nset-cookie: a=b; domain=.example\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_an_answer_that_begins_well_is_a_success_whatever_follows(answer: bytes) -> None:
    async with answering(answer) as url, open_sender(wait_s=10) as sender:
        for _ in range(2):
            outcome = await sender.send(url, bytes(32), "evt_1", b"{}")
            assert outcome.error is None
            assert outcome.status is not None
