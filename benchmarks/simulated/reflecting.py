"""How the simulated optimizer model reflects on a prompt.

It sees from the failures what the inputs are about, and names a word for each of the first two: one that the prompt
lacks and that would help with such inputs, or one that is in it and hurts. One time in three it is wrong about the
reason and names any word that it knows. It never says more than that: how much a word is worth remains to be tried.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

from benchmarks.simulated.advice import Advice
from benchmarks.simulated.landscape import VOCABULARY, weights, words_of
from benchmarks.simulated.question import MEANING, keywords_in
from benchmarks.simulated.sections import EXAMINED, FAILURES, TO_REFLECT_ON, sections, shown_prompt

RELIABILITY = 2 / 3
MAX_WORDS = 2


@dataclass(frozen=True, slots=True)
class Examination:
    """What a request for a reflection shows: a prompt, the domain of the inputs that it failed on, and their number.

    ``domain`` is ``None`` where the inputs are of none that is known.
    """

    prompt: str
    domain: str | None
    num_failures: int


def read_examination(request: str) -> Examination | None:
    """What a text asks to examine; ``None`` where it does not ask for a reflection."""
    shown = sections(request)
    if EXAMINED not in shown or TO_REFLECT_ON not in shown:
        return None
    failures = shown.get(FAILURES, "")
    domains = Counter(MEANING[keyword][0] for keyword in sorted(keywords_in(failures)))
    domain = domains.most_common(1)[0][0] if domains else None
    num_failures = sum(line.startswith("Input: ") for line in failures.splitlines())
    return Examination(shown_prompt(shown[EXAMINED]), domain, num_failures)


def reflection(examination: Examination, draw: Random) -> str:
    """Two or three sentences; empty where no failure is shown."""
    words = words_of(examination.prompt)
    effects = weights(examination.domain) if examination.domain else {}
    right = [word for word, effect in effects.items() if (effect < 0 if word in words else effect > 0)]
    named = dict.fromkeys(
        draw.choice(right) if right and draw.random() < RELIABILITY else draw.choice(VOCABULARY)
        for _ in range(min(MAX_WORDS, examination.num_failures))
    )
    advice = Advice(
        say=tuple(word for word in named if word not in words), avoid=tuple(word for word in named if word in words)
    )
    return f"These answers come of what the prompt says or leaves out. {advice.worded()}" if named else ""
