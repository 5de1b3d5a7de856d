"""Write the quickstart's generated tasks, which ask for the language of a short sentence.

Every sentence is put together from the word tables below (who, does what, when
or where). A seeded generator picks the sentences, so running this script again
gives the same files: language/train.jsonl, language/val.jsonl and
language/test.jsonl next to it. Each line is {"text": ..., "label": ...}. All
languages occur equally often in every split, and no sentence is in two splits.

messages.csv has the same sentences as messages of somebody, in the columns id,
sender, message and language: the data of ../template.yaml.

Usage: python generate.py
"""

import csv
import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path

SEED = 2024
TASK_DIR = Path(__file__).resolve().parent / "language"
SENDERS = ("Ada", "Ben", "Carla", "David", "Emma", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Leo", "Olga")
EXAMPLES_PER_LANGUAGE = {"train": 6, "val": 12, "test": 28}


@dataclass(frozen=True)
class Language:
    """The words of one language and the order of a sentence's parts."""

    name: str
    pattern: str
    subjects: tuple[str, ...]
    actions: tuple[tuple[str, str], ...]  # (verb, object)
    settings: tuple[str, ...]


LANGUAGES = (
    Language(
        name="English",
        pattern="{subject} {verb} {object} {setting}.",
        subjects=(
            "My brother",
            "The teacher",
            "Our neighbour",
            "The old woman",
            "A young man",
            "The doctor",
            "His sister",
            "The farmer",
            "My grandmother",
            "The girl",
        ),
        actions=(
            ("buys", "fresh bread"),
            ("drinks", "a cup of coffee"),
            ("reads", "a long book"),
            ("writes", "a letter"),
            ("looks for", "the key"),
            ("sells", "a red car"),
            ("sings", "a song"),
            ("waits for", "the train"),
            ("paints", "the house"),
            ("visits", "the museum"),
        ),
        settings=(
            "every morning",
            "in the city",
            "with a friend",
            "before dinner",
            "today",
            "on Sunday",
            "after work",
            "in summer",
        ),
    ),
    Language(
        name="French",
        pattern="{subject} {verb} {object} {setting}.",
        subjects=(
            "Mon frère",
            "Le professeur",
            "Notre voisin",
            "La vieille dame",
            "Un jeune homme",
            "Le médecin",
            "Sa sœur",
            "Le fermier",
            "Ma grand-mère",
            "La fille",
        ),
        actions=(
            ("achète", "du pain frais"),
            ("boit", "une tasse de café"),
            ("lit", "un long livre"),
            ("écrit", "une lettre"),
            ("cherche", "la clé"),
            ("vend", "une voiture rouge"),
            ("chante", "une chanson"),
            ("attend", "le train"),
            ("peint", "la maison"),
            ("visite", "le musée"),
        ),
        settings=(
            "chaque matin",
            "en ville",
            "avec un ami",
            "avant le dîner",
            "aujourd'hui",
            "le dimanche",
            "après le travail",
            "en été",
        ),
    ),
    Language(
        name="German",
        pattern="{subject} {verb} {setting} {object}.",
        subjects=(
            "Mein Bruder",
            "Der Lehrer",
            "Unser Nachbar",
            "Die alte Frau",
            "Ein junger Mann",
            "Der Arzt",
            "Seine Schwester",
            "Der Bauer",
            "Meine Großmutter",
            "Das Mädchen",
        ),
        actions=(
            ("kauft", "frisches Brot"),
            ("trinkt", "eine Tasse Kaffee"),
            ("liest", "ein langes Buch"),
            ("schreibt", "einen Brief"),
            ("sucht", "den Schlüssel"),
            ("verkauft", "ein rotes Auto"),
            ("singt", "ein Lied"),
            ("wartet", "auf den Zug"),
            ("streicht", "das Haus"),
            ("besucht", "das Museum"),
        ),
        settings=(
            "jeden Morgen",
            "in der Stadt",
            "mit einem Freund",
            "vor dem Abendessen",
            "heute",
            "am Sonntag",
            "nach der Arbeit",
            "im Sommer",
        ),
    ),
    Language(
        name="Spanish",
        pattern="{subject} {verb} {object} {setting}.",
        subjects=(
            "Mi hermano",
            "El profesor",
            "Nuestro vecino",
            "La anciana",
            "Un hombre joven",
            "El médico",
            "Su hermana",
            "El granjero",
            "Mi abuela",
            "La niña",
        ),
        actions=(
            ("compra", "pan fresco"),
            ("bebe", "una taza de café"),
            ("lee", "un libro largo"),
            ("escribe", "una carta"),
            ("busca", "la llave"),
            ("vende", "un coche rojo"),
            ("canta", "una canción"),
            ("espera", "el tren"),
            ("pinta", "la casa"),
            ("visita", "el museo"),
        ),
        settings=(
            "cada mañana",
            "en la ciudad",
            "con un amigo",
            "antes de la cena",
            "hoy",
            "el domingo",
            "después del trabajo",
            "en verano",
        ),
    ),
)


def sentences(language: Language) -> list[str]:
    """Return every sentence that the tables of a language allow, in a fixed order."""
    return [
        language.pattern.format(subject=subject, verb=verb, object=thing, setting=setting)
        for subject, (verb, thing), setting in itertools.product(language.subjects, language.actions, language.settings)
    ]


def make_splits(seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """Draw the examples of all splits; no sentence is drawn twice.

    The languages take turns (in random order) so that the first N examples of a
    split are balanced too, whenever N is a multiple of the number of languages.
    """
    rng = random.Random(seed)
    total = sum(EXAMPLES_PER_LANGUAGE.values())
    drawn = {language.name: iter(rng.sample(sentences(language), total)) for language in LANGUAGES}
    splits: dict[str, list[dict[str, str]]] = {}
    for split, count in EXAMPLES_PER_LANGUAGE.items():
        rows: list[dict[str, str]] = []
        for _ in range(count):
            names = [language.name for language in LANGUAGES]
            rng.shuffle(names)
            rows.extend({"text": next(drawn[name]), "label": name} for name in names)
        splits[split] = rows
    return splits


def write_messages(splits: dict[str, list[dict[str, str]]], path: Path) -> None:
    """Write the sentences of all splits, each with a sender."""
    rng = random.Random(SEED)
    rows = [row for split in splits.values() for row in split]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "sender", "message", "language"))
        writer.writerows((number, rng.choice(SENDERS), row["text"], row["label"]) for number, row in enumerate(rows, 1))
    print(f"{path}: {len(rows)} examples")


def main() -> None:
    """Write one JSONL file for each split, and the file of messages."""
    TASK_DIR.mkdir(parents=True, exist_ok=True)
    splits = make_splits()
    write_messages(splits, TASK_DIR.parent / "messages.csv")
    for name, rows in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path = TASK_DIR / f"{name}.jsonl"
        path.write_text("".join(lines), encoding="utf-8", newline="\n")
        print(f"{path}: {len(rows)} examples")


if __name__ == "__main__":
    main()
