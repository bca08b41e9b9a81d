"""A member as the ledger tells it: a name, a role, and the keys that it held, one after the other.

A name is never another's, and a key never a second name's. Which key counts is a matter of the place in the
ledger, so what was said under an old key stays valid for ever, and nothing new is. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from colonies.core.events import Role

SECOND = 1_000_000_000  # ns


@dataclass(frozen=True, slots=True)
class Held:
    """A key, from the sequence of the event that made it count to that of the one that ended it.

    Times are ledger times (ns). `expires`: from this time on it does not count, whatever else happens.
    """

    key: str
    since: int
    since_time: int
    expires: int | None = None
    until: int | None = None
    until_time: int | None = None

    def counts_at(self, sequence: int, time: int) -> bool:
        """Does it count for an event at this sequence, stored at this time?

        It counts for the very event that ends it: a member can revoke itself.
        """
        return (
            self.since < sequence
            and (self.until is None or sequence <= self.until)
            and (self.expires is None or time < self.expires)
        )


@dataclass(frozen=True, slots=True)
class Member:
    """`keys` are all it ever held, the last one last; there is at least one."""

    name: str
    role: Role
    keys: tuple[Held, ...]

    @property
    def key(self) -> str:
        """The key that counts, or counted last."""
        return self.keys[-1].key

    @property
    def since(self) -> int:
        """The sequence of its approval."""
        return self.keys[0].since

    @property
    def since_time(self) -> int:
        return self.keys[0].since_time

    @property
    def until(self) -> int | None:
        """The sequence of its revocation, if it is revoked."""
        return self.keys[-1].until

    @property
    def until_time(self) -> int | None:
        return self.keys[-1].until_time

    @property
    def expires(self) -> int | None:
        """The time (ns) at which it ends by itself, if it does."""
        return self.keys[-1].expires

    def ended_by(self, time: int) -> bool:
        """Is it revoked, or over at this time?"""
        return self.until is not None or (self.expires is not None and time >= self.expires)

    def key_at(self, sequence: int, time: int) -> str | None:
        """The key that must have signed what it says at this place of the ledger; None: it says nothing."""
        for held in reversed(self.keys):
            if held.counts_at(sequence, time):
                return held.key
        return None

    def key_at_time(self, time: int) -> str | None:
        """As `key_at`, for what stands beside the ledger and has no place in it (logs).

        Its first key has no beginning here: two streams may have two clocks.
        """
        later = (held for held in reversed(self.keys[1:]) if held.since_time <= time)
        held = next(later, self.keys[0])
        if held.expires is not None and time >= held.expires:
            return None
        return held.key if held.until_time is None or time <= held.until_time else None

    def ended(self, sequence: int, time: int) -> Member:
        """It, with its last key ended at this place."""
        return replace(self, keys=(*self.keys[:-1], replace(self.keys[-1], until=sequence, until_time=time)))

    def rekeyed(self, key: str, sequence: int, time: int, expires: int | None) -> Member:
        """It, with another key from this place on. `expires` None: the new key ends when the old one did."""
        fresh = Held(key, sequence, time, self.expires if expires is None else expires)
        return replace(self, keys=(*self.ended(sequence, time).keys, fresh))


def time_of(unix_s: int | None) -> int | None:
    """A Unix time in seconds, as tokens have it, as a ledger time (ns)."""
    return None if unix_s is None else unix_s * SECOND


def unix_s_of(time: int | None) -> int | None:
    """The other way round; `time` is a whole number of seconds."""
    return None if time is None else time // SECOND
