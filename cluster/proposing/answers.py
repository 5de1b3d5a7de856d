"""The kind of answer that a column of targets needs, and a first prompt that asks for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from cluster.config.answers import AnswerConfig
from cluster.proposing.columns import FEW_VALUES, NUMBER, named
from gpo.data.example import Example, inferred_kind
from gpo.errors import ConfigError
from gpo.evaluation.metrics import Rubric, Scorer
from gpo.evaluation.metrics.choice import options
from gpo.text import without_controls

_LETTER = re.compile(r"\(?[A-J]\)?", re.IGNORECASE)
_MOST = 0.95
_ALMOST_ALL = 0.9
_MANY_WORDS, _SEVERAL_WORDS = 6, 3
_MOST_LABELS = 200
_LONGEST_LABEL, _LONGEST_LIST = 60, 600
_FEWEST_FOR_RARE = 20
_SHOWN = 10
_TRIED = 1_000
"""Rows that are tried to find out whether a column gives the answer away."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How answers are scored.

    Attributes:
        kind: the option ``answer.kind``.
        scorer: the scorer of this kind.
        counts: how often each target occurs.
        share: of the rows whose own target this kind scores as right, in [0, 1].
        doubts: what the user should check.
    """

    kind: str
    scorer: Scorer
    counts: Counter[str]
    share: float
    doubts: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The different targets, if these are labels or few, in alphabetical order.

        Of those that differ in capitals, the most frequent one.
        """
        if self.kind != "label" and len(self.counts) > FEW_VALUES:
            return []
        rarest_first = sorted(self.counts, key=lambda label: (self.counts[label], label))
        return sorted({label.casefold(): label for label in rarest_first}.values(), key=str.casefold)

    def gives_away(self, texts: Sequence[str | None], examples: Sequence[Example]) -> bool:
        """Whether the texts of a column, read as answers, are right in almost all rows, whatever the target.

        Args:
            texts: one for each example; ``None`` where the column is empty.
        """
        step = max(1, len(examples) // _TRIED)
        scores: dict[str, list[float]] = {}
        for text, example in list(zip(texts, examples, strict=True))[::step]:
            score = self.scorer.score(text, example) if text is not None else 0.0
            scores.setdefault(example.target if self.labels else "", []).append(score)
        return fmean(map(fmean, scores.values())) >= _ALMOST_ALL


def answer_of(examples: Sequence[Example]) -> Answer:
    """The kind of answer that fits the targets best.

    Args:
        examples: with their targets; inputs are not read.

    Raises:
        ConfigError: no kind fits.
    """
    counts = Counter(target.strip() for example in examples for target in example.targets)
    for kind in dict.fromkeys((_best_kind(examples, counts), "exact", "text")):
        try:
            scorer = AnswerConfig.model_validate({"kind": kind}).scorer([*examples], "tasks[0].answer")
        except ConfigError as error:
            refused = error
            continue
        if isinstance(scorer, Rubric):
            raise TypeError("a rubric is never proposed")
        is_right = {example.targets: scorer.score(example.target, example) > 0 for example in _distinct(examples)}
        wrong = [example.target for example in examples if not is_right[example.targets]]
        doubts = _doubts(kind, examples, counts)
        if wrong:
            doubts.append(
                f"No answer will be right where the target is {named(wrong[0])}; correct or remove such rows."
            )
        return Answer(kind, scorer, counts, 1 - len(wrong) / len(examples), tuple(doubts))
    raise ConfigError("--target", refused.problem, "correct those targets, or name another column")


def _distinct(examples: Sequence[Example]) -> Iterable[Example]:
    """One example for each different list of targets."""
    return {example.targets: example for example in examples}.values()


def _best_kind(examples: Sequence[Example], counts: Counter[str]) -> str:
    kind = inferred_kind([Example("", (target,)) for target in counts.elements()])
    total, distinct = counts.total(), len(counts)
    is_letter = sum(count for target, count in counts.items() if _LETTER.fullmatch(target)) >= _MOST * total
    numbers = {target for target in counts if NUMBER.fullmatch(target)}
    is_repeated = distinct <= min(FEW_VALUES, total // 2)
    if kind in ("choice", "boolean"):
        return kind
    if is_letter and is_repeated and any(target.strip("()").upper() == "A" for target in counts):
        return "choice"
    if sum(counts[target] for target in numbers) >= _MOST * total:
        digits = [target for target in numbers if re.fullmatch(r"\d|10", target)]
        return "label" if len(digits) == distinct <= total // 3 else "number"
    words = fmean(len(target.split()) for example in examples for target in example.targets)
    if is_repeated or (distinct <= min(_MOST_LABELS, total // 10) and words <= _SEVERAL_WORDS):
        return "label"
    return "text" if words > _MANY_WORDS else "exact"


def with_inputs(answer: Answer, examples: Sequence[Example]) -> Answer:
    """The answer once the inputs are known: letters are options only if the inputs list options.

    Args:
        examples: with inputs and targets.
    """
    if answer.kind != "choice":
        return answer
    unlisted = sum(not options(example) for example in examples)
    if unlisted <= (1 - _ALMOST_ALL) * len(examples):
        return answer
    if any("(" in target for target in answer.counts) or len(answer.counts) < 2:
        doubt = f"{unlisted:,} of {len(examples):,} inputs list no options, such as (A) and (B), to choose from."
        return replace(answer, doubts=(*answer.doubts, doubt))
    labels = AnswerConfig.model_validate({"kind": "label"}).scorer([*examples], "tasks[0].answer")
    if isinstance(labels, Rubric):
        raise TypeError("a rubric is never proposed")
    doubt = "The targets are letters, but the inputs list no options: the letters are taken as labels."
    return replace(answer, kind="label", scorer=labels, doubts=(*answer.doubts, doubt))


def _doubts(kind: str, examples: Sequence[Example], counts: Counter[str]) -> list[str]:
    found, total = [], counts.total()
    most, count = counts.most_common(1)[0]
    if len(counts) > 1 and count >= _ALMOST_ALL * total and kind != "text":
        found.append(f"{count / total:.0%} of the targets are {named(most)}: a prompt that always says so scores well.")
    if kind == "label":
        found += _label_doubts(counts)
    words = fmean(len(target.split()) for example in examples for target in example.targets)
    if kind == "exact" and words > _SEVERAL_WORDS:
        found.append(
            "An answer must equal the target. If other words may be right, too, set kind: text (similarity) or judge."
        )
    if kind == "text":
        found.append(
            "Answers are scored by their similarity to the target (ROUGE-L). If only the same words are right, set "
            "kind: exact. For free texts, a language model as judge is often better: see docs/tutorial/own-metric.md."
        )
    return found


def _label_doubts(counts: Counter[str]) -> list[str]:
    forms: dict[str, list[str]] = {}
    for label in counts:
        forms.setdefault(" ".join(label.casefold().split()), []).append(label)
    found = [
        f"Some labels differ only in capitals or spaces: {', '.join(map(named, sorted(same)))}."
        for same in forms.values()
        if len(same) > 1
    ]
    if len(counts) > FEW_VALUES or _listed([*counts]) is None:
        found.append(f"The prompt does not list the {len(counts)} labels: add what a model needs to choose among them.")
    once = sorted(label for label, count in counts.items() if count == 1)
    if once and counts.total() >= _FEWEST_FOR_RARE:
        found.append(f"Some labels occur only once: {_names(once)}. Are they mistakes?")
    if all(NUMBER.fullmatch(label) for label in counts):
        found.append(
            "The labels are numbers: say in the prompt what each means, or set kind: number if they are counts."
        )
    return found


def first_prompt(answer: Answer, target: str) -> str:
    """A plain sentence or two that ask for this kind of answer.

    Args:
        target: the column's name.
    """
    labels = answer.labels
    if answer.kind == "boolean":
        return f"Answer with {' or '.join(sorted(labels, key=_is_negative))}."
    if answer.kind == "label":
        listed = _listed(labels) if len(labels) <= FEW_VALUES else None
        return f"Classify the text. Answer with one of: {listed}." if listed else "Classify the text."
    return {
        "choice": "Choose the right option. Answer with its letter, such as (A).",
        "number": "Answer with a number.",
        "exact": "Give the answer and nothing else.",
    }.get(answer.kind, f"Write the {_noun(target)}.")


def _names(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(map(named, labels[:_SHOWN])) + more


def _is_negative(label: str) -> bool:
    return label.lower() in ("no", "false", "invalid")


def _listed(labels: Sequence[str]) -> str | None:
    """The labels in one line; ``None`` if some do not fit there, or would be read as part of a template."""
    texts = [f'"{label}"' if "," in label else label for label in labels]
    fits = all(
        label.isprintable() and len(label) <= _LONGEST_LABEL and not re.search(r"[{}]|\[\[", label) for label in labels
    )
    listed = ", ".join(texts)
    return listed if fits and len(listed) <= _LONGEST_LIST else None


def _noun(name: str) -> str:
    words = " ".join(re.findall(r"[^\W\d_]+", without_controls(name))).lower()
    return words if 0 < len(words) <= 40 and words not in ("target", "output", "label", "gold") else "answer"
