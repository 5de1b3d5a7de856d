"""``gpo submit --kubernetes``: a run as a RayJob, which starts its own cluster, with its files in a ConfigMap."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cluster.config import RunConfig
from cluster.config.secrets import secret_values
from cluster.session.models import embedded_specs
from cluster.submitting.jobs import JobSpec
from cluster.submitting.keys import require_no_key_values, require_no_keys
from cluster.submitting.package import input_paths
from gpo.errors import ConfigError

if TYPE_CHECKING:
    from cluster.sweep.config import SweepConfig

TEMPLATES = Path(__file__).resolve().parents[2] / "k8s" / "base"
"""Folder with the RayJob of each command, which serves as a template here and in the kustomizations."""
_FOLDER = "/etc/gpo/job"
_METRICS_PORT = 9464
"""The port that the PodMonitor scrapes."""
_MAX_BYTES = 900_000
"""A ConfigMap holds at most a mebibyte, names included."""
_SAVING_S = 600
_MAX_NAME = 47
"""KubeRay appends to a RayJob's name, and the name of a Service has at most 63 characters."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The objects of a run on Kubernetes.

    Attributes:
        config_map: the configuration and its files. It is immutable and its name contains a digest of them, so that
            resuming a run with another budget creates another one.
        job: the RayJob. Its pods wait for the ConfigMap, which must be created first.
    """

    config_map: dict[str, Any]
    job: dict[str, Any]

    @property
    def text(self) -> str:
        """Both objects as YAML, in the order in which they must be created."""
        return f"# kubectl apply --server-side -f FILE\n{as_yaml(self.config_map, self.job)}"


def manifest(
    config_path: Path, config: RunConfig, sweep: SweepConfig | None, spec: JobSpec, *, image: str | None, namespace: str
) -> Manifest:
    """A ConfigMap with the configuration and its files, and a RayJob that runs it.

    Namespace, Secrets, storage and Redis are those of ``k8s/base/platform``. Unless the configuration says otherwise,
    completions and a sweep's study are stored in that Redis, and metrics are exported for its PodMonitor. Overrides
    are part of the configuration.

    Args:
        config_path: the configuration's file, for errors.
        config: the configuration of the run, or of a sweep's trials.
        sweep: for the command ``sweep``.
        spec: the job; its ``config`` and ``overrides`` are not used.
        image: of all containers.
        namespace: of both objects.

    Raises:
        ConfigError: there is no image, a model is embedded, the template is missing, the files do not fit into a
            ConfigMap, or something in the objects looks like a key.
    """
    if not image:
        raise ConfigError("--image", "is missing", "name the image for the cluster's nodes")
    if embedded_specs(config):
        raise ConfigError(
            "models",
            "an embedded model serves one machine, but a RayJob has several nodes",
            "use an endpoint; k8s/overlays/laptop has a run on the head node only",
        )
    secrets = secret_values(*filter(None, (config, sweep.section if sweep else None)))
    require_no_key_values({"--run-id": spec.run_id, "--run-dir": spec.run_dir, "--image": image}, secrets)
    name = object_name(spec.run_id)
    content = _content(config_path, config, sweep, spec, secrets)
    if (size := sum(map(len, content.values()))) > _MAX_BYTES:
        raise ConfigError(
            "tasks",
            f"the files of {str(config_path)!r} have {size / 1e6:.1f} MB, but a ConfigMap holds 0.9 MB",
            "put them on the cluster's storage or into the image, and name their paths there",
        )
    labels = {"app.kubernetes.io/name": "gpo", "app.kubernetes.io/part-of": "gpo", "gpo-run": name}
    config_map: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-{_digest(content)}", "namespace": namespace, "labels": labels},
        "immutable": True,
        "data": {key: value.decode() for key, value in content.items() if not _is_binary(value)},
    }
    if binary := {key: base64.b64encode(value).decode() for key, value in content.items() if _is_binary(value)}:
        # Kubernetes drops an empty map, and would refuse it as a change when the object is applied again.
        config_map["binaryData"] = binary
    job = rayjob_template(spec.command)
    job["metadata"] = {"name": name, "namespace": namespace, "labels": {**job["metadata"]["labels"], **labels}}
    job_spec = job["spec"]
    if config.budget.wall_s is not None:
        job_spec["activeDeadlineSeconds"] = math.ceil(config.budget.wall_s) + job_margin_s(job_spec)
    deadline = ("--deadline", str(job_spec["activeDeadlineSeconds"] - job_margin_s(job_spec)), "--budget-ok")
    moved = replace(spec, config=f"{_FOLDER}/config.yaml", overrides=(), options=deadline)
    job_spec["entrypoint"] = moved.entrypoint
    for template in _ray_templates(job_spec):
        pod = template["spec"]
        pod["volumes"] = [*pod["volumes"], {"name": "job", "configMap": {"name": config_map["metadata"]["name"]}}]
        container = pod["containers"][0]
        container["volumeMounts"] = [
            *container["volumeMounts"],
            {"name": "job", "mountPath": _FOLDER, "readOnly": True},
        ]
    for template in [*_ray_templates(job_spec), job_spec["submitterPodTemplate"]]:
        template["spec"]["containers"][0]["image"] = image
    return Manifest(config_map, job)


def job_margin_s(job_spec: Mapping[str, Any]) -> int:
    """Seconds by which a run must end before KubeRay's deadline: the time to start its nodes, and to save its work.

    KubeRay counts its deadline from the creation of an attempt's cluster. It tells the run nothing, and the cluster
    outlives the deadline by ``ttlSecondsAfterFinished``. So the run has a deadline of its own, which comes first.
    """
    return int(job_spec["preRunningDeadlineSeconds"]) + _SAVING_S


def as_yaml(*objects: dict[str, Any]) -> str:
    """Objects as YAML documents for ``kubectl``."""
    return yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


def _digest(content: Mapping[str, bytes]) -> str:
    digest = blake2b(digest_size=5)
    for key, value in sorted(content.items()):
        digest.update(f"{key}\0{len(value)}\0".encode() + value)
    return digest.hexdigest()


def _content(
    config_path: Path, config: RunConfig, sweep: SweepConfig | None, spec: JobSpec, secrets: Sequence[bytes]
) -> dict[str, bytes]:
    """The content of the ConfigMap. Everybody who may read the namespace can read it, so it must not contain a key."""
    files = _files(config_path, sweep.together if sweep else config)
    for path in files:
        require_no_keys(
            path.parent,
            [path.name],
            secrets,
            where=str(config_path),
            remedy="name another file, or remove the key; the cluster's pods get keys from a Secret",
        )
    content = {key: path.read_bytes() for path, key in files.items()}
    sections = _sections(config, sweep, spec)
    require_no_key_values(sections, secrets)
    content["config.yaml"] = yaml.safe_dump(
        _moved(sections, {str(path): f"{_FOLDER}/{key}" for path, key in files.items()}),
        sort_keys=False,
        allow_unicode=True,
    ).encode()
    return content


def _sections(config: RunConfig, sweep: SweepConfig | None, spec: JobSpec) -> dict[str, Any]:
    """The configuration as written. Unset options, such as an endpoint's address, are resolved on the cluster."""
    raw = config.model_dump(mode="json", exclude_unset=True)
    raw.setdefault("cache", {"kind": "redis", "url_env": "GPO_REDIS_URL"})
    raw.setdefault("metrics", {"port": _METRICS_PORT, "host": "0.0.0.0"})  # noqa: S104  # of a pod, behind a NetworkPolicy
    if sweep is not None:
        section = sweep.section.model_dump(mode="json", exclude_unset=True)
        if "storage" not in section:
            # All sweeps share that Redis, so the study needs a unique name.
            section = {
                "study": object_name(spec.run_id),
                **section,
                "storage": {"kind": "url", "url_env": "GPO_STUDY_URL"},
            }
        raw["sweep"] = section
    return raw


