"""A terminal may be closed at any moment; whoever writes to it goes on."""

from __future__ import annotations

import errno
import io

import pytest
from colonies_cli.dev import _put
from colonies_cli.logging import Unfailing


class Gone(io.StringIO):
    """A stream that takes nothing any more."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, "gone")

    def flush(self) -> None:
        raise OSError(self._number, "gone")


def test_a_log_whose_reader_left_raises_nothing() -> None:
    stream = Unfailing(Gone(errno.EPIPE))
    assert stream.write("said") == 4
    stream.flush()


def test_a_closed_terminal_is_no_error_and_a_full_disk_is() -> None:
    _put("ready", Gone(errno.EIO))
    with pytest.raises(OSError, match="gone"):
        _put("ready", Gone(errno.ENOSPC))


def test_a_line_is_written_in_one_piece() -> None:
    pieces: list[str] = []

    class Pieces(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    _put("ready nats://127.0.0.1:4222\n", Pieces())
    assert pieces == ["ready nats://127.0.0.1:4222\n"]
