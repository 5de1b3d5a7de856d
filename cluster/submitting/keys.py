"""What looks like a key, or is one that this process knows, where something is about to be handed to a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from pathspec import GitIgnoreSpec

from cluster.config import RunConfig
from cluster.config.files import read_extended
from cluster.config.models import EndpointConfig
from gpo.errors import ConfigError

_KEY_FILES = GitIgnoreSpec.from_lines(
    [
        "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "*.keystore", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
        ".netrc", ".pypirc", ".git-credentials", ".aws/", ".ssh/", ".kube/", "kubeconfig", "*.kubeconfig",
        "credentials.json", "service-account*.json", "service_account*.json", "*secrets.yaml", "*secrets.yml",
    ]
)  # fmt: skip
_KEY_TEXT = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----|\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}|\bAKIA[0-9A-Z]{16}\b"
    rb"|\bhf_[A-Za-z0-9]{30,}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b"
)


def require_no_keys(root: Path, names: Sequence[str], secrets: Sequence[bytes], *, where: str, remedy: str) -> None:
    """Refuse to ship files, named relative to the root, that look like keys or hold some.

    Args:
        root: the folder that they lie in.
        names: of the files.
        secrets: that this process knows; see ``secret_values``.
        where: for the error: what names them.
        remedy: for the error: what to do.

    Raises:
        ConfigError: names the file, and shows nothing of it.
    """
    for name in names:
        if _KEY_FILES.match_file(name) or _file_holds_key(root / name, secrets):
            raise ConfigError(where, f"{name!r} looks like a key or holds one, and keys are never shipped", remedy)


def require_no_key_values(options: Mapping[str, object], secrets: Sequence[bytes]) -> None:
    """Refuse options, at any depth, whose values or names hold a key.

    Raises:
        ConfigError: names the option, and shows nothing of it.
    """
    for name, value in options.items():
        _require_no_key_in(value, name, secrets)


def require_no_key_files(config: RunConfig, root: Path) -> None:
    """Refuse files with keys that lie in a folder, from which they are never shipped.

    Raises:
        ConfigError: names the option.
    """
    for role, endpoint in _endpoints(config):
        path = endpoint.api_key_file
        if path is not None and path.is_relative_to(root):
            raise ConfigError(
                f"models.{role}.api_key_file",
                f"lies in the folder {str(root)!r}, and keys are never shipped",
                "mount it on the cluster's nodes and name its place there, or use api_key_env",
            )


def _endpoints(config: RunConfig) -> list[tuple[str, EndpointConfig]]:
    models = {role: getattr(config.models, role) for role in ("task", "optimizer", "judge", "embedding")}
    return [(role, model) for role, model in models.items() if isinstance(model, EndpointConfig)]


def url_variables(config_path: Path) -> tuple[str, ...]:
    """The variable with the address of a sweep's storage, if there is one; it is no part of a run's configuration."""
    sweep = read_extended(config_path).get("sweep")
    storage = sweep.get("storage") if isinstance(sweep, dict) else None
    variable = storage.get("url_env") if isinstance(storage, dict) else None
    return (variable,) if isinstance(variable, str) else ()


def _require_no_key_in(value: object, option: str, secrets: Sequence[bytes]) -> None:
    if isinstance(value, Mapping):
        for name, below in value.items():
            if _holds_key(str(name).encode(errors="surrogateescape"), secrets):
                _refuse(option)
            _require_no_key_in(below, f"{option}.{name}", secrets)
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            _require_no_key_in(below, f"{option}.{index}", secrets)
    elif value is not None and _holds_key(str(value).encode(errors="surrogateescape"), secrets):
        _refuse(option)


def _refuse(option: str) -> None:
    raise ConfigError(
        option,
        "looks like a key or holds one, and keys are never shipped",
        "leave it out; on a cluster, keys are set where its nodes are started",
    )


def _file_holds_key(path: Path, secrets: Sequence[bytes]) -> bool:
    if not path.stat().st_size:
        return False
    # All of it: a run's log may say at its end what it was refused with. Mapped, since it may be large.
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return _holds_key(content, secrets)


def _holds_key(content: bytes | mmap, secrets: Sequence[bytes]) -> bool:
    """Whether something that has the form of a key stands there, or one of the secrets."""
    return bool(_KEY_TEXT.search(content)) or any(content.find(secret) >= 0 for secret in secrets)
