"""`python -m tests.fuzz [TARGET...] [--seconds S]`: fuzz, each target in a program of its own.

`python -m tests.fuzz TARGET FILE` runs one input again, without the fuzzer: a finding shows its traceback.
Findings and what was learned are kept in build/fuzz. Exits with 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

BUILD = Path(__file__).parents[2] / "build" / "fuzz"
TIMEOUT_S = 10  # for one input
MAX_RSS_MB = 1_024  # for a whole program; Python, instrumented, takes about 150 of them
MAX_LEN_BYTES = 16_384
START_S = 60.0  # importing, instrumenting, the corpus of earlier runs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all if none")
    parser.add_argument("--seconds", type=float, default=120, help="for all targets together (120)")
    given = parser.parse_args()
    if len(given.names) == 2 and given.names[1] not in TARGETS and Path(given.names[1]).is_file():
        TARGETS[given.names[0]](Path(given.names[1]).read_bytes())
        print(f"{given.names[0]}: {given.names[1]} is no finding (any more)")
        return 0
    for name in given.names:
        if name not in TARGETS:
            parser.error(f"there is no target {name!r}; there are {', '.join(TARGETS)}")
    names = given.names or list(TARGETS)
    each_s = max(1, round(given.seconds / len(names)))
    print(f"{len(names)} targets, {each_s} s each")
    try:
        found = [finding for name in names for finding in fuzz(name, each_s)]
    except KeyboardInterrupt:
        return 130
    for name, path in found:
        print(f"FOUND {name}: see it with `.venv/bin/python -m tests.fuzz {name} {path}`")
    print(f"{len(found)} findings" if len(found) != 1 else "1 finding")
    return 1 if found else 0


def fuzz(name: str, seconds: int) -> list[tuple[str, Path]]:
    """Fuzz one target; the files of its new findings."""
    corpus, findings = BUILD / "corpus" / name, BUILD / "findings" / name
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    before = set(findings.iterdir())
    options = {
        "max_total_time": seconds,
        "timeout": TIMEOUT_S,
        "rss_limit_mb": MAX_RSS_MB,
        "max_len": MAX_LEN_BYTES,
        "artifact_prefix": f"{findings}/",
        "print_final_stats": 1,
    }
    command = [sys.executable, "-m", "tests.fuzz.one", name, *(f"-{k}={v}" for k, v in options.items())]
    started = time.monotonic()
    log = BUILD / f"{name}.log"
    with log.open("wb") as file:
        running = subprocess.Popen([*command, str(corpus)], stdout=file, stderr=file)
        try:
            hung = _watch(running, seconds)
        finally:
            running.kill()
            running.wait()
    new = sorted(set(findings.iterdir()) - before)
    if (running.returncode or hung) and not new:
        new = [log]  # it could not start, or ended without a word: the log says more
    text = log.read_text(errors="replace")
    executed = re.findall(r"stat::number_of_executed_units: *(\d+)", text) or re.findall(
        r"^#(\d+)", text, re.M
    )
    covered = re.findall(r"cov: (\d+)", text) or ["0"]
    rss = re.findall(r"rss: (\d+)Mb", text) or ["0"]
    executions = int(executed[-1]) if executed else 0
    outcome = f"{len(new)} NEW FINDINGS" if new else "nothing found"
    print(
        f"{name:14}{executions:>11,} executions {time.monotonic() - started:6.0f} s  "
        f"{covered[-1]:>6} branches {rss[-1]:>5} MB  {outcome}",
        flush=True,
    )
    return [(name, path) for path in new]


def _watch(running: subprocess.Popen[bytes], seconds: int) -> bool:
    """Wait for its end; True if it had to be ended."""
    try:
        running.wait(seconds + START_S + TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
