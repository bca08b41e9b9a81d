"""What services answer is anybody's word until it is read."""

from __future__ import annotations

import pytest

from colonies.errors import Unavailable
from colonies.link import read_answer


def test_an_answer_is_an_object() -> None:
    assert read_answer(b'{"items": []}', "query.x") == {"items": []}


@pytest.mark.parametrize("data", [b"", b"junk", b"[]", b"\xff", b"[" * 100_000, b"9" * 5_000])
def test_what_is_no_answer_of_ours_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(Unavailable, match="is no service of ours"):
        read_answer(data, "query.x")
