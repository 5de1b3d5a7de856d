"""``gpo submit --kubernetes``: a run as a RayJob, with a cluster of its own and the configuration beside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cluster.config import RunConfig
from cluster.config.secrets import secret_values
from cluster.session.models import embedded_specs
from cluster.submitting.jobs import Order
from cluster.submitting.keys import require_no_key_values, require_no_keys
from cluster.submitting.package import input_paths
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from cluster.sweep.config import SweepConfig

TEMPLATES = Path(__file__).resolve().parents[2] / "k8s" / "base"
"""The RayJobs of the kustomizations, by command, which these are made of."""
_FOLDER = "/etc/gpo/job"
_METRICS_PORT = 9464
"""Which the PodMonitor has scraped."""
_MAX_BYTES = 900_000
"""A ConfigMap holds a mebibyte, names included."""
_MAX_NAME = 47
"""KubeRay adds to a RayJob's name, and a Service's has at most 63 characters."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What Kubernetes is given.

    Attributes:
        config_map: the configuration and its files. Its name has a digest of them: it cannot be changed, so that who
            goes on with a run with another budget makes another one.
        job: the RayJob that runs it. Its pods wait for the ConfigMap, which must be there first.
    """

    config_map: dict[str, Any]
    job: dict[str, Any]

    @property
    def text(self) -> str:
        """Both as YAML, in the order in which they are to be made."""
        return f"# kubectl apply --server-side -f FILE\n{as_yaml(self.config_map, self.job)}"


def manifest(
    config_path: Path, config: RunConfig, sweep: SweepConfig | None, order: Order, *, image: str | None, namespace: str
) -> Manifest:
    """A ConfigMap with the configuration and its files, and a RayJob that runs it.

    Namespace, Secrets, storage and Redis are those of ``k8s/base/platform``: completions and a sweep's study go to
    that Redis, and metrics are exported for its PodMonitor, unless the configuration says otherwise. Overrides are
    part of the configuration.

    Args:
        config_path: for errors.
        config: of the run, or below a sweep's trials.
        sweep: for the command ``sweep``.
        order: what to run; ``config`` and ``overrides`` are made up for here.
        image: of all containers.

    Raises:
        ConfigError: there is no image, a model is an embedded one, the template is not installed, the files do not
            fit into a ConfigMap, or something that would stand in the objects looks like a key.
    """
    if not image:
        raise ConfigError("--image", "is missing", "name the image that the cluster's nodes shall run")
    if embedded_specs(config):
        raise ConfigError(
            "models",
            "an embedded model serves one machine, and a RayJob has several nodes",
            "use an endpoint; k8s/overlays/laptop has a run on a head alone",
        )
    secrets = secret_values(*filter(None, (config, sweep.section if sweep else None)))
    require_no_key_values({"--run-id": order.run_id, "--run-dir": order.run_dir, "--image": image}, secrets)
    name = object_name(order.run_id)
    content = _content(config_path, config, sweep, order, secrets)
    if (size := sum(map(len, content.values()))) > _MAX_BYTES:
        raise ConfigError(
            "tasks",
            f"the files of {str(config_path)!r} have {size / 1e6:.1f} MB, and a ConfigMap holds 0.9 MB",
            "put them on the cluster's storage or into the image, and name their places there",
        )
    labels = {"app.kubernetes.io/name": "gpo", "app.kubernetes.io/part-of": "gpo", "gpo-run": name}
    config_map: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-{_digest(content)}", "namespace": namespace, "labels": labels},
        "immutable": True,
        "binaryData": {key: base64.b64encode(value).decode() for key, value in content.items() if _is_binary(value)},
        "data": {key: value.decode() for key, value in content.items() if not _is_binary(value)},
    }
    job = _template(order.command)
    job["metadata"] = {"name": name, "namespace": namespace, "labels": {**job["metadata"]["labels"], **labels}}
    spec = job["spec"]
    spec["entrypoint"] = Order(order.command, f"{_FOLDER}/config.yaml", (), order.run_id, order.run_dir).entrypoint
    for template in _ray_templates(spec):
        pod = template["spec"]
        pod["volumes"] = [*pod["volumes"], {"name": "job", "configMap": {"name": config_map["metadata"]["name"]}}]
        container = pod["containers"][0]
        container["volumeMounts"] = [
            *container["volumeMounts"],
            {"name": "job", "mountPath": _FOLDER, "readOnly": True},
        ]
    for template in [*_ray_templates(spec), spec["submitterPodTemplate"]]:
        template["spec"]["containers"][0]["image"] = image
    return Manifest(config_map, job)


def as_yaml(*objects: dict[str, Any]) -> str:
    """Objects as documents that ``kubectl`` reads."""
    return yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


def _digest(content: Mapping[str, bytes]) -> str:
    digest = blake2b(digest_size=5)
    for key, value in sorted(content.items()):
        digest.update(f"{key}\0{len(value)}\0".encode() + value)
    return digest.hexdigest()


def _content(
    config_path: Path, config: RunConfig, sweep: SweepConfig | None, order: Order, secrets: Sequence[bytes]
) -> dict[str, bytes]:
    """What the ConfigMap holds, by its keys. Whoever may read the namespace reads it, so that no key may be there."""
    files = _files(config_path, sweep.together if sweep else config)
    for path in files:
        require_no_keys(
            path.parent,
            [path.name],
            secrets,
            where=str(config_path),
            remedy="name another file, or take it out there; the cluster's pods have keys from a Secret",
        )
    content = {key: path.read_bytes() for path, key in files.items()}
    sections = _sections(config, sweep, order)
    require_no_key_values(sections, secrets)
    content["config.yaml"] = yaml.safe_dump(
        _moved(sections, {str(path): f"{_FOLDER}/{key}" for path, key in files.items()}),
        sort_keys=False,
        allow_unicode=True,
    ).encode()
    return content


def _sections(config: RunConfig, sweep: SweepConfig | None, order: Order) -> dict[str, Any]:
    """The configuration as it was written: an endpoint's place that was left out, say, is up to the cluster."""
    raw = config.model_dump(mode="json", exclude_unset=True)
    raw.setdefault("cache", {"kind": "redis", "url_env": "GPO_REDIS_URL"})
    raw.setdefault("metrics", {"port": _METRICS_PORT, "host": "0.0.0.0"})  # noqa: S104  # of a pod, behind a NetworkPolicy
    if sweep is not None:
        section = sweep.section.model_dump(mode="json", exclude_unset=True)
        if "storage" not in section:
            # All sweeps share that Redis, so that the study needs a name of its own.
            section = {
                "study": object_name(order.run_id),
                **section,
                "storage": {"kind": "url", "url_env": "GPO_STUDY_URL"},
            }
        raw["sweep"] = section
    return raw


