"""Data sets of the Hugging Face Hub, through the optional package ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpo.datasets.rows import Fields, example_of
from gpo.errors import ConfigError
from gpo.examples import Example


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A data set.

    Attributes:
        id: ``owner/name`` on the Hub, or a local folder of Parquet, JSON Lines or CSV files.
        config: which of its configurations; ``None`` where it has one.
        revision: branch, tag or commit; ``None`` for the newest.
    """

    id: str
    config: str | None = None
    revision: str | None = None

    def read(self, split: str, fields: Fields, *, where: str, at: str) -> tuple[Example, ...]:
        """The examples of a split, in order; class labels are read as their names.

        What was downloaded once is taken from the cache of ``datasets``. Code that comes with a data set is never run.

        Args:
            split: its name, or a part such as ``train[:80%]``.
            where: the section ``data``, for errors; ``at`` is the option in it that names the split.

        Raises:
            ConfigError: the package is not installed; the Hub is out of reach; there is no such data set,
                configuration or split; a column is missing or empty; or there is no example at all.
        """
        rows = self._rows(split, where, at)
        place = f"{where}.{at} ({self.id} {split}"
        examples = tuple(example_of(row, fields, f"{place}: row {index})") for index, row in enumerate(rows))
        if not examples:
            raise ConfigError(f"{where}.{at}", f"{split!r} of {self.id!r} holds no example", "name another split")
        return examples

    def _rows(self, split: str, where: str, at: str) -> Iterator[Mapping[str, Any]]:
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
        try:
            table = datasets.load_dataset(self.id, self.config, split=split, revision=self.revision)
        # Besides its own errors come those of the network, of the file system and of file formats.
        except Exception as error:
            raise self._explained(error, split, where, at) from None
        labels = {name: feature for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)}
        for row in table:
            # Unlabelled examples are marked by -1.
            named = {name: label.int2str(row[name]) if _is_label(row[name]) else None for name, label in labels.items()}
            yield {**row, **named}

    def _explained(self, error: Exception, split: str, where: str, at: str) -> ConfigError:
        reason = " ".join(str(error).split()) or type(error).__name__
        shown = reason if len(reason) <= 300 else f"{reason[:300]}…"
        if reason.startswith(_ABOUT_SPLIT):
            return ConfigError(
                f"{where}.{at}", f"{split!r} is not a split of {self.id!r} ({shown})", "name one that it has"
            )
        if reason.startswith(_ABOUT_CONFIG):
            return ConfigError(
                f"{where}.config", f"{self.config!r} is not one of {self.id!r} ({shown})", "name one that it has"
            )
        remedy = "check the name, the revision and the network; for a data set with limited access, set HF_TOKEN"
        return ConfigError(
            f"{where}.huggingface", f"{self.id!r} cannot be loaded ({type(error).__name__}: {shown})", remedy
        )


# A plain ValueError says either; its words alone tell which.
_ABOUT_SPLIT = ("Unknown split", "Bad split", "Unrecognized instruction", "Instruction ")
_ABOUT_CONFIG = ("BuilderConfig", "Config name")


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and value >= 0
