"""The JSON Schema of a spec, for editors, and the reference of its fields, from the same table.

``python -m hyperion.wire.schema`` prints the schema, ``--fields`` the table of docs/spec.md.
"""

import json
import sys
from typing import Any

from hyperion.wire.spec_fields import SPEC, reference
from hyperion.wire.spec_kinds import Field

SCHEMA_ID = "https://github.com/hyperion-x/hyperion-x/blob/main/docs/job.schema.json"


def job_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Hyperion-X job spec",
        **SPEC.schema(),
    }


def schema_text() -> str:
    """The schema as it is kept in docs/job.schema.json."""
    return json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"


def fields_table() -> str:
    """Every field as a Markdown table."""
    head = "| field | type | unit | default | example | meaning |\n|---|---|---|---|---|---|\n"
    return head + "".join(_row(name, field) for name, field in reference())


def _row(name: str, field: Field) -> str:
    aliases = "".join(f"<br>(or `{alias}`)" for alias in field.aliases)
    example = f"`{field.example}`" if field.example else ""
    cells = (
        f"`{name}`{aliases}",
        field.kind.words,
        field.unit,
        field.default,
        example,
        field.doc,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    sys.stdout.write(fields_table() if "--fields" in sys.argv[1:] else schema_text())
