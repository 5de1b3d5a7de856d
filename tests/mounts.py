"""Folders as a cluster lays them out: a mounted ConfigMap, and the working directory of a Ray job."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


def mount(folder: Path, files: Mapping[str, str], stamp: str) -> None:
    """Lay files out as kubelet mounts a ConfigMap, over an earlier mount of other files.

    Args:
        stamp: distinguishes the mounts; kubelet takes the time.
    """
    written = folder / f"..{stamp}"
    written.mkdir(parents=True)
    for name, text in files.items():
        (written / name).write_text(text, encoding="utf-8")
    link = folder / "..data"
    earlier = link.readlink() if link.is_symlink() else None
    (folder / "..data_tmp").symlink_to(written.name)
    (folder / "..data_tmp").replace(link)
    if earlier is not None:
        shutil.rmtree(folder / earlier)
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
