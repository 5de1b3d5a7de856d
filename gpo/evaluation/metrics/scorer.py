"""What every scorer implements, and helpers that find the conclusion of an answer."""

from __future__ import annotations

import re
from typing import Protocol

from gpo.data.example import Example
from gpo.text import abridged

BARE_ANSWER = "Now give only the final answer and nothing else."
"""A follow-up question that fits every kind of answer."""

RECENT = 256
"""So many answers are parsed once, although they are scored, read and explained."""

_QUOTED = 80

_SAYS = r"(?:(?:is|are|(?:would|should|must|will)\s+be)\b|:|=|(?<=\s)-(?=\s))"
_IN_ENGLISH = (
    r"(?:final\s+|correct\s+|right\s+|best\s+|my\s+)?\b(?:answer|choice|option|result|label|pick|solution)\b[\s*_]*"
    + _SAYS
)
# "The answer is", in the languages that models answer in most.
_IN_OTHER_LANGUAGES = (
    r"(?:(?:正确|最终)?(?:答案|选项|答)|正解|答え|回答)[\s*_]*(?:应该?是|是|为|就是|は|[:=])|(?:정답|답변?)(?:은|는|이)?\s*:?"
    r"|(?:réponse|respuesta|resposta|risposta|antwort|ответ|odpowied[źz]|odpověď|antwoord|svaret?|cevap|jawaban|"
    r"đáp án|câu trả lời|الإجابة|الجواب|उत्तर|απάντηση|válasz)\b[\s*_]*"
    r"(?:(?:est|es|é|è|ist|lautet|это|to|je|is|är|adalah|là|هي|هو|είναι)\b|:|=|-(?=\s))"
)
_STATED = rf"{_IN_ENGLISH}|{_IN_OTHER_LANGUAGES}|####|\\boxed\{{"
_ANNOUNCEMENT = re.compile(rf"(?:{_STATED}|\btherefore\b[,:]?|\bso\b,)[\s:*_]*", re.IGNORECASE)
_STATEMENT = re.compile(rf"(?:{_STATED})[\s:*_]*", re.IGNORECASE)
# Marks within a word ("snake_case", "3*4") and between spaces ("3 * 4") are not markup.
_MARKUP = re.compile(r"^[ \t]*(?:#+|[-*+•])\s+|^#+|(?<!\w)[*_`]+(?=\S)|(?<=\S)[*_`]+(?!\w)", re.MULTILINE)


def neither_nor(named: str) -> re.Pattern[str]:
    """Matches "neither A nor B", which names neither of both.

    Args:
        named: a regular expression for B.
    """
    nor = rf"\bnor\s+(?:\w+\s+){{0,2}}?(?:{named})[\s,]*"
    return re.compile(rf"\bneither\b[^.;:!?\n]{{1,80}}?(?:{nor})+", re.IGNORECASE)


class Scorer(Protocol):
    """Judges answers of one kind.

    A scorer may have more methods, which the functions below call: ``score_with_reason``, ``explain``, ``can_read`` and
    ``reads_as``.
    """

    def score(self, answer: str, example: Example) -> float:
        """Score an answer in [0, 1].

        An unreadable answer scores 0 and never raises. Only a custom function may fail.

        Raises:
            EvaluationError: a custom function failed.
        """
        ...

    def follow_up(self, example: Example) -> str | None:
        """The question of a second round, which asks for the bare answer; ``None`` if the answer is a free text."""
        ...


def can_read(scorer: object, answer: str, example: Example) -> bool:
    """Whether the scorer finds anything of its kind in the answer; scorers without ``can_read`` read every answer."""
    reads = getattr(scorer, "can_read", None)
    return reads is None or bool(reads(answer, example))


def reading(scorer: object, answer: str, example: Example) -> str:
    """What the scorer reads from the answer, such as a label, written like the example's target.

    Empty if that is not one thing, or if the scorer has no method ``reads_as``, such as those of free texts.
    """
    reads = getattr(scorer, "reads_as", None)
    return "" if reads is None else str(reads(answer, example) or "")


def score_with_reason(scorer: Scorer, answer: str, example: Example) -> tuple[float, str]:
    """The score and, from scorers with a method ``score_with_reason``, its reason; otherwise an empty reason."""
    scores = getattr(scorer, "score_with_reason", None)
    return scores(answer, example) if scores is not None else (scorer.score(answer, example), "")


def explanation(scorer: object, answer: str, example: Example) -> str:
    """Why an answer scores below 1, for the optimizer model; empty if the scorer cannot say.

    Scorers with a method ``explain`` say what they read in the answer. It is called only for answers that are shown,
    since scoring is more frequent.
    """
    explains = getattr(scorer, "explain", None)
    if explains is not None:
        return str(explains(answer, example))
    return "" if can_read(scorer, answer, example) else "nothing was found in the answer that could be scored"


def misread(read: str, target: str) -> str:
    """The explanation that a scorer read something else than the target."""
    return f"read as {quoted(read)}, but the right answer is {quoted(target)}"


def quoted(text: str) -> str:
    """At most 80 characters of a text in quotation marks."""
    return f'"{abridged(text.strip(), _QUOTED)}"'


def without_markup(answer: str) -> str:
    """The answer without Markdown's emphasis, code, heading and bullet marks."""
    return _MARKUP.sub("", answer).strip()


def announced(answer: str) -> str | None:
    """The text after the last announcement such as "the answer is" or "therefore"; ``None`` if there is none."""
    return _after_last(_ANNOUNCEMENT, answer)


def stated(answer: str) -> str | None:
    """The text after the last "the answer is" or similar, which begins with the answer; ``None`` if there is none."""
    return _after_last(_STATEMENT, answer)


def _after_last(pattern: re.Pattern[str], answer: str) -> str | None:
    end = None
    for match in pattern.finditer(answer):
        end = match.end()
    return answer[end:] if end is not None else None
