"""What the library logs where nobody configured logging: warnings and errors, short and without values."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import colonies, structlog

def send(secret):
    raise OSError("no route")

try:
    send("whsec_" + "x" * 8)
except OSError:
    structlog.get_logger("colonies").exception("not sent")
structlog.get_logger("colonies").info("nobody asked")
"""


def test_an_error_is_told_with_where_it_was_and_without_what_variables_held() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    assert "not sent" in done.stderr
    assert done.stderr.endswith("OSError: no route\n")
    assert "in send" in done.stderr
    assert "xxxxxxxx" not in done.stderr
    assert (done.stdout, "nobody asked" in done.stderr) == ("", False)
