"""Where a job's replicas may be: terms on nodes, on each other, and on the machines' topology."""

from enum import Enum

from msgspec import Struct

HOST = "host"
"""The narrowest level: one node."""
LEVELS = ("zone", "block", "rack", "nvlink", HOST)
"""From wide to narrow. All but the last are labels of nodes; a node without the label is alone."""


class Operator(Enum):
    IN = "in"
    NOT_IN = "not-in"
    EXISTS = "exists"
    ABSENT = "absent"
    GREATER = "greater"
    LESS = "less"


class NodeTerm(Struct, frozen=True, omit_defaults=True, gc=False):
    """What a node's label must be; with a weight, what it had better be."""

    key: str
    operator: Operator = Operator.EXISTS
    values: tuple[str, ...] = ()
    """Of ``greater`` and ``less`` exactly one, a whole number."""
    weight: int = 0
    """0: required. 1 to 100: preferred so strongly."""


class ReplicaTerm(Struct, frozen=True, omit_defaults=True, gc=False):
    """Near to, or away from, the replicas of jobs whose metadata has all these pairs."""

    labels: tuple[tuple[str, str], ...]
    level: str = HOST
    """Of ``LEVELS``: in the same one, or in another one."""
    anti: bool = False
    weight: int = 0
    """0: required. 1 to 100: preferred so strongly."""


class Spread(Struct, frozen=True, omit_defaults=True, gc=False):
    """The job's own replicas even over the parts of a level."""

    level: str = HOST
    max_skew: int = 1
    """How many more a part may have than the emptiest part that could take one."""
    required: bool = True


class Packing(Struct, frozen=True, omit_defaults=True, gc=False):
    """All replicas within one part of this level; preferred: the narrowest that takes them."""

    level: str
    required: bool = True
