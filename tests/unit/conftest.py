from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def offline_datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package ``datasets`` without network; the folder of its cache."""
    # Read when the packages are imported; another test may have done that already.
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("huggingface")
        patch.setenv("HF_HOME", str(home))
        patch.setenv("HF_HUB_OFFLINE", "1")
        datasets = pytest.importorskip("datasets")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
        yield home
