from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.simulated.domains import DOMAINS, NUM_PER_LABEL, splits, write_task
from benchmarks.simulated.landscape import HELPFUL, VOCABULARY, WEIGHTS, quality, words_of
from benchmarks.simulated.task_model import MEANING, keywords_in
from tests.paths import DATA

INITIAL = "Classify the support ticket into one of: billing, technical, shipping, account."
GOOD = "Read carefully and classify the customer ticket: answer with exactly one category label, a single word only."


def test_quality_rises_with_helpful_words_and_falls_with_harmful_ones_and_length() -> None:
    assert 0.05 <= quality("guess") < quality("") == 0.15 < quality(INITIAL) < quality(GOOD) <= 0.97
    for word in HELPFUL:
        assert quality(word) > quality("")
    assert quality(f"{INITIAL} Write a poem!") < quality(INITIAL)
    assert quality(INITIAL + " the" * 60) < quality(INITIAL) == quality(INITIAL + " the" * 20)
    assert quality(" ".join(HELPFUL)) == pytest.approx(0.90)
    assert sum(WEIGHTS.values()) == pytest.approx(0)


def test_keywords_determine_domain_and_label() -> None:
    labels = [label for domain in DOMAINS.values() for label in domain.labels]
    keywords = [word for domain in DOMAINS.values() for words in domain.keywords.values() for word in words]
    assert all(len(domain.labels) == 4 for domain in DOMAINS.values())
    assert len(set(labels)) == len(labels)
    assert len(set(keywords)) == len(keywords) == len(MEANING)
    assert not set(keywords) & {*VOCABULARY, *labels}
    for name, domain in DOMAINS.items():
        for label in domain.labels:
            for text in domain.examples(label):
                assert [MEANING[word] for word in keywords_in(text)] == [(name, label)]
                assert not words_of(text) & WEIGHTS.keys(), text


@pytest.mark.parametrize("domain", DOMAINS)
def test_tasks_are_balanced_disjoint_and_repeatable(domain: str, tmp_path: Path) -> None:
    drawn = splits(domain, seed=1)
    assert drawn == splits(domain, seed=1) != splits(domain, seed=2)
    assert {split: len(rows) for split, rows in drawn.items()} == {"train": 24, "val": 40, "test": 60}
    for split, rows in drawn.items():
        assert Counter(row["label"] for row in rows) == dict.fromkeys(DOMAINS[domain].labels, NUM_PER_LABEL[split])
        assert {frozenset(row) for row in rows} == {frozenset({"text", "label"})}
    texts = [row["text"] for rows in drawn.values() for row in rows]
    assert len(set(texts)) == len(texts)
    write_task(tmp_path / "new" / domain, domain, seed=1)
    for split, rows in drawn.items():
        lines = (tmp_path / "new" / domain / f"{split}.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(line) for line in lines] == rows


def test_the_triage_data_equal_the_output_of_their_script(tmp_path: Path) -> None:
    script = runpy.run_path(str(DATA / "make_triage.py"))
    write_task(tmp_path, "tickets", script["SEED"])
    for split in NUM_PER_LABEL:
        assert (DATA / "triage" / f"{split}.jsonl").read_bytes() == (tmp_path / f"{split}.jsonl").read_bytes()
