from __future__ import annotations

from random import Random
from statistics import mean, median

import pytest

from benchmarks.simulated import optimizer_model, rewriting
from benchmarks.simulated.landscape import quality, weights, words_of
from benchmarks.simulated.optimizer_model import reflection, summary
from benchmarks.simulated.optimizer_requests import (
    Advice,
    Assignment,
    ReflectionRequest,
    SummaryRequest,
    read_advice,
)
from benchmarks.simulated.rewriting import GAIN_OF_ADVICE, expected_gains, rewritten
from gpo.models.protocol import Message
from gpo.prompt import Prompt, edit_distance
from gpo.strategies.meta_prompt import Kind

INITIAL = "Classify the support ticket into one of: billing, technical, shipping, account."
MIXED = f"{INITIAL} Maybe guess."
HIGH, LOW = f"{INITIAL} Read carefully, only exactly the category label.", f"{INITIAL} Maybe guess, joke, a poem."
NOTHING = Advice()


def distances(step_size: int | None, kind: Kind = "generation") -> list[int]:
    assignment = Assignment(INITIAL, step_size=step_size, kind=kind)
    rewrites = (rewritten(assignment, Random(seed)) for seed in range(400))
    return sorted(edit_distance(Prompt(INITIAL), Prompt(rewrite)) for rewrite in rewrites)


def mean_quality(
    *scored: tuple[str, float], advice: Advice = NOTHING, kind: Kind = "generation", current: str = MIXED
) -> float:
    assignment = Assignment(current, scored, advice, step_size=20, kind=kind)
    return mean(quality(rewritten(assignment, Random(seed))) for seed in range(400))


def test_edits_scale_with_the_step_size() -> None:
    assert rewritten(Assignment(INITIAL, step_size=0), Random(0)) == INITIAL
    means = [mean(distances(step_size)) for step_size in (1, 10, 25, 50)]
    assert means == sorted(means)
    assert max(distances(None)) <= rewriting.MAX_UNBOUNDED_EDITS
    assert median(distances(None)) == pytest.approx(median(distances(67)), abs=1)
    for kind in ("generation", "editing", "paraphrase"):
        assert min(distances(50, kind)) >= 1


def test_edits_follow_the_scores_that_are_shown() -> None:
    aimless = mean_quality((HIGH, 50.0), (LOW, 50.0))
    assert aimless == pytest.approx(quality(MIXED), abs=0.03)
    assert mean_quality((HIGH, 70.0), (LOW, 10.0)) > aimless + 0.05
    assert mean_quality((HIGH, 10.0), (LOW, 70.0)) < aimless - 0.02


def test_edits_follow_reflections_and_notes() -> None:
    aimless = mean_quality()
    assert mean_quality(advice=Advice(("exactly", "category"), ("guess", "maybe"))) > aimless + 0.05
    assert mean_quality(advice=Advice(("poem", "joke"))) < aimless - 0.03
    gains = expected_gains(((HIGH, 50.0), (HIGH.replace("only ", ""), 49.0)), Advice(("only", "label"), ("poem",)))
    assert gains == {"only": GAIN_OF_ADVICE + 1, "label": GAIN_OF_ADVICE, "poem": -GAIN_OF_ADVICE}


@pytest.mark.parametrize("domain", ["tickets", "crafts"])
def test_reflections_are_short_and_mostly_right(domain: str) -> None:
    effects, held = weights(domain), words_of(LOW)
    right: list[bool] = []
    for seed in range(300):
        advice = read_advice(reflection(ReflectionRequest(LOW, domain, 3), Random(seed)))
        assert 1 <= len(advice.say) + len(advice.avoid) <= 2
        assert not set(advice.say) & held
        assert set(advice.avoid) <= held
        right += [effects.get(word, 0.0) > 0 for word in advice.say]
        right += [effects.get(word, 0.0) < 0 for word in advice.avoid]
    # A random word is right in one case of three.
    assert mean(right) == pytest.approx(2 / 3 + 1 / 9, abs=0.06)


def test_reflections_depend_on_the_failures() -> None:
    assert reflection(ReflectionRequest(INITIAL, "tickets", 0), Random(0)) == ""
    (only,) = read_advice(reflection(ReflectionRequest(INITIAL, "tickets", 1), Random(0))).say
    assert only not in words_of(INITIAL)
    texts = {reflection(ReflectionRequest(INITIAL, domain, 3), Random(1)) for domain in ("tickets", "crafts", None)}
    assert len(texts) == 3


def test_a_summary_uses_scores_and_reflections() -> None:
    notes = SummaryRequest(Advice(), Advice(("single",)), ((INITIAL, 30.0), (f"{INITIAL} exactly", 40.0), (LOW, 10.0)))
    noted = read_advice(summary(notes))
    assert noted.say == ("exactly", "single")
    assert set(noted.avoid) == {"guess", "joke", "maybe", "poem"}
    assert summary(SummaryRequest(Advice(), Advice(), ((INITIAL, 30.0),))).endswith(
        "Which of them help cannot be told yet."
    )


def test_replies_depend_on_content_and_seeds_alone() -> None:
    def reply(sample: object = 0, temperature: float = 1.0, seed: int = 0, text: str = "Go.") -> str:
        messages: list[Message] = [{"role": "user", "content": text}]
        request = ReflectionRequest(INITIAL, "tickets", 3)
        return optimizer_model.reply(messages, request, seed=seed, sample=sample, temperature=temperature)

    assert reply() == reply()
    assert len({reply(), reply(sample=1), reply(seed=1), reply(text="Went.")}) == 4
    assert reply(temperature=0) == reply(sample=1, temperature=0)
