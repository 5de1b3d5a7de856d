"""What a user asks of every prompt of a task."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from gpo.prompt import HEADING, PLACEHOLDER, Prompt, parts_of

Constraint = Literal["must_keep", "max_words", "forbid", "language"]
"""The names of the constraints: those of the options."""

_CERTAIN = 0.9
"""A prompt is in another language if the detector gives that one at least this probability."""
_FEWEST_DETECTED = 3
"""Fewer words tell too little about their language."""


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the user asks of every prompt of a task.

    Attributes:
        must_keep: texts that each prompt contains, as they are written here; white space and the form of quotation
            marks may differ.
        max_words: most words, with placeholders not counted; ``None`` is no bound.
        forbid: words or phrases that no prompt contains, in capitals or not.
        language: ISO 639-1 code of the language of the prompts; ``None`` for any.
        of_parts: what is asked of single parts of a prompt with several parts, by their names. All other constraints
            hold for the parts together.
    """

    must_keep: tuple[str, ...] = ()
    max_words: int | None = None
    forbid: tuple[str, ...] = ()
    language: str | None = None
    of_parts: Mapping[str, Constraints] = field(default_factory=dict[str, "Constraints"])

    def broken(self, prompt: Prompt) -> tuple[Constraint, str] | None:
        """The first constraint that the prompt does not keep, and how it breaks it; ``None`` if it keeps all.

        The second text follows "the prompt", as in "has 12 words, more than 10".
        """
        body = "\n\n".join(parts_of(prompt.text).values()) or prompt.text  # headings of parts do not count
        text, written = _spaced(body), _written(body)
        for kept in self.must_keep:
            if _spaced(kept) not in text:
                return "must_keep", f"does not contain {kept!r}"
        num_words = len(written.split())
        if self.max_words is not None and num_words > self.max_words:
            return "max_words", f"has {num_words} words, more than {self.max_words}"
        for forbidden in self.forbid:
            if _phrase(forbidden).search(text):
                return "forbid", f"contains {forbidden!r}"
        if self.language is not None and (found := _other_language(written, self.language)):
            return "language", f"is in another language ({found}) than {self.language}"
        parts = parts_of(prompt.text) if self.of_parts else {}
        for name, constraints in self.of_parts.items():
            if name in parts and (problem := constraints.broken(Prompt(parts[name]))) is not None:
                constraint, how = problem
                return constraint, f"{how}, in [[{name}]]"
        return None

    def of(self, part: str) -> Constraints:
        """What the author of one part has to know: its own constraints, and those of all parts together."""
        own = self.of_parts.get(part)
        if own is None:
            return self
        return Constraints(
            (*self.must_keep, *own.must_keep),
            own.max_words or self.max_words,
            (*self.forbid, *own.forbid),
            own.language or self.language,
        )

    def sentences(self) -> Iterator[str]:
        """The constraints in words, for the optimizer model."""
        if self.must_keep:
            yield f"It must contain, word for word: {_listed(self.must_keep)}."
        if self.forbid:
            yield f"It must not contain: {_listed(self.forbid)}."
        if self.max_words is not None:
            yield f"It must have at most {self.max_words} words."
        if self.language is not None:
            yield f"Write it in {_LANGUAGES.get(self.language, self.language)}."


def _spaced(text: str) -> str:
    """The text in one form: compatible characters, plain quotation marks, single spaces, no invisible signs."""
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    return " ".join("".join(sign for sign in text if unicodedata.category(sign) != "Cf").split())


def _written(text: str) -> str:
    """The text without placeholders and headings."""
    return HEADING.sub(" ", PLACEHOLDER.sub(" ", text))


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(f'"{text}"' for text in texts)


@cache
def _phrase(text: str) -> re.Pattern[str]:
    """Finds whole words, whatever their capitals; signs are found anywhere."""
    words = r"[\s-]+".join(map(re.escape, _spaced(text).split()))
    return re.compile(rf"(?<!\w){words}(?!\w)" if re.match(r"\w.*\w$|\w$", text, re.DOTALL) else words, re.IGNORECASE)


_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "‐": "-", "‑": "-"})
_ALIKE = ({"da", "no"},)
"""Languages that short texts do not tell apart."""
_KANA = re.compile(r"[\u3040-\u30ff]")
_LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
LANGUAGE_CODES = tuple(_LANGUAGES)
"""The languages that can be asked for."""


def _other_language(text: str, language: str) -> str | None:
    """The language of the text if it is surely not this one."""
    # Languages without spaces have few words.
    if len(text.split()) < _FEWEST_DETECTED and text.isascii():
        return None
    found, probability = _detector().classify(text)
    alike = [*_ALIKE, *([] if _KANA.search(text) else [{"ja", "zh"}])]
    if found == language or probability < _CERTAIN or {found, language} in alike:
        return None
    return str(found)


@cache
def _detector() -> Any:
    # Its model takes about a second to load.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    detector.set_languages(list(LANGUAGE_CODES))
    return detector
