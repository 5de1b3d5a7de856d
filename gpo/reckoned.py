"""Values that keep what they have reckoned once."""

from __future__ import annotations

from typing import Any


class Reckons:
    """A frozen dataclass with cached properties, which travels without them.

    Who sends a value on may do so in another thread, while its owner goes on reckoning: pickled as it stands, it would
    change meanwhile.
    """

    def __getstate__(self) -> dict[str, Any]:
        fields: dict[str, Any] = type(self).__dataclass_fields__  # type: ignore[attr-defined]
        known = self.__dict__
        return {name: known[name] for name in fields}
