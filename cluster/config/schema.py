"""The configuration as a JSON schema, for editors: ``python -m cluster.config.schema > configs/schema.json``."""

from __future__ import annotations

import json
from typing import Any

from cluster.config.run import RunConfig
from cluster.config.sweep import SweepSection

_METHOD = {"type": "string", "description": "The name of a method in configs/methods/, or a YAML file."}
_OF_FILES: dict[str, Any] = {
    "extends": {
        "description": "YAML files that this file is laid over, relative to its folder; later files win.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    },
    "compare": {
        "description": "For gpo compare: a list of methods, or for each name the changes to optimizer.",
        "anyOf": [
            {"type": "array", "items": _METHOD, "minItems": 1},
            {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {
                    "anyOf": [
                        _METHOD,
                        {"type": "null"},
                        {
                            "type": "object",
                            "properties": {"optimizer": {"type": "object"}},
                            "additionalProperties": False,
                        },
                    ]
                },
            },
        ],
    },
}
"""Sections that a file may have in addition to those of a run; reading the configuration resolves them."""


def schema() -> str:
    """The schema as indented JSON."""
    document = RunConfig.model_json_schema()
    document["properties"] |= _OF_FILES | {"sweep": _sweep(document["$defs"])}
    # A required section may be in an extended file.
    document["anyOf"] = [{"required": document.pop("required")}, {"required": ["extends"]}]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _sweep(definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of the section ``sweep``; its definitions are added to those of the document."""
    sweep = SweepSection.model_json_schema()
    definitions |= sweep.pop("$defs")
    storage = sweep["properties"]["storage"]
    sweep["properties"]["storage"] = {
        "description": "Where the study is stored: a journal file, or a URL.",
        "anyOf": [{"type": "string"}, {name: value for name, value in storage.items() if name != "description"}],
    }
    # A required option may be in an extended file.
    del sweep["required"]
    return {**sweep, "description": "For gpo sweep: how hyperparameters are tuned."}


if __name__ == "__main__":
    print(schema(), end="")  # noqa: T201
