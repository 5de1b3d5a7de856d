"""What all sections of the configuration have in common."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A part of the configuration: immutable, closed to unknown options, documented field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_options(cls, data: Any) -> Any:
        """Name what would have been right; the value is not shown, since a misplaced secret may be in it."""
        if isinstance(data, dict):
            known = list(cls.model_fields)
            for option in data:
                if option not in known:
                    near = get_close_matches(str(option), known, n=1)
                    remedy = f"did you mean {near[0]!r}?" if near else f"choose among: {', '.join(known)}"
                    raise PydanticCustomError(
                        "unknown_option", "is not an option; {remedy}", {"at": str(option), "remedy": remedy}
                    )
        return data


def _resolved(path: Path, info: ValidationInfo) -> Path:
    base: Path = (info.context or {}).get("base_dir", Path.cwd())
    try:
        return (base / path.expanduser()).resolve()
    except (RuntimeError, ValueError) as error:  # no such user's home, a NUL
        raise PydanticCustomError(
            "path", "{path} is no path ({reason}); name another", {"path": repr(str(path)), "reason": str(error)}
        ) from None


ConfigPath = Annotated[Path, AfterValidator(_resolved)]
"""A path that is relative to the configuration file's folder; absolute once loaded."""


def by_kind(default: str, *others: str) -> Discriminator:
    """Chooses among sections by their ``kind``, which may be left out where the default is meant."""

    def kind_of(value: Any) -> str:
        if isinstance(value, dict):
            return str(cast("dict[str, Any]", value).get("kind", default))
        return str(getattr(value, "kind", default))

    return Discriminator(
        kind_of,
        custom_error_type="unknown_kind",
        custom_error_message="is unknown; choose one of: {kinds}",
        custom_error_context={"at": "kind", "kinds": ", ".join((default, *others))},
    )
