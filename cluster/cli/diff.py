"""``gpo diff``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from cluster.cli.options import RunDir, folder_at
from cluster.cli.terminal import OK, out, show

_STYLES = {"same": "", "deleted": "red strike", "inserted": "green underline"}
_MARKS = {"same": ("", ""), "deleted": ("[-", "-]"), "inserted": ("{+", "+}")}


def diff(
    run_dir: RunDir,
    other: Annotated[
        str | None,
        typer.Argument(metavar="OTHER_RUN_DIR", help="Another run, whose best prompt is compared.", show_default=False),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help="Only this task.")] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="initial|best|ID",
            help="Prompt of RUN_DIR to start from.",
            show_default="initial; best if there is another run",
        ),
    ] = None,
    after: Annotated[
        str,
        typer.Option("--to", metavar="best|initial|ID", help="Prompt to compare it with; in OTHER_RUN_DIR if given."),
    ] = "best",
) -> int:
    """Show how two prompts differ, word by word: the initial and the best one of a run, or the best ones of two runs.

    Example: **gpo diff runs/quickstart**

    Removed words are in [-brackets-], added ones in {+braces+}.
    """
    from cluster.display.progress import percent_with_interval
    from cluster.reporting.diff import word_diff
    from cluster.results.answers import prompt_id
    from cluster.results.stored_run import RunReader
    from gpo.errors import ConfigError
    from gpo.text import without_controls

    first = RunReader(folder_at("RUN_DIR", run_dir)).read().record.best_by_task()
    second = first if other is None else RunReader(folder_at("OTHER_RUN_DIR", other)).read().record.best_by_task()
    before = before or ("initial" if other is None else "best")
    tasks = [name for name in first if name in second and task in (None, name)]
    if not tasks:
        known = ", ".join(first) or "none has a score yet"
        raise ConfigError("--task", "there is no such task in both runs", f"the tasks of RUN_DIR: {known}")
    for name in tasks:
        texts = []
        show(f"{name}")
        for title, (_, checkpoint), chosen in (("from", first[name], before), ("to", second[name], after)):
            wanted = prompt_id(checkpoint, chosen, f"--{title}")
            candidate = next(one for one in checkpoint.trajectory.history if one.prompt.id == wanted)
            texts.append(candidate.prompt.text)
            show(f"  {title}: {chosen} {wanted}, val {percent_with_interval(candidate.score)}")
        shown = Text()
        for segment in word_diff(*texts):
            opening, closing = _MARKS[segment.change]
            shown.append(f"{opening}{without_controls(segment.text)}{closing}", style=_STYLES[segment.change])
        out.print(shown, soft_wrap=True, highlight=False)
    return OK
