"""Compare meta-prompts on real models: ``python -m benchmarks.meta_prompts [OPTIONS]``.

SmolLM2-135M answers five small tasks. The optimizer model is the same one, and with ``--gguf`` a larger one. For each
meta-prompt, task and seed, a search takes two steps of four candidates. Prints a Markdown table. A search takes about
one minute on two idle cores; those that ``--results`` has are not repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from time import monotonic

from benchmarks.measuring.servers import ROOT
from benchmarks.measuring.tables import write_between
from benchmarks.meta_prompts.searches import VARIANTS, Found, search
from benchmarks.meta_prompts.tasks import NAMES, make_task
from cluster.session.models import SampledModel
from gpo.models.endpoint import Endpoint
from gpo.models.openai import openai_model
from gpo.models.protocol import ChatModel, Completion, Message, Sampling
from serve.embedded_model import EmbeddedModelServer, EmbeddedModelSpec, free_port

META_PROMPTS = tuple(VARIANTS)
SMALL = "SmolLM2-135M"
_TIMEOUT_S = 600.0


class RememberingModel:
    """A model that is asked the same only once; exact at temperature 0."""

    def __init__(self, model: ChatModel) -> None:
        self._model, self._known = model, dict[str, Completion]()

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        key = json.dumps(list(messages))
        if key not in self._known:
            self._known[key] = await self._model.complete(messages, sampling)
        return self._known[key]


def _model(gguf: Path | None, parallel: int) -> ChatModel:
    # Requests of a step share all but their last words. A server that decodes one at a time reads these only once.
    spec = EmbeddedModelSpec(gguf, parallel=parallel, context=2048, threads=None)
    url = _server(spec).base_url()
    return openai_model(Endpoint(url, spec.name, max_concurrency=parallel, timeout_s=_TIMEOUT_S))


@cache  # a server runs as long as it is kept
def _server(spec: EmbeddedModelSpec) -> EmbeddedModelServer:
    return EmbeddedModelServer(spec, free_port())


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meta_prompts", description=__doc__)
    add = parser.add_argument
    add("--gguf", type=Path, metavar="FILE", help="weights of a larger optimizer model; instead of the small one")
    add("--name", default="1.5B", help="name of the larger model in the table")
    add("--seeds", type=int, default=3)
    add("--tasks", nargs="+", choices=NAMES, default=NAMES, metavar="TASK", help=f"from {', '.join(NAMES)}")
    add("--meta-prompts", nargs="+", choices=META_PROMPTS, default=META_PROMPTS, metavar="KIND")
    add("--results", type=Path, metavar="FILE", help="keep the results here; those that it has are not repeated")
    add("--write", action="store_true", help="write the table of all results into benchmarks/README.md")
    settings = parser.parse_args(arguments)
    # The library of word vectors turns on all logs.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    found = _read(settings.results)
    asyncio.run(_run(settings, found))
    text = table(found)
    print(text)
    if settings.write:
        write_between(ROOT / "benchmarks" / "README.md", "meta-prompts", text)
    return 0


async def _run(settings: argparse.Namespace, found: list[Found]) -> None:
    name = SMALL if settings.gguf is None else settings.name
    known = {(one.model, one.meta_prompt, one.task, one.seed) for one in found}
    jobs = [
        (meta_prompt, task, seed)
        for seed in range(settings.seeds)
        for task in settings.tasks
        for meta_prompt in settings.meta_prompts
        if (name, meta_prompt, task, seed) not in known
    ]
    if not jobs:
        return
    task_model = RememberingModel(_model(None, 8))
    most = 40 if settings.gguf is None else 100
    sampling = Sampling(temperature=1.0, max_tokens=most, extra={"min_p": 0.05})
    optimizer = SampledModel(_model(settings.gguf, 1), sampling)
    for number, (meta_prompt, task, seed) in enumerate(jobs, start=1):
        start = monotonic()
        one = await search(meta_prompt, make_task(task), seed, model=name, optimizer=optimizer, task_model=task_model)
        found.append(one)
        if settings.results is not None:
            with settings.results.open("a") as file:
                file.write(json.dumps(asdict(one)) + "\n")
        print(
            f"{number}/{len(jobs)} {meta_prompt} {task} {seed}: test {one.initial_test:.2f} -> {one.best_test:.2f} "
            f"in {monotonic() - start:.0f} s: {one.best!r}",
            file=sys.stderr,
            flush=True,
        )


def _read(path: Path | None) -> list[Found]:
    if path is None or not path.exists():
        return []
    return [Found(**json.loads(line)) for line in path.read_text().splitlines()]


def table(found: Sequence[Found]) -> str:
    """A row for each optimizer model and meta-prompt."""
    rows = [
        "| Optimizer model | Meta-prompt | Searches | Usable | Parroted | Repeated | Edit / step size | Better than "
        "parent | Task calls | Test: initial | Test: best |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups = {key: [one for one in found if (one.model, one.meta_prompt) == key] for key in _keys(found)}
    for (model, meta_prompt), ones in groups.items():
        replies, candidates = sum(one.num_replies for one in ones), sum(one.num_candidates for one in ones)
        best = [one.best_test for one in ones]
        error = stdev(best) / len(best) ** 0.5 if len(best) > 1 else 0.0
        edits = [edit for one in ones for edit in one.edits]
        rows.append(
            f"| {model} | {meta_prompt} | {len(ones)} | {sum(one.num_usable for one in ones) / replies:.0%} | "
            f"{sum(one.num_parroted for one in ones) / replies:.0%} | "
            f"{sum(one.num_repeated for one in ones) / replies:.0%} | {fmean(edits):.2f} | "
            f"{sum(one.num_better for one in ones) / candidates:.0%} | {fmean(one.num_calls for one in ones):.0f} | "
            f"{100 * fmean(one.initial_test for one in ones):.1f} | {100 * fmean(best):.1f} ± {100 * error:.1f} |"
        )
    rows.append("")
    parroted = sum(one.num_parroted_candidates for one in found)
    rows.append(
        f"Candidates with parroted scores, titles or tags: {parroted} of {sum(o.num_candidates for o in found)}."
    )
    return "\n".join(rows)


def _keys(found: Sequence[Found]) -> list[tuple[str, str]]:
    return sorted({(one.model, one.meta_prompt) for one in found}, key=lambda key: (key[0], META_PROMPTS.index(key[1])))


if __name__ == "__main__":
    raise SystemExit(main())
