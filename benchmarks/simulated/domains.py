"""The domains that the simulated task model knows: their examples, and data files to run on.

An example is one line of text with exactly one keyword. The keyword determines domain and label, so the simulated task
model knows the right answer to every example without the data files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.simulated.landscape import TICKETS
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.evaluation.metrics import LabelScorer
from gpo.prompt import Prompt

NUM_PER_LABEL: Mapping[str, int] = {"train": 6, "val": 10, "test": 15}
"""Split → number of examples of each label."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of text with four labels.

    Attributes:
        initial: the prompt that a search starts from.
        keywords: label → its keywords. No keyword belongs to two labels or domains, equals a label, or is a word that
            the simulated optimizer model writes.
        openings, statements, closings: an example consists of one of each; the statement contains ``{keyword}``. They
            contain no word that matters in a prompt.
    """

    initial: str
    keywords: Mapping[str, tuple[str, ...]]
    openings: tuple[str, ...]
    statements: tuple[str, ...]
    closings: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The four answers."""
        return tuple(self.keywords)

    def examples(self, label: str) -> list[str]:
        """Every example of a label, in a fixed order."""
        return [
            f"{opening} {statement.format(keyword=keyword)}, {closing}"
            for opening, statement, keyword, closing in product(
                self.openings, self.statements, self.keywords[label], self.closings
            )
        ]


DOMAINS: Mapping[str, Domain] = {
    TICKETS: Domain(
        initial="Classify the support ticket into one of: billing, technical, shipping, account.",
        keywords={
            "billing": (
                "invoice", "refund", "payment", "receipt", "surcharge", "discount", "subscription", "overcharge",
            ),
            "technical": ("crash", "error", "bug", "outage", "glitch", "timeout", "malfunction", "freeze"),
            "shipping": ("parcel", "courier", "delivery", "package", "shipment", "pallet", "dispatch", "postage"),
            "account": ("password", "login", "username", "profile", "registration", "passcode", "logout", "avatar"),
        },
        openings=("Hello,", "Good morning,", "Hi there,", "Dear all,", "I am sorry to bother you again, but"),
        statements=(
            "there is a problem with the {keyword} from last week",
            "my {keyword} has been bothering me since Monday",
            "I do not understand what happened to the {keyword}",
            "somebody told me to write to you because of a {keyword}",
            "the {keyword} that I mentioned on the phone is still not settled",
            "your colleague promised to look after the {keyword} and never did",
        ),
        closings=(
            "and I would like to hear from you today.",
            "so what should I do now?",
            "and this is the third time.",
            "and nobody calls me back.",
            "which is rather annoying before the holidays.",
        ),
    ),
    "weather": Domain(
        initial="Sort the diary entry under one of: rain, snow, wind, heat.",
        keywords={
            "rain": ("drizzle", "downpour", "puddle", "raincoat", "monsoon", "cloudburst", "raindrop", "thunderstorm"),
            "snow": ("blizzard", "sleet", "avalanche", "icicle", "snowman", "sled", "frostbite", "slush"),
            "wind": ("gale", "breeze", "gust", "hurricane", "tornado", "windmill", "kite", "cyclone"),
            "heat": ("sunburn", "drought", "heatwave", "sunstroke", "sunscreen", "sweat", "sauna", "parasol"),
        },
        openings=("This morning,", "On the way home,", "Last night,", "Up in the hills,", "At the weekend,"),
        statements=(
            "we spoke of the {keyword} again",
            "my neighbour took a picture of the {keyword}",
            "the children asked me about the {keyword}",
            "the local paper had a page on the {keyword}",
            "somebody at the bus stop brought up the {keyword}",
            "I was not prepared for the {keyword}",
        ),
        closings=(
            "and then we went indoors.",
            "so we stayed where we were.",
            "as happens every year.",
            "while the kettle was on.",
            "which nobody had expected.",
        ),
    ),
    "repairs": Domain(
        initial="Say which trade the job is for: carpentry, gardening, plumbing or masonry.",
        keywords={
            "carpentry": ("chisel", "plywood", "dovetail", "sawdust", "hinge", "varnish", "mallet", "bandsaw"),
            "gardening": ("compost", "trowel", "mulch", "seedling", "hedge", "wheelbarrow", "pruning", "weeds"),
            "plumbing": ("faucet", "drain", "sewer", "toilet", "gasket", "valve", "siphon", "washbasin"),
            "masonry": ("brick", "mortar", "cement", "plaster", "cobblestone", "grout", "scaffold", "chimney"),
        },
        openings=("Our landlord called:", "From the notebook:", "Before lunch,", "To whom it concerns:", "By the way,"),
        statements=(
            "the {keyword} needs another visit",
            "we forgot to bring up the {keyword} yesterday",
            "they want a price for the {keyword}",
            "the apprentice was shown the {keyword}",
            "there were complaints about the {keyword}",
            "the {keyword} is where we left off",
        ),
        closings=(
            "and the key is under the mat.",
            "so bring the large van.",
            "and it cannot wait until spring.",
            "as agreed on the phone.",
            "which the tenants will be glad of.",
        ),
    ),
    "crafts": Domain(
        initial="Which craft is the visitor interested in: knitting, pottery, printing or jewelry?",
        keywords={
            "knitting": ("yarn", "crochet", "wool", "stitch", "skein", "cardigan", "mitten", "bobbin"),
            "pottery": ("clay", "kiln", "glaze", "earthenware", "porcelain", "teapot", "ceramic", "jug"),
            "printing": (
                "typeset", "linocut", "woodcut", "etching", "lithograph", "stencil", "letterpress", "engraving",
            ),
            "jewelry": ("gemstone", "bracelet", "necklace", "locket", "earring", "goldsmith", "brooch", "pendant"),
        },
        openings=("At the fair,", "In the workshop,", "My aunt said that", "On the poster,", "After the tour,"),
        statements=(
            "the {keyword} drew the largest crowd",
            "we were handed a leaflet on the {keyword}",
            "the {keyword} was the hardest part",
            "there was a long talk about the {keyword}",
            "a man with a hat explained the {keyword} twice",
            "the {keyword} cost more than expected",
        ),
        closings=(
            "and we came home late.",
            "so we want to come again.",
            "as in all the years before.",
            "while the band was playing.",
            "which pleased my sister.",
        ),
    ),
}  # fmt: skip
"""Name → domain."""


