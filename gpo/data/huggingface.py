"""Reads data sets of the Hugging Face Hub with the optional package ``datasets``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpo.data.example import Example
from gpo.data.files import Fields, example_of
from gpo.data.template import ROW
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A data set.

    Attributes:
        id: ``owner/name`` on the Hub, or the absolute path of a folder of Parquet, JSON Lines or CSV files.
        config: name of the configuration; ``None`` if the data set has only one.
        revision: branch, tag or commit; ``None`` is the newest.
    """

    id: str
    config: str | None = None
    revision: str | None = None

    def read(self, split: str, fields: Fields, *, where: str, at: str) -> tuple[Example, ...]:
        """Read the examples of a split in order; class labels become their names.

        Downloads are cached by ``datasets``. Code in a data set is never run.

        Args:
            split: name of the split, or a part such as ``train[:80%]``.
            where, at: the section ``data`` and the option in it that names the split, for errors.

        Raises:
            ConfigError: the package is not installed; ``datasets`` reads the name as something else; the Hub is not
                reachable; the data set, configuration or split does not exist; a column is missing, empty or cannot be
                decoded; or there is no example.
        """
        rows = self.rows(split, fields.columns, where=where, at=at)
        location = f"{where}.{at} ({self.id} {split}"
        examples = tuple(example_of(row, fields, f"{location}: row {index})") for index, row in enumerate(rows))
        if not examples:
            raise ConfigError(f"{where}.{at}", f"{split!r} of {self.id!r} contains no example", "name another split")
        return examples

    def _require_hub_name(self, field: str) -> None:
        """Refuse names that ``datasets`` would silently read as something else than a data set of the Hub."""
        if self.id.lower() in _FORMATS:
            raise ConfigError(
                field,
                f"{self.id!r} is a format of files, not a data set",
                "name a data set, or write ./name for a folder",
            )
        if not os.path.isabs(self.id) and os.path.exists(self.id):  # noqa: PTH110, PTH117  # false for names that are too long
            raise ConfigError(
                field,
                f"{self.id!r} is the name of a folder or file in the working directory, which would be read instead",
                "write ./name for a folder next to the configuration, or, for the Hub, run in another folder",
            )

    def split_names(self, *, where: str) -> list[str]:
        """The names of the splits, in the order of the data set.

        Args:
            where: the section ``data``, for errors.

        Raises:
            ConfigError: as for ``read``; or the data set has several configurations, and none is named.
        """
        datasets = self._package(where)
        try:
            return list(datasets.get_dataset_split_names(self.id, self.config, revision=self.revision))
        except Exception as error:
            raise self._explained(error, "", where, "split") from None

    def _package(self, where: str) -> Any:
        """The package ``datasets``, once it is known that the name means a data set to it."""
        self._require_hub_name(f"{where}.huggingface")
        try:
            # Optional, and slow to import.
            import datasets
        except ImportError:
            raise ConfigError(
                f"{where}.huggingface",
                "needs the package 'datasets', which is not installed",
                "install the extra: pip install 'distributed-gpo[huggingface]'",
            ) from None
        datasets.disable_progress_bars()
        return datasets

    def rows(self, split: str, columns: frozenset[str], *, where: str, at: str) -> Iterator[Mapping[str, Any]]:
        """The rows of a split in order; class labels become their names.

        Args:
            columns: those that are needed; ``row`` stands for all.
            split, where, at: as for ``read``.

        Raises:
            ConfigError: as for ``read``, except that an empty split is no error.
        """
        datasets = self._package(where)
        try:
            table = _needed(datasets.load_dataset(self.id, self.config, split=split, revision=self.revision), columns)
            labels = {name: label for name, label in table.features.items() if isinstance(label, datasets.ClassLabel)}
            for row in table:
                # Unlabelled examples have the label -1.
                named = {
                    name: label.int2str(row[name]) if _is_label(row[name]) else None for name, label in labels.items()
                }
                yield {**row, **named}
        # Errors may also come from the network, the file system and file formats.
        except Exception as error:
            raise self._explained(error, split, where, at) from None

    def _explained(self, error: Exception, split: str, where: str, at: str) -> ConfigError:
        reason = " ".join(str(error).split()) or type(error).__name__
        shown = reason if len(reason) <= 300 else f"{reason[:300]}…"
        if reason.startswith(_ABOUT_SPLIT):
            return ConfigError(
                f"{where}.{at}", f"{split!r} is not a split of {self.id!r} ({shown})", "name one of its splits"
            )
        if reason.startswith(_ABOUT_CONFIG):
            return ConfigError(
                f"{where}.config",
                f"{self.config!r} is not a configuration of {self.id!r} ({shown})",
                "name one of its configurations",
            )
        remedy = "check the name, the revision and the network; for a data set with limited access, set HF_TOKEN"
        return ConfigError(
            f"{where}.huggingface", f"{self.id!r} cannot be loaded ({type(error).__name__}: {shown})", remedy
        )


# Both are a plain ValueError, so only the message distinguishes them.
_ABOUT_SPLIT = ("Unknown split", "Bad split", "Unrecognized instruction", "Instruction ")
_ABOUT_CONFIG = ("BuilderConfig", "Config name")


_FORMATS = frozenset(
    (
        *("arrow", "audiofolder", "cache", "conll", "csv", "eval", "fasta", "fastq", "genbank", "generator", "harbor"),
        *("hdf5", "iceberg", "imagefolder", "json", "lance", "meshfolder", "mmcif", "niftifolder", "pandas", "parquet"),
        *("pdb", "pdffolder", "spark", "sql", "text", "tsfile", "videofolder", "vortex", "webdataset", "xml"),
    )
)
"""Names that ``datasets`` treats as a file format rather than a data set."""


def _needed(table: Dataset, columns: frozenset[str]) -> Dataset:
    """The table with only the needed columns and without decoding of images, audio and other media."""
    if ROW not in columns and columns <= set(table.column_names):
        table = table.select_columns(sorted(columns))
    for name, feature in table.features.items():
        if getattr(feature, "decode", False):
            table = table.cast_column(name, replace(feature, decode=False))
    return table


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and value >= 0
