"""A function that raised: its error names the user's own line, and its traceback is in the process's log."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies.core.names import name as checked_name
from colonies.errors import ProcessFailed
from colonies.logs import read_logs
from colonies.memory_colony import MemoryClient
from colonies.raised import MAX_TRACEBACK_CHARS, described, traceback_of

RAISING = {"runtimetype": "raising"}
worker = colonies.Worker("raising", concurrency=1)


@worker.function
def parse(text: str) -> Any:
    secret = "not for the log"
    return json.loads(text) if secret else None


@worker.function
async def chained() -> None:
    try:
        json.loads("{bad")
    except ValueError as error:
        raise RuntimeError("the settings are damaged") from error


@worker.function
def final() -> None:
    raise colonies.Fail("never again")


@worker.function(maxexectime=0.2)
def endless() -> None:
    colonies.signal("never").wait()


@worker.function
def leave() -> None:
    raise SystemExit(3)


@pytest.fixture
async def colony() -> AsyncIterator[MemoryClient]:
    async with colonies.memory() as colony:
        await colony.work(worker)
        yield colony


async def ended(colony: MemoryClient, call: Any) -> tuple[str, str]:
    """The error, and what stands in the log; all of it as stderr."""
    handle = await colony.submit(call)
    with pytest.raises(ProcessFailed) as failed:
        await handle.result(30)
    entries = await read_logs(colony.session, handle.id)
    assert {entry.stream for entry in entries} <= {"stderr"}
    return str(failed.value), "".join(entry.text for entry in entries)


async def test_the_error_names_the_users_own_line_and_not_the_librarys(
    colony: MemoryClient, capsys: pytest.CaptureFixture[str]
) -> None:
    error, log = await ended(colony, parse.call("{bad"))
    assert "JSONDecodeError: Expecting" in error
    assert "(test_tracebacks.py:" in error
    assert error.endswith(" in parse)")
    assert log.startswith("Traceback (most recent call last):\n")
    assert "in raw_decode" in log
    assert "return json.loads(text)" in log
    assert "colonies/execution.py" not in log
    assert "colonies/outcome.py" not in log
    assert "not for the log" not in log
    assert log in capsys.readouterr().err  # on the worker's terminal too


async def test_a_traceback_has_what_the_error_came_from(colony: MemoryClient) -> None:
    error, log = await ended(colony, chained.call())
    assert "RuntimeError: the settings are damaged (test_tracebacks.py:" in error
    assert log.index("JSONDecodeError") < log.index("direct cause") < log.index("RuntimeError: the settings")
    assert "SystemExit: 3" in (await ended(colony, leave.call()))[1]


async def test_what_is_no_fault_of_the_code_has_no_traceback(colony: MemoryClient) -> None:
    assert (await ended(colony, final.call()))[1] == ""
    assert (await ended(colony, endless.call()))[1] == ""
    refused, log = await ended(colony, {"func": "parse", "conditions": RAISING})
    assert "text" in refused
    assert log == ""
    missing, log = await ended(colony, {"func": "nowhere", "conditions": RAISING})
    assert "has no function 'nowhere'" in missing
    assert log == ""


def test_a_traceback_is_bounded() -> None:
    with pytest.raises(ValueError, match="xxx") as raised:
        raise ValueError("x" * 100_000)
    text = traceback_of(raised.value)
    assert text is not None
    assert len(text) <= MAX_TRACEBACK_CHARS
    assert text.startswith("Traceback")
    assert "characters of the traceback left out]" in text


def test_code_that_is_installed_is_named_only_if_there_is_no_other(tmp_path: Path) -> None:
    path = tmp_path / "site-packages" / "shop.py"
    path.parent.mkdir()
    path.write_text("def sell():\n    raise KeyError('tea')\n")
    spec = importlib.util.spec_from_file_location("shop", path)
    assert spec is not None
    assert spec.loader is not None
    shop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shop)
    with pytest.raises(KeyError) as raised:
        shop.sell()
    error = raised.value
    assert described(error).startswith("KeyError: 'tea' (test_tracebacks.py:")
    assert error.__traceback__ is not None
    assert described(error.with_traceback(error.__traceback__.tb_next)).endswith("(shop.py:2 in sell)")


async def test_what_we_raise_ourselves_has_none_by_way_of_a_thread_either() -> None:
    """A command that fails is no news of anybody's Python."""
    with pytest.raises(colonies.ColoniesError) as raised:
        await asyncio.to_thread(checked_name, "no name", "here")
    frames = raised.value.__traceback__
    assert frames is not None
    assert traceback_of(raised.value.with_traceback(frames.tb_next)) is None