def splits(
    domain: str, seed: int | str, num_per_label: Mapping[str, int] = NUM_PER_LABEL
) -> dict[str, list[dict[str, str]]]:
    """Split → examples with ``text`` and ``label``, in an order that depends on the seed.

    All labels are equally frequent in every split, and no text is in two splits; there are 1,200 texts of each label.
    """
    draw = Random(seed)
    chosen: dict[str, list[dict[str, str]]] = {split: [] for split in num_per_label}
    for label in DOMAINS[domain].labels:
        drawn = iter(draw.sample(DOMAINS[domain].examples(label), sum(num_per_label.values())))
        for split, size in num_per_label.items():
            chosen[split] += [{"text": next(drawn), "label": label} for _ in range(size)]
    for examples in chosen.values():
        draw.shuffle(examples)
    return chosen


def make_task(domain: str, seed: int | str, num_per_label: Mapping[str, int] = NUM_PER_LABEL) -> Task:
    """The domain as a task whose examples are those of ``splits``."""
    examples = {
        Split(split): tuple(Example(row["text"], (row["label"],)) for row in rows)
        for split, rows in splits(domain, seed, num_per_label).items()
    }
    return Task(domain, Prompt(DOMAINS[domain].initial), examples, LabelScorer(DOMAINS[domain].labels))


def write_task(folder: Path, domain: str, seed: int, num_per_label: Mapping[str, int] = NUM_PER_LABEL) -> None:
    """Write train.jsonl, val.jsonl and test.jsonl (24, 40 and 60 examples by default); create the folder if needed.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, examples in splits(domain, seed, num_per_label).items():
        lines = "".join(json.dumps(example) + "\n" for example in examples)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def write_tasks(
    folder: Path, domains: Iterable[str], num_per_label: Mapping[str, int] = NUM_PER_LABEL
) -> list[dict[str, Any]]:
    """Write each domain's task to a subfolder and return the section ``tasks`` of a configuration in ``folder``.

    Raises:
        OSError: a file cannot be written.
    """
    section = []
    for domain in domains:
        write_task(folder / domain, domain, 0, num_per_label)
        section.append(
            {
                "name": domain,
                "data": {split: f"{domain}/{split}.jsonl" for split in num_per_label},
                "fields": {"input": "text", "target": "label"},
                "prompt": DOMAINS[domain].initial,
                "position": "question_begin",
                "answer": {"kind": "exact"},
            }
        )
    return section
