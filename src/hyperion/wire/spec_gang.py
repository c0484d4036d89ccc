"""What form a job has and what it waits for, as a spec says it: roles, width, tasks, other jobs."""

from typing import Any, cast

from msgspec import structs

from hyperion.model import bounds
from hyperion.model.faults import pointer_part
from hyperion.model.job import Array, Condition, Dependency, Elastic, Role
from hyperion.wire.slurm_words import ARRAY_PATTERN, array_of, dependencies_of
from hyperion.wire.spec_kinds import (
    Field,
    Flag,
    Place,
    Reading,
    Record,
    Schema,
    Text,
    Whole,
    did_you_mean,
)
from hyperion.wire.spec_resources import ALTERNATIVE, alternatives
from hyperion.wire.spec_shorthand import Parsed, Shorthand
from hyperion.wire.spec_tree import Listing, Node, Scalar, Table
from hyperion.wire.spec_work import Run

_CONDITIONS = {condition.value: condition for condition in Condition}
_JOBS = "the id of a job, or {afterany: ID}, of afterok, afterany and afternotok"

_ROLE_FIELDS = (
    Field(
        "replicas",
        Whole(1, bounds.MAX_REPLICAS),
        "How many of this role.",
        default="1",
        example="4",
    ),
    Field(
        "resources",
        ALTERNATIVE,
        "What a replica of this role needs, laid over the job's `resources`.",
        default="the job's",
        example="{accelerators: A100}",
    ),
    Field("run", Run(), "What it runs.", default="the job's", example="python server.py"),
)

ROLE = Record(_ROLE_FIELDS, words="mapping with replicas, resources and run")
_NAMED_ROLE = Record(
    (
        Field("name", Text("a name", bounds.NAME_PATTERN, empty=False), "Its name.", required=True),
        *_ROLE_FIELDS,
    ),
    words="mapping with name, replicas, resources and run",
)


class Roles:
    """Names with what each is, or a list. Reads to ``((name, values), …)`` in the order written."""

    words = "mapping of names to roles"
    kind = ROLE

    def read(self, node: Node, place: Place, to: Reading) -> tuple[tuple[str, Any], ...] | None:
        example = "such as {trainer: {replicas: 4}, server: {run: python server.py}}"
        if isinstance(node, Scalar):
            to.expect(place, node, f"a mapping of names to roles, {example}")
            return None
        entries = node.items if isinstance(node, Listing) else node.entries
        if not entries:
            to.refuse(place, f"is empty; expected a mapping of names to roles, {example}")
            return None
        if isinstance(node, Listing):
            found = [self._item(index, item, place, to) for index, item in enumerate(node.items)]
        else:
            found = [self._entry(key, value, place, to) for key, value in node.entries]
        return tuple(pair for pair in found if pair is not None) or None

    def _entry(self, key: Scalar, value: Node, place: Place, to: Reading) -> tuple[str, Any]:
        at = place.field(key)
        to.places[at.canonical] = at
        role = ROLE.read(value, at, to)
        return key.text, {} if role is None else role

    def _item(self, index: int, node: Node, place: Place, to: Reading) -> tuple[str, Any] | None:
        at = place.item(index, node)
        names = [value for key, value in getattr(node, "entries", ()) if key.text == "name"]
        if names and isinstance(names[0], Scalar):
            part = pointer_part(names[0].text)
            at = structs.replace(at, canonical=f"{place.canonical}/{part}")
        to.places[at.canonical] = at
        role = cast("dict[str, Any] | None", _NAMED_ROLE.read(node, at, to))
        return None if role is None else (role.pop("name"), role)

    def schema(self) -> Schema:
        named: Schema = {
            "type": "object",
            "minProperties": 1,
            "maxProperties": bounds.MAX_ROLES,
            "propertyNames": {"pattern": f"^{bounds.NAME_PATTERN}$"},
            "additionalProperties": ROLE.schema(),
        }
        listed: Schema = {
            "type": "array",
            "minItems": 1,
            "maxItems": bounds.MAX_ROLES,
            "items": _NAMED_ROLE.schema(),
        }
        return {"anyOf": [named, listed]}


def roles_of(
    read: tuple[tuple[str, dict[str, Any]], ...], base: dict[str, Any], to: Reading
) -> tuple[Role, ...]:
    """The roles as read, each one's resources laid over the job's."""
    roles = []
    if base.get("any_of"):
        to.refuse(
            to.places["/resources/any_of"],
            "cannot be combined with roles, each of which has resources of its own; remove it",
        )
    base = {name: value for name, value in base.items() if name != "any_of"}
    for name, values in read:
        requests, _ = alternatives(base | values.get("resources", {}))
        run = values.get("run", "")
        if len(requests) > 1:
            at = f"/roles/{pointer_part(name)}/resources/accelerators"
            place = to.places.get(at) or to.places["/resources/accelerators"]
            to.refuse(place, "found several types, expected one: a role has no alternatives")
        roles.append(
            Role(
                name=name,
                replicas=values.get("replicas", 1),
                resources=requests[0],
                command=run if isinstance(run, tuple) else (),
                run="" if isinstance(run, tuple) else run,
            )
        )
    return tuple(roles)


