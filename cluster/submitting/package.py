"""The working directory as a package for a Ray job: what is shipped, and what must not be."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from cluster.config import RunConfig
from cluster.config.cache import SqliteCacheConfig
from cluster.config.files import place_below, read_yaml
from cluster.config.secrets import secret_values
from cluster.config.sweep import JournalStorageConfig, SweepSection
from cluster.submitting.keys import require_no_key_files, require_no_keys, url_variables
from gpo.errors import ConfigError

MAX_BYTES = 100_000_000
"""Bound on what is shipped, before compression. Ray keeps packages in the memory of the head; 512 MiB is its own."""

_IGNORE_FILES = (".gitignore", ".rayignore")
_NEVER = GitIgnoreSpec.from_lines(
    [
        ".git", ".hg/", ".svn/", ".venv*/", "venv/", "node_modules/", "__pycache__/", "*.pyc", "*.egg-info/",
        ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/", ".import_linter_cache/", ".tox/", ".idea/",
        ".vscode/", "/runs/", ".env", ".env.*", ".envrc", "*.sqlite", "*.sqlite-wal", "*.sqlite-shm",
    ]
)  # fmt: skip
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same content makes the same package, which is then not uploaded again."""


@dataclass(frozen=True, slots=True)
class Package:
    """What is shipped.

    Attributes:
        root: the working directory.
        names: of the files, relative to it, sorted.
        num_bytes: of them all.
        outside: what the configuration names outside of the working directory, and is not shipped.
    """

    root: Path
    names: tuple[str, ...]
    num_bytes: int
    outside: tuple[Path, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write the package into a folder; its path."""
        path = folder / "working_dir.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in self.names:
                source = self.root / name
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.external_attr = (0o755 if os.access(source, os.X_OK) else 0o644) << 16
                archive.writestr(entry, source.read_bytes(), zipfile.ZIP_DEFLATED)
        return path

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that tell contents apart."""
        digest = hashlib.blake2b(digest_size=6)
        for name in self.names:
            digest.update(f"{name}\0".encode() + (self.root / name).read_bytes() + b"\0")
        return digest.hexdigest()


def package(root: Path, config_path: Path, config: RunConfig) -> Package:
    """What to ship of a working directory, so that ``gpo`` finds there what it finds here.

    Left out are what ``.gitignore`` and ``.rayignore`` name, version control, virtual environments, caches, ``.env``
    files and the folder ``runs``. What the configuration names is shipped even where an ignore file leaves it out.

    Raises:
        ConfigError: the configuration lies elsewhere or names what is never shipped, something looks like a key, or it
            is too much.
    """
    root = root.resolve()
    _require_below(root, config_path)
    extended = [("extends", path) for path in extended_files(config_path)]
    options = [(option, path) for option, path in [*extended, *_config_options(config)] if path.exists()]
    named = [path for _, path in options]
    require_no_key_files(config, root)
    names = set(_walk(root))
    for option, path in [("CONFIG", config_path.resolve()), *options]:
        if path.is_relative_to(root):
            names.update(_named(root, path, option))
    outside = tuple(dict.fromkeys(path for path in named if not path.is_relative_to(root)))
    ordered = tuple(sorted(names))
    require_no_keys(
        root,
        ordered,
        secret_values(config, url_variables(config_path)),
        where="working directory",
        remedy="move it elsewhere, or name it in .rayignore; on a cluster, keys are set where its nodes are started",
    )
    return Package(root, ordered, _require_small({name: (root / name).stat().st_size for name in ordered}), outside)


def require_not_shipped(config: RunConfig, sweep: SweepSection | None, root: Path) -> None:
    """Refuse a place for what a run writes that lies in a folder of this machine: it would be lost with the job.

    Args:
        config: of the run, or below a sweep's trials.
        sweep: the section, for a sweep.
        root: the working directory, say.

    Raises:
        ConfigError: names the option.
    """
    places: dict[str, Path | None] = {}
    if isinstance(config.cache, SqliteCacheConfig):
        places["cache.path"] = config.cache.path
    storage = None if sweep is None else sweep.storage
    if isinstance(storage, JournalStorageConfig):
        places["sweep.storage.path"] = storage.path
    elif storage is not None and storage.url is not None and storage.url.startswith("sqlite:///"):
        places["sweep.storage"] = root / storage.url.removeprefix("sqlite:///").partition("?")[0]
    for option, place in places.items():
        if place is not None and place.resolve().is_relative_to(root):
            raise ConfigError(
                option,
                f"{str(place)!r} lies in the folder {str(root)!r}, and would be lost with the job",
                "name a file elsewhere, from / on, or a server that all nodes reach, or leave the option out",
            )


def extended_files(config_path: Path) -> list[Path]:
    """The files that a configuration extends, at any remove; absolute. They have been read before."""
    extended = read_yaml(config_path.read_text(encoding="utf-8")).get("extends") or []
    names = [extended] if isinstance(extended, str) else extended
    files = [place_below(config_path.parent, name, where="extends") for name in names]
    return [*files, *(path for file in files for path in extended_files(file))]


def config_paths(config: RunConfig) -> list[Path]:
    """Every file and folder that a configuration names and a run reads, but for files with keys; absolute."""
    return [path for _, path in _config_options(config)]


def _config_options(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """These, each with the option that names it."""
    sections = config.model_dump()
    sections.pop("cache")  # is written, not read
    for name, section in sections.items():
        yield from _paths(section, name)


def _paths(value: object, option: str) -> Iterator[tuple[str, Path]]:
    if isinstance(value, Path):
        if not option.endswith("api_key_file"):
            yield option, value
    elif isinstance(value, Mapping):
        for name, below in value.items():
            yield from _paths(below, f"{option}.{name}")
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            yield from _paths(below, f"{option}.{index}")


def _require_below(root: Path, config_path: Path) -> None:
    if not config_path.is_file():
        raise ConfigError("CONFIG", f"{str(config_path)!r} is no file", "name a YAML file")
    if not config_path.resolve().is_relative_to(root):
        raise ConfigError(
            "CONFIG",
            f"{str(config_path)!r} lies outside of the working directory, which is all that is shipped",
            "type the command in a folder above it",
        )


def _walk(root: Path) -> Iterator[str]:
    """The files that no rule leaves out, by their names relative to the root. Links to folders are not followed."""
    rules: dict[Path, list[GitIgnoreSpec]] = {}
    for folder_name, folders, files in os.walk(root):
        folder = Path(folder_name)
        rules[folder] = [
            GitIgnoreSpec.from_lines((folder / name).read_text("utf-8", "replace").splitlines())
            for name in _IGNORE_FILES
            if name in files
        ]
        folders[:] = sorted(name for name in folders if not _left_out(folder / name, root, rules, is_folder=True))
        for name in files:
            path = folder / name
            if path.is_file() and not _left_out(path, root, rules, is_folder=False):
                yield path.relative_to(root).as_posix()


def _left_out(path: Path, root: Path, rules: Mapping[Path, Sequence[GitIgnoreSpec]], *, is_folder: bool) -> bool:
    slash = "/" if is_folder else ""
    if is_folder and path.is_symlink():
        return True
    if _NEVER.match_file(path.relative_to(root).as_posix() + slash):
        return True
    return any(
        spec.match_file(path.relative_to(root / folder).as_posix() + slash)
        for folder in path.relative_to(root).parents
        for spec in rules.get(root / folder, ())
    )


def _named(root: Path, path: Path, option: str) -> Iterator[str]:
    name = path.relative_to(root).as_posix()
    is_folder = path.is_dir()
    if _NEVER.match_file(f"{name}/" if is_folder else name):
        raise ConfigError(
            option,
            f"{name!r} is one of those that are never shipped: what runs wrote, caches, databases, .env files",
            "copy it to another place of this folder and name that, or one that the cluster's nodes have",
        )
    for file in path.rglob("*") if is_folder else [path]:
        if file.is_file() and not _NEVER.match_file(below := file.relative_to(root).as_posix()):
            yield below


def _require_small(sizes: Mapping[str, int]) -> int:
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        shown = ", ".join(f"{name} ({sizes[name] / 1e6:.0f} MB)" for name in largest)
        raise ConfigError(
            "working directory",
            f"has {total / 1e6:.0f} MB, and at most {MAX_BYTES / 1e6:.0f} MB are shipped; the largest: {shown}",
            "name what is not needed in .rayignore, or put large data on storage that the nodes reach",
        )
    return total
