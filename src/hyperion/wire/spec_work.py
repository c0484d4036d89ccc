"""What a job runs, and moments: kinds of values with a reading of their own."""

import datetime
import re

from hyperion.model import bounds
from hyperion.wire.spec_kinds import Duration, Place, Reading, Schema, Text
from hyperion.wire.spec_tree import Kind, Listing, Node, Scalar, describe

_moment = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ].*)?").fullmatch


class Run:
    """A script, or a list that is an argument vector. Reads to a text or to a tuple of texts."""

    words = "script, or list of arguments"

    def read(self, node: Node, place: Place, to: Reading) -> str | tuple[str, ...] | None:
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            return node.text
        if not isinstance(node, Listing):
            to.expect(place, node, "a script, such as: python train.py, or a list of arguments")
            return None
        if not node.items:
            to.refuse(place, "found an empty list, expected a program and its arguments")
            return None
        arguments = []
        for index, item in enumerate(node.items):
            at = place.item(index, item)
            to.places[at.canonical] = at
            if isinstance(item, Scalar) and item.kind is not Kind.NULL:
                arguments.append(item.text)
            else:
                to.expect(at, item, "one argument; put it in quotes")
        return tuple(arguments) or None

    def schema(self) -> Schema:
        argument: Schema = {"type": ["string", "number", "boolean"]}
        most = bounds.MAX_ARGUMENTS
        vector: Schema = {"type": "array", "minItems": 1, "maxItems": most, "items": argument}
        return {"anyOf": [{"type": "string", "minLength": 1}, vector]}


class Moment(Duration):
    """A duration from now, or a moment. Reads to seconds from now."""

    words = "duration or time"

    def read(self, node: Node, place: Place, to: Reading) -> float | None:
        if not (isinstance(node, Scalar) and node.kind is Kind.TEXT and _moment(node.text)):
            return super().read(node, place, to)
        try:
            moment = datetime.datetime.fromisoformat(node.text)
            seconds = moment.timestamp() - to.now_ms / 1000 if moment.tzinfo else None
        except (ValueError, OverflowError, OSError):
            to.expect(place, node, "a time such as 2026-03-31T18:00:00Z")
            return None
        if seconds is None:
            to.expect(place, node, "a time with its zone; add Z for UTC, or +02:00")
            return None
        if seconds <= 0:
            to.expect(place, node, "a time in the future")
            return None
        return round(seconds, 3)

    def schema(self) -> Schema:
        out = super().schema()
        out["anyOf"].append({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}[Tt ].*$"})
        return out


class Image(Text):
    """Refused as long as no runtime can honour it."""

    def read(self, node: Node, place: Place, to: Reading) -> str | None:
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            return node.text
        to.refuse(
            place, f"found {describe(node)}; container images are not supported yet; remove it"
        )
        return None

    def schema(self) -> Schema:
        return {"type": "string", "maxLength": 0}