def object_name(run_id: str) -> str:
    """A name that Kubernetes takes, made of a run's id.

    One that Kubernetes takes as it is stays as it is; others get a digest, so that no two runs have one name.
    """
    name = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    name = name if name[:1].isalpha() else f"gpo-{name}".rstrip("-")
    if name == run_id and len(name) <= _MAX_NAME:
        return name
    tail = blake2b(run_id.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return f"{name[: _MAX_NAME - len(tail) - 1].rstrip('-')}-{tail}"


def _files(config_path: Path, config: RunConfig) -> dict[Path, str]:
    """The files that the configuration names, each with its key in the ConfigMap."""
    files: dict[Path, str] = {}
    for _, path in input_paths(config):
        if not path.exists():
            continue  # of the image or the nodes
        if path.is_dir():
            raise ConfigError(
                "CONFIG",
                f"{str(config_path)!r} names the folder {str(path)!r}, and a ConfigMap holds files",
                "put it on the cluster's storage or into the image, and name its place there",
            )
        files.setdefault(path, f"{len(files):02d}-{re.sub(r'[^A-Za-z0-9._-]', '_', path.name)}")
    return files


def _moved(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _moved(below, places) for name, below in value.items()}
    if isinstance(value, list):
        return [_moved(below, places) for below in value]
    return places.get(value, value) if isinstance(value, str) else value


def _is_binary(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return False


def _template(command: str) -> dict[str, Any]:
    path = TEMPLATES / command / "rayjob.yaml"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "--kubernetes", f"{str(path)!r} is missing", "use the program's own folder or image"
        ) from None
    return dict(document)


def _ray_templates(spec: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = spec["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


class _Plain(yaml.SafeDumper):
    """Writes texts of several lines as such, and everything out that stands twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_READ_OTHERWISE = re.compile(r"[yYnN]|[-+]?\.?\d\S*")
"""Texts that other readers of YAML may take for a truth value or a number (``n``, ``1e3``), and PyYAML does not."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else '"' if _READ_OTHERWISE.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _text)
