"""From the tree of queues to rights: whom a waiting job may take places from, and how many."""

from hyperion.control.occupancy import need_of_job, queue_of
from hyperion.model.ids import QueueName
from hyperion.model.job import Job
from hyperion.placement.fairness import Need, QueueTree
from hyperion.placement.rights import Rights


def entitlement(tree: QueueTree, job: Job) -> Rights | None:
    """None: there can be nobody."""
    name, need = queue_of(job), need_of_job(job)
    if name not in tree:
        return None
    queue = tree.branch(name).queue
    owed = _owed(tree, job, need)
    borrowed: tuple[tuple[QueueName, Need], ...] = ()
    if owed and queue.reclaim:
        borrowed = tuple(
            (holder, tuple(sorted(tree.standing(holder, 0).borrowed.items())))
            for holder in tree.borrowers(name, need)
        )
    found = Rights.of(job, name, within=queue.preempt_within, borrowed=borrowed, owed=owed)
    return found if found.any else None


def _owed(tree: QueueTree, job: Job, need: Need) -> Need:
    """What must be given back in the queue or its cohort before the quotas let the job start."""
    owed = []
    for resource, amount in need:
        refusal = tree.refusal(queue_of(job), ((resource, amount),))
        if refusal is not None and refusal.resource:
            owed.append((resource, refusal.used + refusal.asked - refusal.quota))
    return tuple(owed)
