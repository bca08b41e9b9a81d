"""What all tests share: nothing of the user's own contexts and data is ever touched."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts its background deaf to SIGINT, and every child inherits it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast this machine is right now is no property of ours.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The simulator goes first: it takes what time of the processors the tests that wait leave."""
    items.sort(key=lambda item: "simulator" not in item.path.parts)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts, keys and witness files of a test are its own."""
    monkeypatch.setenv("COLONIES_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("COLONIES_DATA_DIR", str(tmp_path / "data"))
    for name in ("COLONIES_CONTEXT", "COLONIES_URL", "COLONIES_CREDS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def logging_stays() -> Iterator[None]:
    """Loggers keep what they are first used with: whoever sets logging up does so in a process of its own."""
    before = structlog.get_config()
    yield
    assert structlog.get_config() == before


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[None]:
    """A colony of `colonies dev`, whose context is in use."""
    command = [Path(sys.executable).with_name("colonies"), "dev", "--port", "0"]
    with (tmp_path / "dev.log").open("w") as log:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert running.stdout is not None
    try:
        ready = running.stdout.readline()
        assert ready.startswith("ready "), (tmp_path / "dev.log").read_text()
        yield
    finally:
        running.terminate()
        running.wait(60)
        running.stdout.close()
