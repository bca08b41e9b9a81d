"""What programs log: what happened, and nothing of what they were trusted with."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import structlog
from colonies_cli import logging
logging.configure("info")
def send(secret):
    raise OSError("no route")
try:
    send("whsec_of_somebody")
except OSError:
    structlog.get_logger("colonies.webhooks").exception("not sent")
"""


def test_an_error_is_logged_without_what_variables_held() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    [line] = done.stderr.splitlines()
    said = json.loads(line)
    assert said["event"] == "not sent"
    assert said["exception"][0]["exc_value"] == "no route"
    assert said["exception"][0]["frames"][-1]["name"] == "send"
    assert "whsec" not in line
