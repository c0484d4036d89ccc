"""Who has been heard, and until when a lease binds. Soft state: never kept, rebuilt with care.

Two clocks, one rule: the holder counts a lease from when it *sent* the heartbeat, the granter from
when it *answered*, which is later. So the holder's lease always ends first, whatever the network
does; clocks need not agree, only run at the same speed within ``DRIFT``.
"""

from msgspec import Struct

DRIFT = 0.1
"""How much faster one machine's clock may run than another's, as a fraction; generous."""
LAST_LOOK_MS = 1000
"""A holder that hangs is ended by another process of its machine, which may be late by this."""
REMEMBERED_HEARTBEATS = 64


class Holder(Struct):
    """The side that may run things only while its lease lasts."""

    until_ms: int = 0
    duration_ms: int = 0
    """Of the newest lease; of a recovered one, what was left."""
    next_sequence: int = 0
    heartbeat_at_ms: int = 0
    sent_ms: dict[int, int] = {}

    def attached(self, now_ms: int) -> None:
        """A new session: its Hello is heartbeat number 0."""
        self.sent_ms = {0: now_ms}
        self.next_sequence = 1
        self.heartbeat_at_ms = now_ms

    def beat(self, now_ms: int) -> int:
        """Note that a heartbeat is being sent; its number."""
        sequence = self.next_sequence
        self.next_sequence += 1
        self.heartbeat_at_ms = now_ms
        self.sent_ms[sequence] = now_ms
        while len(self.sent_ms) > REMEMBERED_HEARTBEATS:
            del self.sent_ms[next(iter(self.sent_ms))]
        return sequence

    def granted(self, sequence: int, duration_ms: int) -> bool:
        """A lease came; whether it lengthens what is held. An answer to nothing sent is void."""
        sent_ms = self.sent_ms.get(sequence)
        if sent_ms is None or sent_ms + duration_ms <= self.until_ms:
            return False
        self.until_ms = sent_ms + duration_ms
        self.duration_ms = duration_ms
        return True

    def recovered(self, now_ms: int, remaining_ms: int) -> None:
        """A lease written down before a restart still has so long to go, or ended so long ago."""
        self.until_ms = now_ms + remaining_ms
        self.duration_ms = max(0, remaining_ms)

    def margin_ms(self, wanted_ms: int) -> int:
        """How long before the end to act: as wanted, but a short lease must leave time to run."""
        return min(wanted_ms, self.duration_ms // 3)

    def is_valid(self, now_ms: int) -> bool:
        return now_ms < self.until_ms

    def is_fresh(self, now_ms: int, heartbeat_ms: int) -> bool:
        """Whether two thirds of it will still be to come at the next heartbeat: then it need not
        be renewed by this one.

        The holder knows what it holds, so a lost answer is asked for again a heartbeat later.
        """
        return self.until_ms - now_ms - heartbeat_ms >= self.duration_ms * 2 // 3 > 0


class Peer(Struct):
    """What the granting side knows of one holder."""

    heard_ms: int
    granted_until_ms: int
    """No lease that this side has granted lasts longer, by this side's clock."""
    attached: bool = False

    def grant(self, now_ms: int, duration_ms: int) -> None:
        self.heard_ms = now_ms
        self.granted_until_ms = max(self.granted_until_ms, now_ms + duration_ms)

    def surely_ended(self, now_ms: int, duration_ms: int) -> bool:
        """Whether the holder's lease has ended for certain, and all that ran under it."""
        return now_ms > self.ends_ms(duration_ms)

    def ends_ms(self, duration_ms: int) -> int:
        """After this the lease has surely ended, unless it is renewed."""
        return self.granted_until_ms + int(duration_ms * DRIFT) + LAST_LOOK_MS
