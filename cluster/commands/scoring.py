"""Commands that score or reckon without searching: ``plan``, ``evaluate``, ``score`` and ``serve``."""

from __future__ import annotations

from pathlib import Path

from cluster.commands.exit_codes import OK
from cluster.commands.terminal import ask_for_models, err, out, say
from gpo.errors import ConfigError


def plan(config_path: Path, overrides: list[str], output: Path | None) -> int:
    """``gpo plan``."""
    from cluster.config.loading import read_overridden, validated
    from cluster.evaluating.plan import CHARACTERS_PER_TOKEN, plan_document, plan_table, planned
    from cluster.evaluating.score import require_writable
    from cluster.results.outputs import as_json
    from cluster.session.models import build_tasks

    raw = read_overridden(config_path, overrides)
    if output is not None:
        require_writable(output)
    if "sweep" in raw:
        from cluster.sweep.loading import load_sweep
        from cluster.sweep.plan import planned_sweep

        swept = load_sweep(config_path, overrides)
        config, plans = swept.base, planned_sweep(swept)
        say(f"{swept.section.trials} trials, each as dear as the space allows; those that are pruned take less.")
    else:
        config = validated(raw, config_path)
        plans = planned(config, build_tasks(config))
    out.print(plan_table(config, plans))
    say(
        "Calls are bounds: candidates that repeat a prompt are not scored; failed calls tried again come on top. "
        f"Tokens sent are estimated, at {CHARACTERS_PER_TOKEN} characters each."
    )
    if output is not None:
        try:
            output.write_bytes(as_json(plan_document(config, plans)))
        except OSError as error:
            problem = f"{str(output)!r} cannot be written ({error.strerror})"
            raise ConfigError("--output", problem, "name another") from None
    return OK


def evaluate(
    config_path: Path, overrides: list[str], task: str | None, prompt: str | None, split: str, output: Path | None
) -> int:
    """``gpo evaluate``."""
    from cluster.config import load_config
    from cluster.evaluating.evaluate import evaluate_prompt, report_evaluation
    from cluster.evaluating.score import require_writable

    config = load_config(config_path, overrides)
    if output is not None:
        require_writable(output)
    evaluated = evaluate_prompt(config, task, prompt, split, err)
    report_evaluation(evaluated, out, output)
    return OK


def score(answers: Path, parser: str, output: Path | None) -> int:
    """``gpo score``."""
    from cluster.evaluating.score import require_other_file, scored_answers, summary_lines, write_scored

    if output is not None:
        require_other_file(output, answers)
    scored = scored_answers(answers, parser)
    write_scored(scored, output)
    for line in summary_lines(scored):
        say(line)
    return OK


def serve(config_path: Path, overrides: list[str], host: str, port: int, address: str | None) -> int:
    """``gpo serve``."""
    from cluster.config import load_config
    from cluster.session.models import build_tasks
    from cluster.session.ray_environment import prepare_environment, resolve_address

    config = load_config(config_path, overrides)
    address = resolve_address(address)
    tasks = build_tasks(config)
    ask_for_models(config)

    prepare_environment(address)
    from cluster.serving.command import serve_evaluator

    serve_evaluator(config, tasks, host, port, address, err)
    return OK
