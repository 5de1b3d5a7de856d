from __future__ import annotations

from random import Random
from statistics import mean, median

import pytest

from benchmarks.simulated import optimizer_model, rewriting
from benchmarks.simulated.landscape import NEUTRAL, WEIGHTS, quality, weights, words_of
from benchmarks.simulated.optimizer_model import MAX_TO_AVOID, MAX_TO_SAY, reflection, summary
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


@pytest.mark.parametrize("kind", ["generation", "editing", "paraphrase"])
@pytest.mark.parametrize("step_size", [1, 10, 50])
def test_some_rewritings_exceed_the_bound(kind: Kind, step_size: int) -> None:
    changed = distances(step_size, kind)
    beyond = [distance for distance in changed if distance > step_size]
    assert len(beyond) / len(changed) == pytest.approx(rewriting.OVERSTEPPING, abs=0.03)
    most = max(1, round(rewriting.EDITED_SHARE * step_size))
    assert changed[-len(beyond) - 1] <= most
    assert max(beyond) <= step_size + most


def test_editing_changes_about_half_as_many_words() -> None:
    assert mean(distances(None, "editing")) == pytest.approx(mean(distances(None)) / 2, rel=0.25)
    assert max(distances(None, "editing")) <= rewriting.MAX_UNBOUNDED_EDITS / 2


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


def test_a_paraphrase_ignores_evidence_and_keeps_most_of_its_effect() -> None:
    evidence = [(HIGH, 70.0), (LOW, 10.0)]
    assert mean_quality(*evidence, kind="paraphrase") == mean_quality(kind="paraphrase")
    assert mean_quality(kind="paraphrase") == pytest.approx(quality(MIXED), abs=0.02)
    rewrites = [rewritten(Assignment(HIGH, step_size=20, kind="paraphrase"), Random(seed)) for seed in range(400)]
    unchanged = [words_of(rewrite) & WEIGHTS.keys() == words_of(HIGH) & WEIGHTS.keys() for rewrite in rewrites]
    assert 0.6 < mean(unchanged) < 0.9
    assert HIGH not in rewrites
    assert any(words_of(rewrite) & set(NEUTRAL) for rewrite in rewrites)


def test_a_prompt_of_one_word_can_be_rewritten() -> None:
    for kind in ("generation", "editing", "paraphrase"):
        for current in ("", "exactly", "the"):
            rewrites = [rewritten(Assignment(current, kind=kind), Random(seed)) for seed in range(50)]
            assert all(rewrite not in ("", current) for rewrite in rewrites)


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


def test_old_notes_fade_unless_they_are_confirmed() -> None:
    old = Advice(("single", "read", "best", "topic", "word", "label"))
    kept = read_advice(summary(SummaryRequest(old, Advice(), ((INITIAL, 30.0),))))
    assert old.say[: len(kept.say)] == kept.say
    assert 0 < len(kept.say) < len(old.say)
    confirmed = read_advice(summary(SummaryRequest(old, Advice(("label",)), ((INITIAL, 30.0),))))
    assert confirmed.say[0] == "label"
    refuted = read_advice(summary(SummaryRequest(old, Advice((), ("single",) * 2), ((INITIAL, 30.0),))))
    assert refuted.avoid == ("single",)
    many = tuple(
        (f"{INITIAL} {word}", 30.0 + 5 * weight) for word, weight in [*zip(NEUTRAL, range(-9, 9), strict=False)]
    )
    noted = read_advice(summary(SummaryRequest(old, Advice(), many)))
    assert (len(noted.say), len(noted.avoid)) == (MAX_TO_SAY, MAX_TO_AVOID)


def test_replies_depend_on_content_and_seeds_alone() -> None:
    def reply(sample: object = 0, temperature: float = 1.0, seed: int = 0, text: str = "Go.") -> str:
        messages: list[Message] = [{"role": "user", "content": text}]
        request = ReflectionRequest(INITIAL, "tickets", 3)
        return optimizer_model.reply(messages, request, seed=seed, sample=sample, temperature=temperature)

    assert reply() == reply()
    assert len({reply(), reply(sample=1), reply(seed=1), reply(text="Went.")}) == 4
    assert reply(temperature=0) == reply(sample=1, temperature=0)
