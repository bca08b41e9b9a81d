"""What the tests of projections share: a running colony, and a ledger with some life on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import RunningColony, running_colony


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path, lease_s=2.0) as colony:
        yield colony
