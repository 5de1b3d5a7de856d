"""What a user can set, as frozen pydantic models; one file per section of the YAML."""

from __future__ import annotations

from cluster.config.loading import load_config
from cluster.config.root import RunConfig

__all__ = ["RunConfig", "load_config"]
