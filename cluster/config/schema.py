"""The configuration as a JSON schema, for editors: ``python -m cluster.config.schema > configs/schema.json``."""

from __future__ import annotations

import json

from cluster.config.root import RunConfig


def schema() -> str:
    """The schema as indented JSON."""
    return json.dumps(RunConfig.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema(), end="")  # noqa: T201
