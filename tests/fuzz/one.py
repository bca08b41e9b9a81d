"""`python -m tests.fuzz.one TARGET [libFuzzer's options] CORPUS`: one target under the fuzzer.

The code of ours is instrumented as it is imported: what leads to new branches of it is kept and varied.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=["colonies", "colonies_cli", "colonies_projections"], enable_loader_override=False
):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
