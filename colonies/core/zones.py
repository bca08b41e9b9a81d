"""The time zones of the world, as the package `tzdata` has them.

Never those of the machine: whether a run was due must not depend on who reads it. What this module reads is
part of the program, like its own text.
"""

from __future__ import annotations

import io
import pkgutil
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo

from colonies.core.names import shown
from colonies.errors import Invalid


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """The names of all zones."""
    listed = pkgutil.get_data("tzdata", "zones")
    assert listed is not None
    return frozenset(listed.decode("ascii").split())


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """The zone of this name. Raises Invalid, with the names that are near."""
    if name not in zone_names():
        raise Invalid(f"there is no time zone {shown(name)}{_near(name)}")
    data = pkgutil.get_data("tzdata", f"zoneinfo/{name}")
    assert data is not None
    return ZoneInfo.from_file(io.BytesIO(data), key=name)


def _near(name: str) -> str:
    """What may have been meant: `berlin`, `europe/berlin`, `Europe/Berlyn`."""
    said = name[:64].strip().lower().replace(" ", "_")
    by_lower = {known.lower(): known for known in sorted(zone_names())}
    by_city = {known.rpartition("/")[2]: full for known, full in by_lower.items() if "/" in known}
    if said in by_city:
        return f"; did you mean {by_city[said]}?"
    near = [by_lower[found] for found in get_close_matches(said, list(by_lower), n=3)]
    near = near or [by_city[found] for found in get_close_matches(said, list(by_city), n=3)]
    return f"; did you mean {' or '.join(near)}?" if near else '; allowed: a name such as "Europe/Berlin"'
