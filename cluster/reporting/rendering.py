"""Pages that load nothing from other hosts, and run no script but their own."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

import jinja2

from cluster.display.progress import duration, percent

# Autoescape treats everything from models and files as text, never as markup. The templates mark only our own style
# and script, and data without any "<", as safe.
_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("cluster.reporting", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
)


@dataclass(frozen=True, slots=True)
class Live:
    """What a page of ``gpo view`` needs in order to renew itself.

    Attributes:
        version: of the content; the server answers a request for it without the page.
        every_s: seconds between two requests; 0 for a page that does not renew itself.
        run: quoted name of the run, with which its parts are requested; empty for other pages.
    """

    version: str
    every_s: float
    run: str = ""


def rendered(template: str, scripts: Sequence[str], live: Live | None = None, **values: Any) -> str:
    """A page.

    Args:
        scripts: names of files; they become one script, whose names nothing else on the page can see.
        live: for a page of ``gpo view``, which may call its own server.
    """
    style = _asset("report.css")
    names = (*scripts, *(("live.js",) if live else ()), "start.js")
    script = "\n".join(['"use strict";', "(() => {", *map(_asset, names), "})();"])
    return _PAGES.get_template(template).render(
        live=live,
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
        percent=percent,
        duration=duration,
        **values,
    )


def as_data(document: Mapping[str, Any]) -> str:
    """JSON without ``<``, so that no ``</script>`` or ``<!--`` in it can end the element."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


@cache
def _asset(name: str) -> str:
    return files("cluster.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The hash by which the content security policy allows a script or style."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
