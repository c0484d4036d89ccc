"""How far the jobs of a simulated cluster have come: what runs, how fast, what a stop loses."""

from msgspec import Struct

from hyperion.model.ids import AllocationId, JobId
from hyperion.sim.trace import TraceJob

Key = tuple[JobId, int]
"""A job; of an array, one task of it. -1 where all replicas are one piece of work."""


class Piece(Struct):
    """Work that starts and ends as one: a gang, an elastic job, one task of an array."""

    key: Key
    whole_ms: float
    """At full width, from its beginning."""
    full: int
    """Replicas at full width."""
    elastic: bool
    saves_every_ms: int
    saves_on_stop: bool
    restore_ms: int
    done_ms: float = 0.0
    saved_ms: float = 0.0
    """Of ``done_ms``: what a checkpoint would bring back."""
    since_ms: int = 0
    at_ms: float = 0.0
    """``done_ms`` when this attempt began; checkpoints are counted from there."""
    resting_ms: float = 0.0
    """Time that goes into getting back to the checkpoint before work goes on."""
    running: dict[AllocationId, int] = {}
    """Replicas that run now, and the generation of their order."""
    still: set[AllocationId] = set()
    """Of them those that stand still."""
    starts: int = 0
    turn: int = 0
    """Counts changes of speed; an end that was foreseen before the last one is void."""

    @property
    def speed(self) -> float:
        """1 at full width. A gang waits for its last member; an elastic job is as quick as wide."""
        if self.elastic:
            return (len(self.running) - len(self.still)) / self.full
        return 1.0 if len(self.running) >= self.full and not self.still else 0.0

    def advance(self, now_ms: int) -> None:
        """Count what was done since the last look."""
        passed = (now_ms - self.since_ms) * self.speed
        self.since_ms = now_ms
        rested = min(self.resting_ms, passed)
        self.resting_ms -= rested
        self.done_ms += passed - rested

    def ends_ms(self, now_ms: int) -> int | None:
        """When it will have ended at this speed; None if it stands."""
        if self.speed <= 0:
            return None
        left_ms = self.resting_ms + max(0.0, self.whole_ms - self.done_ms)
        return now_ms + max(1, round(left_ms / self.speed))


class Works:
    """All pieces of all jobs that have ever started."""

    def __init__(self) -> None:
        self._pieces: dict[Key, Piece] = {}

    def join(self, job: TraceJob, rank: int, allocation: AllocationId, now_ms: int) -> Piece:
        """A replica runs from now on."""
        piece = self.piece(job, rank)
        piece.advance(now_ms)
        if not piece.running:
            piece.starts += 1
            piece.at_ms = piece.done_ms
            piece.resting_ms = piece.restore_ms if piece.done_ms else 0
        piece.running[allocation] = piece.running.get(allocation, 0)
        piece.turn += 1
        return piece

    def leave(
        self, job: TraceJob, rank: int, allocation: AllocationId, now_ms: int, abrupt: bool
    ) -> float:
        """A replica has stopped; ``abrupt``: with no time to save. Milliseconds of work (at full
        width) that this has cost, counted when the last one goes."""
        piece = self.piece(job, rank)
        if allocation not in piece.running:
            return 0.0
        piece.advance(now_ms)
        del piece.running[allocation]
        piece.still.discard(allocation)
        piece.turn += 1
        if piece.running:
            return 0.0
        kept = _kept_ms(piece, abrupt)
        lost, piece.done_ms, piece.resting_ms = piece.done_ms - kept, kept, 0.0
        return lost

    def finish(self, piece: Piece, now_ms: int) -> list[AllocationId]:
        """It has come to its end; the replicas that ran."""
        piece.advance(now_ms)
        ran = list(piece.running)
        piece.running.clear()
        piece.still.clear()
        piece.turn += 1
        return ran

    def stand(self, piece: Piece, allocation: AllocationId, now_ms: int, still: bool) -> bool:
        """A replica stands still, or goes on; whether that is news."""
        if allocation not in piece.running or (allocation in piece.still) is still:
            return False
        piece.advance(now_ms)
        (piece.still.add if still else piece.still.discard)(allocation)
        piece.turn += 1
        return True

    def again(self, piece: Piece) -> None:
        """It failed by itself: the next attempt starts where the last checkpoint was."""
        piece.done_ms, piece.resting_ms = _kept_ms(piece, abrupt=True), 0.0

    def piece(self, job: TraceJob, rank: int) -> Piece:
        spec = job.job
        task = rank if spec.array is not None else -1
        key = (spec.id, task)
        found = self._pieces.get(key)
        if found is None:
            whole_ms = job.task_runs_ms[task] if job.task_runs_ms and task >= 0 else job.runs_ms
            found = self._pieces[key] = Piece(
                key=key,
                whole_ms=float(whole_ms),
                full=1 if task >= 0 else spec.replicas,
                elastic=spec.elastic is not None,
                saves_every_ms=int(1000 * spec.checkpoint.every_s),
                saves_on_stop=bool(spec.checkpoint.dir),
                restore_ms=int(1000 * spec.checkpoint.restore_s),
                running={},
            )
        return found

    def forget(self, job: TraceJob) -> None:
        """It has ended for good."""
        array = job.job.array
        ranks = range(array.size) if array is not None else (-1,)
        for rank in ranks:
            self._pieces.pop((job.job.id, rank), None)


def _kept_ms(piece: Piece, abrupt: bool) -> float:
    """What a checkpoint brings back: all if one is written at the end, else the last multiple."""
    if piece.saves_on_stop and not abrupt:
        piece.saved_ms = piece.done_ms
    elif piece.saves_every_ms:
        worked = piece.done_ms - piece.at_ms
        piece.saved_ms = max(
            piece.saved_ms, piece.at_ms + worked // piece.saves_every_ms * piece.saves_every_ms
        )
    return min(piece.saved_ms, piece.done_ms)
