"""An endpoint as an argument of ``gpo.optimize``."""

from __future__ import annotations

from typing import Any


class Endpoint:
    """A model behind an endpoint that speaks the OpenAI API.

    Example: ``Endpoint("https://example.com/v1", model="large", api_key_env="EXAMPLE_KEY", max_concurrency=32)``

    Args:
        base_url: address up to and including ``/v1``. Default: the environment variable OPENAI_BASE_URL, or else
            OpenAI's own endpoint.
        model: name of the model there.
        options: all other options of a model in YAML, under the same names, such as ``sampling={"temperature": 0.5}``,
            ``price={"prompt": 0.15, "completion": 0.6}``, ``requests_per_min``. Keys are never passed: name the
            variable (``api_key_env``) or the file (``api_key_file``) that holds one.
    """

    def __init__(self, base_url: str | None = None, *, model: str, **options: Any) -> None:
        self.options: dict[str, Any] = {"model": model, **options}
        if base_url is not None:
            self.options["base_url"] = base_url

    def __repr__(self) -> str:
        return f"Endpoint({self.options.get('base_url')!r}, model={self.options['model']!r})"
