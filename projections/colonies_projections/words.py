"""Words as SQLite's index of text has them: where one begins and ends is the index's to say.

Python knows letters that it does not. What Python takes for one word may be two to it, and an index that
keeps no places of words refuses two in a row.
"""

from __future__ import annotations

import contextlib
import sqlite3

MAX_SEARCHED_WORDS = 10

_TABLES = """
CREATE VIRTUAL TABLE said USING fts5(words, content='');
CREATE VIRTUAL TABLE told USING fts5vocab(said, instance);
"""


def words(text: str) -> str:
    """What is searched for, as `MATCH` takes it: all of the words, each of them or its beginning.

    Raises ValueError, with what would be right: there is no word in it.
    """
    found = _words(text)
    if not found:
        raise ValueError("words of letters or digits")
    return " ".join(f'"{word}"*' for word in found)


def _words(text: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_TABLES)
        db.execute("INSERT INTO said (rowid, words) VALUES (1, ?)", (text,))
        told = db.execute('SELECT term FROM told ORDER BY "offset" LIMIT ?', (MAX_SEARCHED_WORDS,))
        return [term for (term,) in told]
