"""Which orders are still unanswered, and who has not been heard of for long: so nothing is lost.

Soft state of the side that orders; after a restart everything counts as just ordered.
"""

from typing import Generic, TypeVar

Id = TypeVar("Id", bound=str)


class Orders(Generic[Id]):
    """Times of the newest order and of the newest word about each living job or replica."""

    def __init__(self, resend_ms: int, silent_ms: int) -> None:
        self._resend_ms = resend_ms
        self._silent_ms = silent_ms
        self._unanswered: dict[Id, int] = {}
        self._heard: dict[Id, int] = {}

    def sent(self, id: Id, now_ms: int) -> None:
        self._unanswered[id] = self._heard[id] = now_ms

    def heard(self, id: Id, now_ms: int) -> None:
        """It answered its newest order."""
        self._unanswered.pop(id, None)
        self._heard[id] = now_ms

    def over(self, id: Id) -> None:
        """Nothing more is expected of it."""
        self._unanswered.pop(id, None)
        self._heard.pop(id, None)

    def late(self, now_ms: int) -> list[Id]:
        """Ordered a while ago, and no answer yet."""
        return [i for i, t in self._unanswered.items() if now_ms - t >= self._resend_ms]

    def silent(self, now_ms: int) -> list[Id]:
        """Answered once, and not heard of since for far too long."""
        before_ms = now_ms - self._silent_ms
        return [i for i, t in self._heard.items() if t <= before_ms and i not in self._unanswered]
