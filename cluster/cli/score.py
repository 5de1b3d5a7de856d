"""``gpo score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.terminal import OK, say


def score(
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON Lines with the fields **dataset**, **task**, **target** and **answer**; others are kept.",
            show_default=False,
        ),
    ],
    parser: Annotated[
        str,
        typer.Option(help="Rules that read the answers: **default**, or **paper** for those of the published figures."),
    ] = "default",
    output: Annotated[
        Path | None,
        typer.Option(help="Write the scored lines to this file.  [default: standard output]", show_default=False),
    ] = None,
) -> int:
    """Score recorded answers: repeats each line of FILE, in order, with its **score** in [0, 1].

    Example: **gpo score answers.jsonl --output scored.jsonl**

    Prints a summary per dataset to standard error; for lines with a **reference_score**, it shows how often the two
    scores agree (texts: within 0.02).
    """
    from cluster.evaluating.score import require_other_file, scored_answers, summary_lines, write_scored

    if output is not None:
        require_other_file(output, answers)
    scored = scored_answers(answers, parser)
    write_scored(scored, output)
    for line in summary_lines(scored):
        say(line)
    return OK