ELASTIC = Record(
    (
        Field(
            "min",
            Whole(1, bounds.MAX_REPLICAS),
            "The fewest replicas that it runs with.",
            example="2",
            required=True,
        ),
        Field(
            "max",
            Whole(1, bounds.MAX_REPLICAS),
            "The most; the same as `replicas`.",
            default="replicas",
            example="8",
        ),
        Field(
            "restart",
            Flag(),
            "`true`: another number of replicas starts all of them anew, from the checkpoint."
            " `false`: the last ranks are added and stopped, the others run on.",
            default="true",
            example="false",
        ),
    ),
    words="mapping with min, max and restart",
)


def elastic_of(values: dict[str, Any], job: dict[str, Any], to: Reading) -> Elastic:
    """The width as read; its ``max`` becomes the job's ``replicas``."""
    most = values.get("max")
    if most is not None:
        if job.setdefault("replicas", most) != most:
            to.refuse(
                to.places["/elastic/max"],
                f"found {most} here and {job['replicas']} in replicas; keep one of them",
            )
        to.places.setdefault("/replicas", to.places["/elastic/max"])
    return Elastic(min=values["min"], restart=values.get("restart", True))


def _tasks(text: str) -> Array:
    """A number alone is how many; the rest is Slurm's."""
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return Array(size=int(text))
    return array_of(text)


ARRAY = Shorthand(
    Record(
        (
            Field(
                "size",
                Whole(1, bounds.MAX_ARRAY_TASKS),
                "How many tasks.",
                example="100000",
                required=True,
            ),
            Field(
                "first",
                Whole(0, bounds.MAX_ARRAY_INDEX),
                "The index of the first.",
                default="0",
                example="1",
            ),
            Field(
                "step",
                Whole(1, bounds.MAX_ARRAY_INDEX),
                "From each index to the next.",
                default="1",
                example="2",
            ),
            Field(
                "limit",
                Whole(0, bounds.MAX_ARRAY_TASKS),
                "How many run at once.",
                default="0 (as many as fit)",
                example="500",
            ),
        ),
        Array,
        words="mapping with size and limit",
    ),
    Parsed(
        "range or number",
        "a range of indices such as 0-99%10, a number of tasks, or {size: 1000, limit: 50}",
        _tasks,
        ARRAY_PATTERN,
        numbers=True,
    ),
)


class After:
    """Jobs, alone or in a list, each with its condition. Reads to a tuple of Dependency."""

    words = "job, or list of jobs and {CONDITION: job}"

    def read(self, node: Node, place: Place, to: Reading) -> tuple[Dependency, ...]:
        found: list[Dependency] = []
        if not isinstance(node, Listing):
            return self._note(self._entry(node, place, to), place, found, to)
        for index, item in enumerate(node.items):
            at = place.item(index, item)
            self._note(self._entry(item, at, to), at, found, to)
        return tuple(found)

    def _note(
        self,
        entries: tuple[Dependency, ...],
        place: Place,
        found: list[Dependency],
        to: Reading,
    ) -> tuple[Dependency, ...]:
        """Add them, and remember where they stood."""
        for entry in entries:
            to.places[f"/after/{len(found)}"] = place
            found.append(entry)
        return tuple(found)

    def _entry(self, node: Node, place: Place, to: Reading) -> tuple[Dependency, ...]:
        if not isinstance(node, Table):
            return self._jobs(node, place, to, _IDS)
        found: list[Dependency] = []
        for key, value in node.entries:
            at = place.field(key)
            condition = _CONDITIONS.get(key.text)
            if condition is None:
                near = did_you_mean(key.text, _CONDITIONS)
                to.refuse(at, f"is no condition; expected one of {', '.join(_CONDITIONS)}{near}")
                continue
            items = value.items if isinstance(value, Listing) else (value,)
            for item in items:
                jobs = self._jobs(item, at, to, _ID)
                found += [Dependency(job=entry.job, condition=condition) for entry in jobs]
        return tuple(found)

    def _jobs(self, node: Node, place: Place, to: Reading, kind: Parsed) -> tuple[Dependency, ...]:
        if not isinstance(node, Scalar):
            to.expect(place, node, _JOBS)
            return ()
        return cast("tuple[Dependency, ...] | None", kind.read(node, place, to)) or ()

    def schema(self) -> Schema:
        job: Schema = {"type": ["string", "integer"]}
        many: Schema = {"anyOf": [job, {"type": "array", "items": job}]}
        conditions: Schema = {
            "type": "object",
            "properties": dict.fromkeys(_CONDITIONS, many),
            "additionalProperties": False,
        }
        entry: Schema = {"anyOf": [job, conditions]}
        listing: Schema = {
            "type": "array",
            "items": entry,
            "maxItems": bounds.MAX_DEPENDENCIES,
        }
        return {"anyOf": [job, conditions, listing]}


def _lone_job(text: str) -> tuple[Dependency, ...]:
    if ":" in text or "," in text:
        raise ValueError("the id of one job; put several into a list")
    return dependencies_of(text)


_ID = Parsed("job", _JOBS, _lone_job, numbers=True)
_IDS = Parsed("job", _JOBS, dependencies_of, numbers=True)
