"""Answers and targets in one form, so that only what they say is compared.

Models write the same answer in many ways: full-width letters, typographic dashes and quotes, invisible characters,
LaTeX, JSON, tags. Every scorer but those of the ``paper`` parser reads the normal form.
"""

from __future__ import annotations

import json
import re
import unicodedata
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
_TAGGED = re.compile(r"<(final_answer|answer|output|result|label)>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_FENCED = re.compile(r"\s*```[\w+-]*[ \t]*\n?(.*?)\n?[ \t]*```\s*", re.DOTALL)
_ANSWER_FIELDS = (
    "answer", "final_answer", "finalanswer", "final answer", "label", "prediction", "predicted_label", "result",
    "choice", "option", "verdict", "sentiment", "category", "class", "classification", "output", "response", "value",
)  # fmt: skip


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
    fenced = _FENCED.fullmatch(text)
    if fenced:
        text = fenced[1].strip()
    found = _answer_field(text)
    if found is not None:
        return without_latex(normal_form(found))
    tagged = _TAGGED.findall(text)
    if tagged and tagged[-1][1].strip():
        text = tagged[-1][1].strip()
    boxed = _last_boxed(text)
    return without_latex(boxed if boxed is not None and boxed.strip() else text)


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
    """The answer in the last JSON object of a text that has one."""
    for start in reversed([index for index, character in enumerate(text) if character == "{"][:50]):
        try:
            document, _ = json.JSONDecoder(strict=False).raw_decode(text[start:])
        except (ValueError, RecursionError):
            continue
        found = _field(document)
        if found is not None:
            return found
    return None


def _field(document: Any) -> str | None:
    if not isinstance(document, dict):
        return None
    fields = {str(name).lower(): value for name, value in document.items()}
    for name in _ANSWER_FIELDS:
        value = fields.get(name)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (str, int, float)):
            return str(value)
    return None
