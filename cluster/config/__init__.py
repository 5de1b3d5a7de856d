"""The configuration as frozen pydantic models, one per section of the YAML file."""

from __future__ import annotations

from cluster.config.loading import load_config
from cluster.config.run import RunConfig

__all__ = ["RunConfig", "load_config"]
