"""One daemon in the seeded world: a production machine, a disk that survives it, and a clock."""

from collections.abc import Callable
from typing import Any, Protocol

from hyperion.control.machine import Outcome


class Machine(Protocol):
    """What the driver of a real daemon needs too."""

    wants_round: bool

    def handle(self, event: Any, now_ms: int) -> Outcome: ...
    def round(self, now_ms: int) -> Outcome: ...
    def resume(self, now_ms: int) -> Outcome: ...
    def restore(self, items: Any, now_ms: int) -> None: ...
    def writes(self) -> dict[str, bytes | None]: ...


class Process:
    """Keeps, then acts; can be killed between any two steps, and started again from its disk."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Machine],
        perform: Callable[["Process", Any], None],
        rate: float = 1.0,
        offset_ms: int = 0,
    ) -> None:
        self.name = name
        self.make = make
        self.perform = perform
        self.rate = rate
        self.offset_ms = offset_ms
        self.disk: dict[str, bytes] = {}
        self.lease_until_ms: int | None = None
        """The lease file, in the world's time."""
        self.machine = make()
        self.alive = False
        self.incarnation = 0
        self.steps = 0
        self.records: list[Any] = []

    def local_ms(self, now_ms: int) -> int:
        """This process's own clock: it may be off, and run fast or slow."""
        return self.offset_ms + int(now_ms * self.rate)

    def start(self, now_ms: int) -> None:
        self.incarnation += 1
        self.alive = True
        self.machine = self.make()
        self.machine.restore(sorted(self.disk.items()), self.local_ms(now_ms))

    def kill(self) -> None:
        self.alive = False

    def step(self, event: Any, now_ms: int, dies: Callable[[], int]) -> None:
        """Handle one event and the round it asks for. ``dies`` says 0 live, 1 die before keeping,
        2 die after keeping and before acting."""
        local_ms = self.local_ms(now_ms)
        outcomes = [self.machine.handle(event, local_ms)]
        if self.machine.wants_round:
            outcomes.append(self.machine.round(local_ms))
        self.carry(outcomes, dies())

    def carry(self, outcomes: list[Outcome], fate: int) -> None:
        self.steps += 1
        for outcome in outcomes:
            for command in outcome.early:
                self.perform(self, command)
        if fate == 1:
            self.kill()
            return
        for path, value in self.machine.writes().items():
            if value is None:
                self.disk.pop(path, None)
            else:
                self.disk[path] = value
        for outcome in outcomes:
            self.records += outcome.records
        if fate == 2:
            self.kill()
            return
        for outcome in outcomes:
            for command in outcome.commands:
                self.perform(self, command)
