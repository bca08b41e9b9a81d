"""One colony for the whole folder: attacks come one after the other, and honest work goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.hostile.field import Field, battlefield


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def field(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    async with battlefield(tmp_path_factory.mktemp("field")) as field:
        yield field
