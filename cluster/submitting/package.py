"""The working directory as a package for a Ray job: what is shipped, and what must not be."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from cluster.config import RunConfig
from cluster.config.files import extended_files
from cluster.config.secrets import secret_values
from cluster.config.section import options, path_within
from cluster.config.sweep import SweepSection, UrlStorageConfig
from cluster.submitting.keys import require_no_key_files, require_no_keys
from gpo.errors import ConfigError

MAX_BYTES = 100_000_000
"""Most bytes that are shipped, before compression. Ray keeps packages in the head's memory, at most 512 MiB."""

_IGNORE_FILES = (".gitignore", ".rayignore")
_NEVER = GitIgnoreSpec.from_lines(
    [
        "..*", ".git", ".hg/", ".svn/", ".venv*/", "venv/", "node_modules/", "__pycache__/", "*.pyc", "*.egg-info/",
        ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/", ".import_linter_cache/", ".tox/", ".idea/",
        ".vscode/", "/runs/", ".env", ".env.*", ".envrc", "*.sqlite", "*.sqlite-wal", "*.sqlite-shm",
    ]
)  # fmt: skip
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same content makes the same package, which Ray does not upload again."""


@dataclass(frozen=True, slots=True)
class Package:
    """The files that are shipped.

    Attributes:
        root: the working directory.
        names: of the files, relative to it, sorted.
        num_bytes: size of all files, before compression.
        outside: files that the configuration names outside the working directory; they are not shipped.
        made: a folder with files that are shipped as if they were in the working directory, in place of those there.
    """

    root: Path
    names: tuple[str, ...]
    num_bytes: int
    outside: tuple[Path, ...] = ()
    made: Path | None = None

    def write(self, folder: Path) -> Path:
        """Write the package into a folder; its path."""
        path = folder / "working_dir.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in self.names:
                source = _source(self.root, name, self.made)
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.external_attr = (0o755 if os.access(source, os.X_OK) else 0o644) << 16
                archive.writestr(entry, source.read_bytes(), zipfile.ZIP_DEFLATED)
        return path


def package(
    root: Path, config_path: Path, config: RunConfig, sweep: SweepSection | None = None, *, made: Path | None = None
) -> Package:
    """The files of a working directory that ``gpo`` needs on the cluster.

    Everything is shipped except what ``.gitignore`` and ``.rayignore`` name, version control, virtual environments,
    caches, ``.env`` files and the folder ``runs``. Files that the configuration names are shipped even if an ignore
    file excludes them.

    Args:
        root: the working directory.
        config_path: the configuration's file.
        config: the configuration of the run, or for a sweep one with all its tasks.
        sweep: the section, for a sweep.
        made: a folder with files that were made for the job, among them the configuration; see ``Package``.

    Raises:
        ConfigError: the configuration is outside the directory or names a file that is never shipped, a file looks
            like a key, or the files are too large.
    """
    root = root.resolve()
    if made is None:
        _require_below(root, config_path)
    named = [("extends", path) for path in extended_files(config_path)] + input_paths(config)
    named = [(option, path) for option, path in named if path.exists() and not (made and path.is_relative_to(made))]
    require_no_key_files(config, root)
    names = set(_walk(root))
    for option, path in [*([] if made else [("CONFIG", config_path)]), *named]:
        if (inside := path_within(root, path)) is not None:
            names.update(_named(root, inside, option))
    outside = tuple(dict.fromkeys(path for _, path in named if path_within(root, path) is None))
    secrets = secret_values(*filter(None, (config, sweep)))
    require_no_keys(
        root,
        sorted(names),
        secrets,
        where="working directory",
        remedy="move it out of the folder, or name it in .rayignore; set keys where the cluster's nodes are started",
    )
    if made is not None:
        more = [path.relative_to(made).as_posix() for path in sorted(made.rglob("*")) if path.is_file()]
        require_no_keys(
            made, more, secrets, where="config", remedy="leave it out; set keys where the nodes are started"
        )
        names.update(more)
    ordered = tuple(sorted(names))
    sizes = {name: _source(root, name, made).stat().st_size for name in ordered}
    return Package(root, ordered, _require_small(sizes), outside, made)


def require_outputs_outside(config: RunConfig, sweep: SweepSection | None, root: Path) -> None:
    """Refuse output files in a folder of this machine: the cluster would write them there and lose them with the job.

    Args:
        config: of the run, or of a sweep's trials.
        sweep: the section, for a sweep.
        root: the folder, such as the working directory.

    Raises:
        ConfigError: names the option.
    """
    paths = {option: path for option, info, path in options(config) if info.is_output and path is not None}
    if sweep is not None:
        paths |= {option: path for option, info, path in options(sweep, "sweep") if info.is_output and path is not None}
        if isinstance(sweep.storage, UrlStorageConfig) and (sweep.storage.url or "").startswith("sqlite:///"):
            file = (sweep.storage.url or "").removeprefix("sqlite:///").partition("?")[0]
            paths["sweep.storage"] = root / file
    for option, path in paths.items():
        if path.resolve().is_relative_to(root):
            raise ConfigError(
                option,
                f"{str(path)!r} is in the folder {str(root)!r}, and would be lost with the job",
                "name an absolute path outside it or a server that all nodes reach, or leave the option out",
            )


def input_paths(config: RunConfig) -> list[tuple[str, Path]]:
    """The files and folders that a run reads, except key files; each with the option that names it."""
    return [
        (option, value)
        for option, info, value in options(config)
        if isinstance(value, Path) and not info.is_output and info.sensitive is None
    ]


def _source(root: Path, name: str, made: Path | None) -> Path:
    return made / name if made is not None and (made / name).is_file() else root / name


def _require_below(root: Path, config_path: Path) -> None:
    if not config_path.is_file():
        raise ConfigError("CONFIG", f"{str(config_path)!r} is not a file", "name a YAML file")
    if path_within(root, config_path) is None:
        raise ConfigError(
            "CONFIG",
            f"{str(config_path)!r} is outside the working directory, and only that is shipped",
            "run the command in a folder above it",
        )


def _walk(root: Path) -> Iterator[str]:
    """The files that no rule excludes, relative to the root. Links to folders are not followed."""
    rules: dict[Path, list[GitIgnoreSpec]] = {}
    for folder_name, folders, files in os.walk(root):
        folder = Path(folder_name)
        rules[folder] = [
            GitIgnoreSpec.from_lines((folder / name).read_text("utf-8", "replace").splitlines())
            for name in _IGNORE_FILES
            if name in files
        ]
        folders[:] = sorted(name for name in folders if not _is_ignored(folder / name, root, rules, is_folder=True))
        for name in files:
            path = folder / name
            if path.is_file() and not _is_ignored(path, root, rules, is_folder=False):
                yield path.relative_to(root).as_posix()


def _is_ignored(path: Path, root: Path, rules: Mapping[Path, Sequence[GitIgnoreSpec]], *, is_folder: bool) -> bool:
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
            f"{name!r} is never shipped: run folders, caches, databases and .env files are excluded",
            "copy it to another path in this folder and name the copy, or name a path that the cluster's nodes have",
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
            "name unneeded files in .rayignore, or put large data on storage that the nodes reach",
        )
    return total
