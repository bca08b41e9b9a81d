"""Writes the vectors anew: `python -m tests.vectors`."""

from __future__ import annotations

from tests.vectors.making import FOLDER, made

for name, text in made().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
