"""Multiple choice: reads the option that an answer chooses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from gpo.data.example import Example
from gpo.evaluation.metrics.normal_form import UNSPACED, normal_form, unwrapped
from gpo.evaluation.metrics.scorer import RECENT, announced, misread, neither_nor, without_markup

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# "(A) cat", "A. cat", "A) cat", "A: cat", in capitals or not; one a line, or several on a line.
_OPTION_STYLES = tuple(
    rf"{before}([{letters}]){after}" for letters in ("A-Z", "a-z") for before, after in ((r"\(", r"\)"), ("", r"[.):]"))
)
_ON_LINES = tuple(re.compile(rf"^[ \t]*{style}[ \t]*(.*?)[ \t]*$", re.MULTILINE) for style in _OPTION_STYLES)
_IN_LINE = tuple(
    re.compile(rf"(?<!\S){style}\s+(.*?)(?=\s+(?<!\S){style}\s|[ \t]*$)", re.MULTILINE) for style in _OPTION_STYLES
)
# "(b)" or "option B".
_MARKED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]|\b(?:[Oo]ption|[Cc]hoice|OPTION|CHOICE)\s+([A-Z])\b")
_LEADING = re.compile(r"\s*[(\[]?([A-Za-z])(?:[)\].:,]|\s*$|\s+[-–—])")
_FIRST_WORD = re.compile(r"\s*([A-Z])(?![\w'’])")
_ONE_LETTER = re.compile(r"\W*([a-z])\W*")
_WORD = re.compile(r"\w+")
# "A" and "I" are words too: they are letters of options where nothing follows that they could belong to.
_UPPER_WORD = re.compile(
    rf"(?<!\w')(?<![^\W{UNSPACED}])"
    rf"(?:([B-HJ-Z])(?![^\W{UNSPACED}]|'\w)|([AI])(?=[\s\"'*_]*(?:$|[.,;:!?)\]{UNSPACED}]|-\s)))",
    re.MULTILINE,
)
_CONFIRMED = re.compile(
    r"(?:[(\[]([A-Za-z])[)\]]|\b([A-Z]))\s+(?:is|seems|must be)\s+(?:the\s+)?(?:correct|right|best|answer)\b"
)
_DENIED = re.compile(
    r"(?:\bnot|n['’]t|\brather than|\binstead of)\s+(?:(?:option|choice)\s+)?"
    r"(?:[(\[]\s*[A-Z]\s*[)\]]|[B-HJ-Z](?![\w'’]))",
    re.IGNORECASE,
)

_LETTER = r"[(\[]\s*[A-Z]\s*[)\]]|[A-Z](?![\w'’])"
_REJECTED = re.compile(
    r"[(\[]\s*[A-Za-z]\s*[)\]]\s+(?:is|seems|looks)\s+(?:wrong|incorrect|false|not)\b", re.IGNORECASE
)
_TOGETHER = re.compile(
    r"[(\[]\s*[A-Z]\s*[)\]](?:\s*(?:[,/&]|,?\s*\b(?:and|or)\b)\s*(?:(?:option|choice)\s+)?[(\[]\s*[A-Z]\s*[)\]])+",
    re.IGNORECASE,
)


def options(example: Example) -> dict[str, str]:
    """Letter → text of the options listed in an input: ``(A) cat``, ``A. cat``, ``A) cat`` or ``a: cat``.

    They are one per line or several on a line, from A on without a gap. If an input lists several sets, the last one
    counts. Empty if none are listed.
    """
    text = normal_form(example.input)
    for pattern in (*_ON_LINES, *_IN_LINE):
        listed: dict[str, str] = {}
        for match in pattern.finditer(text):
            letter = match[1].upper()
            if letter == "A":
                listed = {}
            if letter != _ALPHABET[len(listed) % len(_ALPHABET)]:
                continue
            listed[letter] = match[2].strip()
        if len(listed) > 1:
            return listed
    return {}


@dataclass(frozen=True, slots=True)
class ChoiceScorer:
    """The answer is an option letter; targets look like ``(B)`` or ``B``.

    The first of these parts that contains an option decides: the text after the last "the answer is"; the last "(B) is
    correct"; a first line that consists of an option; the rest of the answer. In each part, a marked letter takes
    precedence over the text of exactly one option, and that over a single capital letter. Of several letters the last
    one counts, but after "the answer is" the first one. Letters that are not options, that the answer denies ("not (A)
    but (B)") or lists together ("(A) and (B) are both plausible", "neither A nor B") do not count.
    """

    def can_read(self, answer: str, example: Example) -> bool:
        """Whether the answer settles on an option."""
        return self._read(answer, example) is not None

    def reads_as(self, answer: str, example: Example) -> str | None:
        """The option's letter, in brackets if the target has some; ``None`` without an option."""
        letter = self._read(answer, example)
        return f"({letter})" if letter and example.target.strip().startswith("(") else letter

    def _read(self, answer: str, example: Example) -> str | None:
        return _chosen(answer, example)

    def score(self, answer: str, example: Example) -> float:
        """1 if the letter read from the answer is the target's, else 0."""
        letter = self._read(answer, example)
        return float(letter is not None and letter in {target.strip("() ").upper() for target in example.targets})

    def explain(self, answer: str, example: Example) -> str:
        """The option that was read."""
        letter = self._read(answer, example)
        return misread(f"({letter})", example.target) if letter else "no option such as (A) was found in the answer"

    def follow_up(self, example: Example) -> str:
        """Asks for one of the listed options."""
        letters = sorted(options(example))
        span = f"from ({letters[0]}) to ({letters[-1]})" if letters else "by its letter, such as (A)"
        return f"Now give only the final answer: one option {span}."


@lru_cache(RECENT)
def _chosen(answer: str, example: Example) -> str | None:
    return _letter(without_markup(unwrapped(answer)), options(example))


def _letter(answer: str, listed: dict[str, str]) -> str | None:
    if not any("neither" in option.lower() for option in listed.values()):
        named = "|".join([_LETTER, *(re.escape(option) + r"(?!\w)" for option in listed.values() if option)])
        answer = neither_nor(named).sub(" ", answer)
    if not any(_TOGETHER.search(option) for option in listed.values()):  # "(C) both (A) and (B)"
        answer = _TOGETHER.sub("", answer)
    answer = _REJECTED.sub("", _DENIED.sub("", answer))
    for option in listed.values():
        if option:
            denied = rf"(?:\bnot|\brather than|\binstead of)\s+(?:the\s+|an?\s+)?{re.escape(option)}(?!\w)"
            answer = re.sub(denied, "", answer, flags=re.IGNORECASE)
    conclusion = announced(answer)
    found = _concluded(conclusion, listed) if conclusion is not None else None
    if found is None:
        confirmed = _known(_CONFIRMED, answer, listed)
        found = confirmed[-1] if confirmed else _alone_in_first_line(answer, listed)
    return found or _mentioned(answer, listed)


def _concluded(conclusion: str, listed: dict[str, str]) -> str | None:
    first = (
        _known(_LEADING, conclusion, listed, at_start=True)
        or _known(_MARKED, conclusion, listed)
        or _named(conclusion, listed)
        or _known(_FIRST_WORD, conclusion, listed, at_start=True)
    )
    last = _known(_UPPER_WORD, conclusion, listed)
    return first[0] if first else last[-1] if last else None


def _alone_in_first_line(answer: str, listed: dict[str, str]) -> str | None:
    """The option if the first line consists of its letter, its text, or both."""
    line = answer.partition("\n")[0].lower()
    bare = _ONE_LETTER.fullmatch(line)
    if bare:
        letters = [bare[1].upper()]
    else:
        letters = [
            letter
            for letter, option in listed.items()
            if line.strip(" .") == option.lower().strip(" .")
            or _WORD.findall(line) == [letter.lower(), *_WORD.findall(option.lower())]
        ]
    known = [letter for letter in letters if not listed or letter in listed]
    return known[0] if len(known) == 1 else None


def _mentioned(answer: str, listed: dict[str, str]) -> str | None:
    last = (
        _known(_MARKED, answer, listed)
        or _known(_LEADING, answer, listed, at_start=True)
        or _named(answer, listed)
        or _known(_UPPER_WORD, answer, listed)
    )
    return last[-1] if last else None


def _known(pattern: re.Pattern[str], text: str, listed: dict[str, str], *, at_start: bool = False) -> list[str]:
    """The letters of possible options that a pattern finds, in order."""
    matches = [pattern.match(text)] if at_start else pattern.finditer(text)
    letters = [match[match.lastindex or 0].upper() for match in matches if match]
    return [letter for letter in letters if not listed or letter in listed]


def _named(text: str, listed: dict[str, str]) -> list[str]:
    """The letter of the option whose text occurs, if there is exactly one; parts of another option do not count."""
    texts = {letter: option.lower() for letter, option in listed.items() if option}
    present = {
        letter: option
        for letter, option in texts.items()
        if re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text.lower())
    }
    whole = [
        letter
        for letter, option in present.items()
        if not any(option in other and option != other for other in present.values())
    ]
    return whole if len(whole) == 1 else []
