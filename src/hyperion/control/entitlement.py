"""From the tree of queues to rights: whom a waiting job may take places from, and how many."""

from hyperion.control.occupancy import need_of_job, queue_of
from hyperion.model.ids import QueueName
from hyperion.model.job import Job
from hyperion.placement.fairness import Need, QueueTree
from hyperion.placement.rights import Rights

MOST_BORROWERS = 8
"""Queues that are looked at for somebody to stop: those that hold most above their own."""
EVERY_BORROWER = 1 << 30


def entitlement(tree: QueueTree, job: Job, most: int = MOST_BORROWERS) -> Rights | None:
    """None: there can be nobody. ``most``: of so many queues at most."""
    name, need = queue_of(job), need_of_job(job)
    if name not in tree:
        return None
    queue = tree.branch(name).queue
    owed = _owed(tree, job, need)
    borrowed: tuple[tuple[QueueName, Need], ...] = ()
    if owed and queue.reclaim:
        borrowed = tuple(tree.surplus(name, need, most))
    found = Rights.of(job, name, within=queue.preempt_within, borrowed=borrowed, owed=owed)
    return found if found.any else None


def _owed(tree: QueueTree, job: Job, need: Need) -> Need:
    """What must be given back in the queue or its cohort before the quotas let the job start, less
    what those hold that are being stopped already."""
    owed = []
    for resource, amount in need:
        refusal = tree.refusal(queue_of(job), ((resource, amount),))
        if refusal is not None and refusal.resource:
            lack = refusal.used + refusal.asked - refusal.quota
            lack -= tree.leaving(refusal.queue, resource)
            if lack > 0:
                owed.append((resource, lack))
    return tuple(owed)
