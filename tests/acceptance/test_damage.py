"""A damaged ledger: a byte flipped in the stopped broker's files is found, with its sequence."""

from __future__ import annotations

import asyncio
import shutil
import struct
from pathlib import Path

import pytest

from colonies.creds import Credential
from colonies.jetstream import connect
from colonies.verify import Report, verify_ledger
from colonies.witness import recall, remember
from colonies.worker import Worker
from tests.harness import running_colony

PROCESSES = 8


def blocks(store: Path) -> list[Path]:
    return sorted(store.glob("**/streams/LEDGER/msgs/*.blk"), key=lambda path: int(path.stem))


def locate(store: Path, sequence: int) -> tuple[Path, dict[str, tuple[int, int]]]:
    """Where the parts of a stored message stand in the stopped broker's files, as (offset, length).

    A record is: length (high bit: it has headers), sequence, time, length of the subject, subject, length of
    the headers, headers, message, checksum of 8 bytes; little-endian.
    """
    for path in blocks(store):
        data, at = path.read_bytes(), 0
        while at + 22 <= len(data):
            length, number, _, subject_length = struct.unpack_from("<IQQH", data, at)
            size = length & 0x7FFFFFFF
            if number == sequence:
                headers = at + 22 + subject_length
                header_length = struct.unpack_from("<I", data, headers)[0]
                message, end = headers + 4 + header_length, at + size - 8
                return path, {
                    "subject": (at + 22, subject_length),
                    "header": (headers + 4, header_length),
                    "payload": (message, end - 66 - message),
                    "signature": (end - 64, 64),
                }
            at += size
    raise AssertionError(f"sequence {sequence} is in no block file")


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of a colony that did some work and was stopped in good order, and its last sequence."""
    folder = tmp_path_factory.mktemp("colony")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLONIES_DATA_DIR", str(folder / "data"))
        return folder, asyncio.run(_work(folder))


async def _work(folder: Path) -> int:
    worker = Worker("python")

    @worker.function
    def double(n: int) -> int:
        return 2 * n

    async with running_colony(folder) as colony:
        client = await colony.client()
        await colony.work(worker)
        for handle in await client.submit_many([double.call(n) for n in range(PROCESSES)]):
            await handle.result(30)
    async with running_colony(folder, orchestrate=False, found=False) as colony:
        return await colony.owner.ledger.last_sequence()


async def verified(folder: Path) -> Report:
    async with running_colony(folder, orchestrate=False, found=False) as colony:
        ledger = await connect(colony.url, Credential.read(folder / "owner.creds"))
        try:
            return await verify_ledger(ledger, high_water=recall(ledger.colony))
        finally:
            await ledger.close()


async def test_an_undamaged_ledger_has_no_findings(stopped: tuple[Path, int]) -> None:
    folder, last = stopped
    report = await verified(folder)
    assert (report.findings, report.events, report.valid) == ([], last, last)


@pytest.mark.parametrize("part", ["payload", "signature", "subject", "header"])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
async def test_a_flipped_byte_is_named(
    stopped: tuple[Path, int], tmp_path: Path, part: str, place: str
) -> None:
    original, last = stopped
    folder = tmp_path / "colony"
    shutil.copytree(original, folder)
    sequence = {"first": 1, "middle": last // 2, "last": last}[place]
    path, parts = locate(folder / "nats", sequence)
    offset, length = parts[part]
    flip(path, offset + length // 2)

    report = await verified(folder)

    assert not report.clean
    named = {finding.sequence for finding in report.findings if finding.kind in ("missing", "damaged")}
    assert named == {sequence}


async def test_a_tail_that_was_cut_off_is_missed_by_whoever_saw_it(
    stopped: tuple[Path, int], tmp_path: Path
) -> None:
    original, last = stopped
    folder = tmp_path / "colony"
    shutil.copytree(original, folder)
    before = await verified(folder)
    async with running_colony(folder, orchestrate=False, found=False) as colony:
        remember(colony.owner.ledger.colony, before.high_water)
    path, parts = locate(folder / "nats", last - 2)
    offset, length = parts["payload"]
    flip(path, offset + length // 2)
    for index in folder.glob("nats/**/streams/LEDGER/msgs/index.db"):
        index.unlink()  # as after a crash: the broker reads all anew, and cuts at the first bad record

    report = await verified(folder)

    missing = {finding.sequence for finding in report.findings if finding.kind == "missing"}
    assert missing == {last - 2, last - 1, last}
