"""Answers and targets in one form, so that only what they say is compared.

Models write the same answer in many ways: full-width letters, typographic dashes and quotes, invisible characters,
LaTeX, JSON, tags. Every scorer but those of the ``paper`` parser reads the normal form.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Characters of scripts that write no spaces between words, as the inside of a regular expression's class."""

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_VULGAR_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_ALIKE = str.maketrans(
    dict.fromkeys("‐‑‒–—―−﹣－", "-")
    | dict.fromkeys("‘’‚‛′´`ʼ", "'")
    | dict.fromkeys("“”„‟″«»", '"')
    | {"⁄": "/", "∕": "/", "：": ":", "。": ".", "、": ",", "，": ","}
)

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|operatorname|mbox)\s*\{([^{}]*)\}")
_LATEX_MARKS = re.compile(r"\\[()\[\]]|\\[!,;: ]|\$(?=[^\s$\d]|\\)|(?<=[^\s$])\$")
_CLOSING_TAG = re.compile(r"</(final_answer|answer|output|result|label)>", re.IGNORECASE)
_LANGUAGE = re.compile(r"[\w+-]{0,30}[ \t]*(?:\n|$)")
_ANSWER_FIELDS = (
    "answer", "final_answer", "finalanswer", "final answer", "label", "prediction", "predicted_label", "choice",
    "verdict", "sentiment", "category", "classification",
)  # fmt: skip
_WEAK_FIELDS = ("result", "option", "class", "output", "response", "value")
"""Fields that hold the answer only in an object that is the whole reply."""
_MAX_OBJECTS = 50


def normal_form(text: str) -> str:
    """The text with compatible characters unified (Unicode NFKC), and without invisible ones.

    Dashes, quotes and full-width punctuation become ASCII, superscripts ``^2``, a fraction such as ½ ``1/2``.
    """
    text = _SUPERSCRIPT.sub(lambda digits: "^" + digits[0].translate(_SUPERSCRIPTS), _INVISIBLE.sub("", text))
    return unicodedata.normalize("NFKC", _VULGAR_FRACTION.sub(" ", text)).translate(_ALIKE)


def unwrapped(text: str) -> str:
    r"""The answer in a wrapper, in normal form; the whole text where there is none.

    Known wrappers: ``\boxed{}``, ``<answer>``, a JSON object with an answer field, a code fence around everything.
    """
    text = normal_form_outside_code(text)
    text = _unfenced(text)
    found = _answer_field(text)
    if found is not None:
        return without_latex(normal_form(found))
    text = _tagged(text) or text
    boxed = _last_boxed(text)
    return without_latex(boxed if boxed is not None and boxed.strip() else text)


def _unfenced(text: str) -> str:
    """The inside of a code fence around everything."""
    inner = text.strip()
    if len(inner) <= 6 or not (inner.startswith("```") and inner.endswith("```")) or "```" in inner[3:-3]:
        return text
    inner = inner[3:-3]
    language = _LANGUAGE.match(inner)
    return inner[language.end() :].strip() if language and language[0].endswith("\n") else inner.strip()


def _tagged(text: str) -> str:
    """What the last answer tags contain; empty where there are none."""
    closing = list(_CLOSING_TAG.finditer(text))
    if not closing:
        return ""
    opening = f"<{closing[-1][1]}>".lower()
    begin = text[: closing[-1].start()].lower().rfind(opening)
    return text[begin + len(opening) : closing[-1].start()].strip() if begin >= 0 else ""


def normal_form_outside_code(text: str) -> str:
    """The normal form, in which a code fence of backticks is still one."""
    return "```".join(normal_form(part) for part in text.split("```"))


def without_latex(text: str) -> str:
    """The text without LaTeX's marks for mathematics and for text in it."""
    text = text.replace("{,}", ",").replace("\\%", "%").replace("\\$", "$")
    for _ in range(3):
        text = _LATEX_TEXT.sub(r"\1", text)
    return _LATEX_MARKS.sub("", text)


def _last_boxed(text: str) -> str | None:
    starts = list(_BOXED.finditer(text))
    if not starts:
        return None
    depth = 1
    for index in range(starts[-1].end(), len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if not depth:
            return text[starts[-1].end() : index]
    return text[starts[-1].end() :]


def _answer_field(text: str) -> str | None:
    """The answer in the last JSON object of a text that has one; objects within objects do not count."""
    decoder, found, start = json.JSONDecoder(strict=False), None, text.find("{")
    for _ in range(_MAX_OBJECTS):
        if start < 0:
            break
        try:
            document, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        is_whole = not text[:start].strip() and not text[end:].strip()
        found = _field(document, (*_ANSWER_FIELDS, *_WEAK_FIELDS) if is_whole else _ANSWER_FIELDS) or found
        start = text.find("{", end)
    return found


def _field(document: Any, names: Sequence[str]) -> str | None:
    if not isinstance(document, dict):
        return None
    fields = {str(name).lower(): value for name, value in document.items()}
    for name in names:
        value = fields.get(name)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (str, int, float)):
            return str(value)
    return None
