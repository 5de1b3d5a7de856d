"""Section ``tracking``: runs and trials in MLflow."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from cluster.config.section import Section
from gpo.errors import ConfigError


def _store(uri: str) -> str:
    # A database's address holds a password more often than not, and would be in config.yaml.
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?|sqlite:////\S+", uri):
        raise PydanticCustomError(
            "tracking_uri", "is not like http://HOST:5000 or sqlite:////ABSOLUTE/FILE, without user or password"
        )
    return uri


class MlflowConfig(Section):
    """An MLflow server, or a database of its own on this machine.

    User and password, or a token, stand in the variables that MLflow reads (``MLFLOW_TRACKING_USERNAME``,
    ``MLFLOW_TRACKING_PASSWORD``, ``MLFLOW_TRACKING_TOKEN``).
    """

    uri: Annotated[str, AfterValidator(_store)]
    """``http://HOST:5000``, or a database in a file, ``sqlite:////ABSOLUTE/FILE``, with artifacts in a folder beside.
    Folders as stores, MLflow itself has given up."""
    experiment: Annotated[str, Field(min_length=1, max_length=250)] = "gpo"
    """Name of the experiment; it is made where it is missing."""


class TrackingConfig(Section):
    """Where runs are logged beside their own folder."""

    mlflow: MlflowConfig | None = None
    """Logs a run, each of its trajectories, and each trial of a sweep; left out, nothing is."""

    def require_package(self) -> None:
        """Say so before anything is started.

        Raises:
            ConfigError: a package that it takes is not installed.
        """
        if self.mlflow is not None and find_spec("mlflow") is None:
            raise ConfigError(
                "tracking.mlflow", "needs the package mlflow-skinny", "install it: pip install mlflow-skinny"
            )
