"""How much of a connection table each source has: so that one of them cannot fill it (Maglev §3.3 says only "full").

A flood from one machine opens more connections than a table has room for, and everybody else's go unrecorded: until
the next change of endpoints that does nothing, then it breaks them. So a source may have a share. Beyond it its new
flows are forwarded all the same, by consistent hashing, and counted; they are not recorded.

A **source** is an IPv4 address, or the first 64 bits of an IPv6 address: of these whoever has one has them all.

What is exact and what is not. Sources are counted in *buckets*, which a keyed hash gives them, because there may be as
many sources as entries and each would need a place of its own. A bucket's count is that of all its sources: a full
table has `ENTRIES_PER_BUCKET` entries to a bucket, so a share should be far above that; and with a key that nobody
knows an attacker cannot choose whose bucket it shares. An entry counts by the *epoch* of its last use, four to an idle
timeout, until that has expired for all of the epoch: so what has expired counts for up to a quarter of an idle timeout
longer, and nothing that lives is ever missed. An entry is never looked for when it expires: its epoch goes, whole.

Left out: a flood from many sources, which looks like many clients; `new_flows_per_s` of a VIP is for that.
"""

from __future__ import annotations

from collections import Counter, defaultdict

DEFAULT_SHARE = 0.5
EPOCHS = 4  # to an idle timeout
ENTRIES_PER_BUCKET = 16  # on average, when the table is full
FEWEST_BUCKETS = 4096  # so that in a small table, too, two sources hardly ever meet
MULTIPLIER, SECOND_MULTIPLIER = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53  # odd and of many bits (MurmurHash3's)
WORD_BITS, HALF_BITS = 64, 32
PREFIX_BYTES = 8  # of an address: a /64


def most_entries(capacity: int, share: float) -> int | None:
    """Returns how many entries of a table one source may have, at least one; None for as many as there are."""
    return None if share >= 1 else max(1, int(capacity * share))


def buckets_for(capacity: int) -> int:
    """Returns how many buckets count the sources of a table."""
    return max(FEWEST_BUCKETS, capacity // ENTRIES_PER_BUCKET)


def bucket_of(source: bytes, key: int, buckets: int) -> int:
    """Returns the bucket of a source (16 bytes), by a hash with a 64-bit key.

    That is multiply-shift (Dietzfelbinger et al., 1997), twice: once, with some keys, would heap up neighbours. An
    IPv4-mapped address begins with eight zeros, and is told by what follows them.
    """
    word = int.from_bytes(source[:PREFIX_BYTES]) or int.from_bytes(source[PREFIX_BYTES:])
    keyed = word * ((MULTIPLIER ^ key) | 1) % (1 << WORD_BITS)
    hashed = (keyed ^ keyed >> HALF_BITS) * SECOND_MULTIPLIER % (1 << WORD_BITS)
    return (hashed >> HALF_BITS) * buckets >> HALF_BITS


class Shares:
    """Counts each source's entries in one table; an epoch is an argument, and never goes back."""

    def __init__(self, most: int, capacity: int, key: int = 0) -> None:
        self.most = most  # entries of one source
        self._buckets, self._key = buckets_for(capacity), key
        self._rows: defaultdict[int, Counter[int]] = defaultdict(Counter)  # bucket: entries by epoch of last use

    def has_room(self, source: bytes, epoch: int) -> bool:
        """Says whether a source may have one more entry."""
        row = self._row(source)
        for gone in [past for past in row if epoch - past > EPOCHS]:
            del row[gone]
        return row.total() < self.most

    def add(self, source: bytes, epoch: int) -> None:
        """Counts a new entry."""
        self._row(source)[epoch] += 1

    def use(self, source: bytes, last: int, epoch: int) -> None:
        """Counts a living entry, last used in the epoch `last`, as used in another."""
        if last != epoch:
            row = self._row(source)
            row[last] -= 1
            row[epoch] += 1

    def _row(self, source: bytes) -> Counter[int]:
        return self._rows[bucket_of(source, self._key, self._buckets)]
