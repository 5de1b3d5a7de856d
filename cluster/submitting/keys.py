"""Refuses to hand keys to a cluster: files, options and values that look like keys, or hold one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from pathspec import GitIgnoreSpec

from cluster.config import RunConfig
from cluster.config.section import options, path_within
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
    """Refuse to ship files that look like keys or contain some.

    Args:
        root: the files' folder.
        names: of the files, relative to the root.
        secrets: that this process knows; see ``secret_values``.
        where: what names the files, for errors.
        remedy: for errors.

    Raises:
        ConfigError: names the file, and shows nothing of its content.
    """
    for name in names:
        if _KEY_FILES.match_file(name) or _file_holds_key(root / name, secrets):
            raise ConfigError(where, f"{name!r} looks like a key or holds one, and keys are never shipped", remedy)


def require_no_key_values(values: Mapping[str, object], secrets: Sequence[bytes]) -> None:
    """Refuse options, at any depth, whose values or names contain a key.

    Raises:
        ConfigError: names the option, and shows nothing of its value.
    """
    for option, value in values.items():
        _require_no_key_in(value, option, secrets)


def require_no_key_files(config: RunConfig, root: Path) -> None:
    """Refuse key files in a folder, since the cluster would look for them there, and they are never shipped.

    Raises:
        ConfigError: names the option.
    """
    for option, info, path in options(config):
        if info.sensitive == "file" and path is not None and path_within(root, path):
            raise ConfigError(
                option,
                f"is in the folder {str(root)!r}, and keys are never shipped",
                "mount it on the cluster's nodes and name its path there, or use api_key_env",
            )


def _require_no_key_in(value: object, option: str, secrets: Sequence[bytes]) -> None:
    if isinstance(value, Mapping):
        for name, below in value.items():
            _refuse_key(name, option, secrets)
            _require_no_key_in(below, f"{option}.{name}", secrets)
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            _require_no_key_in(below, f"{option}.{index}", secrets)
    elif value is not None:
        _refuse_key(value, option, secrets)


def _refuse_key(text: object, option: str, secrets: Sequence[bytes]) -> None:
    if _holds_key(str(text).encode(errors="surrogateescape"), secrets):
        raise ConfigError(
            option,
            "looks like a key or holds one, and keys are never shipped",
            "leave it out; set keys where the cluster's nodes are started",
        )


def _file_holds_key(path: Path, secrets: Sequence[bytes]) -> bool:
    if not path.stat().st_size:
        return False
    # The whole file: the end of a run's log may show a refused key. Mapped into memory, since it may be large.
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return _holds_key(content, secrets)


def _holds_key(content: bytes | mmap, secrets: Sequence[bytes]) -> bool:
    """Whether a text contains something of the form of a key, or one of the secrets."""
    return bool(_KEY_TEXT.search(content)) or any(content.find(secret) >= 0 for secret in secrets)