def object_name(run_id: str) -> str:
    """A valid name for Kubernetes objects from a run ID.

    A valid ID is kept. Others are changed and get a digest, so that two runs never share a name.
    """
    name = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    name = name if name[:1].isalpha() else f"gpo-{name}".rstrip("-")
    if name == run_id and len(name) <= _MAX_NAME:
        return name
    tail = blake2b(run_id.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return f"{name[: _MAX_NAME - len(tail) - 1].rstrip('-')}-{tail}"


def _files(config_path: Path, config: RunConfig) -> dict[Path, str]:
    """The files that the configuration names, with their keys in the ConfigMap."""
    files: dict[Path, str] = {}
    for _, path in input_paths(config):
        if not path.exists():
            continue  # in the image or on the nodes
        if path.is_dir():
            raise ConfigError(
                "CONFIG",
                f"{str(config_path)!r} names the folder {str(path)!r}, but a ConfigMap holds files only",
                "put it on the cluster's storage or into the image, and name its path there",
            )
        files.setdefault(path, f"{len(files):02d}-{re.sub(r'[^A-Za-z0-9._-]', '_', path.name)}")
    return files


def _moved(value: Any, paths: Mapping[str, str]) -> Any:
    """The value with every text that is one of the paths replaced."""
    if isinstance(value, dict):
        return {name: _moved(below, paths) for name, below in value.items()}
    if isinstance(value, list):
        return [_moved(below, paths) for below in value]
    return paths.get(value, value) if isinstance(value, str) else value


def _is_binary(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return False


def rayjob_template(command: str) -> dict[str, Any]:
    """The RayJob of a command, ``run`` or ``sweep``, as it is in the kustomization.

    Raises:
        ConfigError: this installation has no manifests.
    """
    path = TEMPLATES / command / "rayjob.yaml"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "--kubernetes", f"{str(path)!r} is missing", "use a checkout of the program or its image"
        ) from None
    return dict(document)


def _ray_templates(spec: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = spec["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


class _Plain(yaml.SafeDumper):
    """Writes multi-line texts as blocks, and repeated values in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_READ_OTHERWISE = re.compile(r"[yYnN]|[-+]?\.?\d\S*")
"""Texts that some readers of YAML take for a truth value or a number (``n``, ``1e3``), although PyYAML does not."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else '"' if _READ_OTHERWISE.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _text)
