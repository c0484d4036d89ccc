"""The policy that needs nobody else: the objective, and sense among equals."""

from dataclasses import dataclass

from hyperion.model.job import Job
from hyperion.placement.candidates import Candidates, Column

WASTE_USD = 1e-4
FULLNESS_USD = 1e-5
"""Small against any price difference that matters: they decide between equals."""
SECOND = 1e-6
"""Weight of the balanced cost in the other policies, where their own term is equal."""


@dataclass(frozen=True, slots=True)
class Balanced:
    """The objective itself; among equals the node that wastes no GPUs, then the fullest."""

    name: str = "balanced"

    def cost(self, job: Job, candidates: Candidates) -> Column:  # noqa: ARG002
        c = candidates
        return c.score + WASTE_USD * c.waste - FULLNESS_USD * c.fullness


BALANCED = Balanced()
