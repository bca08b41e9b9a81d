"""The digest by which a worker says which code it runs."""

from __future__ import annotations

import functools
import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from colonies import Worker
from colonies.code import code_digest
from colonies.codec import data_of
from colonies.core.events import EVENT, Assigned
from colonies.ids import new_id


def made(source: str) -> object:
    """A function without a file."""
    found: dict[str, object] = {}
    exec(source, found)
    return found["f"]


def test_it_is_that_of_the_file_which_defines_the_function() -> None:
    here = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert code_digest(made) == here
    assert code_digest(functools.partial(made, "")) == here

    @functools.wraps(hashlib.sha256)
    def around() -> None: ...

    del around.__wrapped__  # type: ignore[attr-defined]
    assert code_digest(around) == here


def test_it_changes_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "changing_shop.py"
    digests = set()
    for line in ("return 1", "return 22"):
        path.write_text(f"def f():\n    {line}\n")
        sys.modules.pop("changing_shop", None)
        importlib.invalidate_caches()
        digests.add(code_digest(importlib.import_module("changing_shop").f))
    assert len(digests) == 2


def test_without_a_file_it_is_that_of_the_compiled_code() -> None:
    one, same = made("def f(n):\n return n + 1"), made("\n\ndef f(n):\n  return n + 1")
    other, inner = made("def f(n):\n return n + 2"), made("def f(n):\n return [lambda: n for _ in range(2)]")
    digests = [code_digest(each) for each in (one, same, other, inner)]  # type: ignore[arg-type]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert all(len(digest or "") == 64 for digest in digests)


def test_what_has_no_code_has_none() -> None:
    assert code_digest(len) is None


def test_a_worker_knows_it_by_the_name_of_the_function() -> None:
    worker = Worker("python")

    @worker.function(name="twice")
    def double(n: int) -> int:
        return 2 * n

    assert worker.code_of("twice") == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert worker.code_of("double") is None


def test_an_attempt_without_it_is_written_as_it_always_was() -> None:
    event = Assigned(new_id(), 10.0, "i1")
    assert set(data_of(event)) == {"offer", "lease_s", "instance"}
    assert EVENT.validate_python({"type": event.type, **data_of(event)}) == event
    with pytest.raises(ValueError, match="code"):
        EVENT.validate_python({"type": event.type, **data_of(event), "code": "abc"})
