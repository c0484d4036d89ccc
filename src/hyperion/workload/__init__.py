"""What runs inside a user's process: it imports nothing of ours and only the standard library.

`step` and `point` do nothing where no agent has named a page in HYPERION_WORKLOAD_PAGE.
"""

import functools
import os
import sys

from hyperion.workload import page
from hyperion.workload.channel import Channel

VARIABLE = "HYPERION_WORKLOAD_PAGE"


@functools.cache
def channel() -> Channel | None:
    """This process's channel, mapped at the first use; None where there is none."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        return Channel(path)
    except (OSError, ValueError) as error:
        print(f"hyperion: this process does not pause by itself: {error}", file=sys.stderr)
        return None


def point() -> None:
    """A place inside a step where the workload may pause."""
    if (open_channel := channel()) is not None:
        open_channel.able(page.POINTS)
        open_channel.point()


def step(*, step: int | None = None) -> None:
    """The end of a step, numbered by the caller or counted from 1."""
    if (open_channel := channel()) is not None:
        open_channel.able(page.STEPS)
        open_channel.step(step)
