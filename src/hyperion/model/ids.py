"""Identifiers: a distinct type per kind of thing, so mypy refuses a node where a job is meant."""

from typing import NewType

JobId = NewType("JobId", str)
UserId = NewType("UserId", str)
NodeId = NewType("NodeId", str)
ClusterId = NewType("ClusterId", str)
AllocationId = NewType("AllocationId", str)
QueueName = NewType("QueueName", str)
WindowId = NewType("WindowId", str)
RegionName = NewType("RegionName", str)
"""``cloud/region`` in the cloud's own words, such as ``aws/us-east-1`` or ``edge/home``."""


def allocation_id(
    job: JobId, generation: int, attempt: int, rank: int, resizes: int = 0
) -> AllocationId:
    """The name of one replica of one attempt: unique for ever, so no order can meet a successor.

    ``resizes`` counts the changes of an elastic job's number: a rank given up and taken again is
    another replica.
    """
    again = f"r{resizes}" if resizes else ""
    return AllocationId(f"{job}.{generation}-{attempt}{again}.{rank}")
