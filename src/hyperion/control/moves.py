"""The records of a federated job's changes, made from what is known of it this instant."""

from typing import Any

from msgspec.structs import replace

from hyperion.control import accounts
from hyperion.control.federation_state import FederationState
from hyperion.control.progress import saved_s
from hyperion.control.records import FederatedJob, FederatedJobMoved
from hyperion.model.job import JobPhase


class Moves:
    def __init__(self, state: FederationState) -> None:
        self._state = state

    def moved(self, known: FederatedJob, now_ms: int, **changes: object) -> FederatedJobMoved:
        """With these changes to its newest status: ``known`` may be older."""
        status = self._state.jobs[known.job.id].status
        return FederatedJobMoved(known.job.id, replace(status, **changes), now_ms)

    def ended(
        self,
        known: FederatedJob,
        phase: JobPhase,
        reason: str,
        now_ms: int,
        facts: dict[str, Any] | None = None,
    ) -> FederatedJobMoved:
        status = accounts.ended(known.status, phase, reason, now_ms, facts or {})
        return FederatedJobMoved(known.job.id, status, now_ms)

    def requeued(
        self, known: FederatedJob, reason: str, now_ms: int, changes: dict[str, Any]
    ) -> FederatedJobMoved:
        changes = {"saved_s": saved_s(known, now_ms), **changes}
        status = accounts.requeued(known.status, reason, now_ms, changes)
        return FederatedJobMoved(known.job.id, status, now_ms)
