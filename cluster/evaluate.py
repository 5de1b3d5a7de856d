"""``gpo evaluate``: one prompt, one task, one split."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from cluster.build import EmbeddedUrls, build_evaluators, embedded_spec
from cluster.config import RunConfig
from cluster.config.models import EmbeddedChatConfig
from cluster.interrupts import run_interruptibly
from cluster.preflight import check_models, explained_refusal
from cluster.progress import percent
from gpo.errors import ConfigError, ModelRefused
from gpo.evaluation import Evaluation
from gpo.prompt import Prompt
from gpo.score import finite
from gpo.tasks import Split
from serve.embedded_model import EmbeddedModelServer, free_port


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A prompt and how it did."""

    task: str
    split: Split
    prompt: Prompt
    evaluation: Evaluation


def evaluate_prompt(
    config: RunConfig, task: str | None, prompt: str | None, split_name: str, console: Console
) -> Evaluated:
    """Score a prompt; where the task model is an embedded one, it is served by this process for as long as it takes.

    Raises:
        ConfigError: no such task or split; the data or the model cannot be used.
        EvaluationError: too many examples stayed unscored.
    """
    names = [entry.name for entry in config.tasks]
    chosen = task or names[0]
    if chosen not in names:
        raise ConfigError("--task", f"{chosen!r} is not in the configuration", f"choose one of: {', '.join(names)}")
    if split_name not in list(Split):
        raise ConfigError("--split", f"{split_name!r} is unknown", f"choose one of: {', '.join(Split)}")
    split = Split(split_name)
    if prompt is not None and not prompt.strip():
        raise ConfigError("--prompt", "is empty", "write a prompt, or leave the option out")
    index = names.index(chosen)
    sizes = config.evaluation
    loaded = config.tasks[index].build(f"tasks[{index}]", sizes.val_size, sizes.test_size)
    with console.status("Asking the endpoint for its models …"):
        asyncio.run(check_models(config, roles=("task",)))

    with _embedded_model(config, console) as urls:
        (evaluator,) = build_evaluators(config, [loaded], urls)
        scored = Prompt(prompt.strip()) if prompt else loaded.initial
        with console.status(f"Scoring on {len(loaded.examples[split])} examples …"):
            try:
                (evaluation,) = run_interruptibly(evaluator.evaluate([scored], split))
            except ModelRefused as refusal:
                raise explained_refusal(config, refusal) from None
    return Evaluated(chosen, split, scored, evaluation)


@contextmanager
def _embedded_model(config: RunConfig, console: Console) -> Iterator[EmbeddedUrls]:
    """The task model's server in this process, where it is an embedded one."""
    model = config.models.task
    if not isinstance(model, EmbeddedChatConfig):
        yield {}
        return
    spec = embedded_spec(model)
    with console.status("Starting the embedded model …"):
        server = EmbeddedModelServer(spec, free_port())
    yield {spec: server.base_url()}


def report_evaluation(evaluated: Evaluated, console: Console, output: Path | None) -> None:
    """Say the score, and write it to a file where one is named.

    Raises:
        ConfigError: the file cannot be written.
    """
    score, usage = evaluated.evaluation.score, evaluated.evaluation.usage
    unscored = f", {score.num_unscored} unscored" if score.num_unscored else ""
    console.print(
        f"{evaluated.task} {evaluated.split}: {percent(score.mean)} % ± {percent(score.stderr)} "
        f"(standard error), {score.num_examples} examples{unscored}, {usage.requests} calls, "
        f"{usage.prompt_tokens} + {usage.completion_tokens} tokens",
        highlight=False,
        soft_wrap=True,
    )
    if output is None:
        return
    document = {
        "task": evaluated.task,
        "split": evaluated.split.value,
        "prompt": evaluated.prompt.text,
        "mean": finite(score.mean),
        "stderr": finite(score.stderr),
        "values": list(score.values_E),
        "usage": asdict(usage),
    }
    try:
        output.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError("--output", f"{str(output)!r} cannot be written ({error.strerror})", "name another") from None
