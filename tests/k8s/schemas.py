"""Checks objects against the schemas of Kubernetes and KubeRay, including unknown fields and quantities."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from tests.k8s.conftest import CRDS

KUBERNETES = "1.34"
FOREIGN = ("monitoring.coreos.com", "kueue.x-k8s.io")
"""API groups without a schema here."""
_QUANTITY = re.compile(r"[+-]?(\d+|\d+\.\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")


class Misfit(Exception):
    """Kubernetes would refuse the object, or silently drop a part of it."""


def check(item: dict[str, Any]) -> None:
    """Raise ``Misfit`` for the first mistake."""
    group = item["apiVersion"].partition("/")[0]
    if group in FOREIGN:
        return
    if group == "ray.io":
        errors = sorted(_crd(item["kind"]).iter_errors(item), key=lambda error: list(map(str, error.path)))
        if errors:
            raise Misfit(f"{'.'.join(map(str, errors[0].path))}: {errors[0].message[:300]}")
    else:
        try:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Misfit(str(error.message)) from None
    for path, quantity in _quantities(item):
        if not isinstance(quantity, int | float) and not _QUANTITY.fullmatch(quantity):
            raise Misfit(f"{path}: {quantity!r} is not a quantity")


def _quantities(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of each quantity in ``requests``, ``limits`` and ``sizeLimit``."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in ("requests", "limits") and isinstance(below, dict):
                yield from ((f"{path}.{key}.{name}", quantity) for name, quantity in below.items())
            elif key == "sizeLimit":
                yield f"{path}.{key}", below
            else:
                yield from _quantities(below, f"{path}.{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _quantities(below, f"{path}[{index}]")


@cache
def _crd(kind: str) -> Draft202012Validator:
    document = yaml.load((CRDS / f"ray.io_{kind.lower()}s.yaml").read_text("utf-8"), Loader=yaml.CSafeLoader)
    (schema,) = [version["schema"]["openAPIV3Schema"] for version in document["spec"]["versions"] if version["storage"]]
    closed = _closed(schema)
    closed["properties"] |= {"metadata": {"type": "object"}}
    return Draft202012Validator(closed)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, with an error for each unknown field, which the API server would silently drop."""
    known = {
        key: value for key, value in schema.items() if not key.startswith("x-") and key not in ("nullable", "format")
    }
    if schema.get("x-kubernetes-int-or-string"):
        known.pop("type", None)
        known["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        known["properties"] = {name: _closed(below) for name, below in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            known["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        known["additionalProperties"] = _closed(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        known["items"] = _closed(schema["items"])
    return known
