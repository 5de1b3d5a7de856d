"""The answers to the best prompt as a log of inspect_ai, for its viewer and its analysis functions.

The log is of its JSON format, version 2: https://inspect.aisi.org.uk/eval-logs.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from actors.answers import RecordedAnswer
from actors.search import SearchKey
from cluster.results.answers import ComparedExample, SearchAnswers, ShownExample
from cluster.results.run_record import RunRecord
from gpo.data.task import Split
from gpo.errors import ConfigError
from gpo.models.protocol import Message

_STATUS = {"completed": "success", "failed": "error", "running": "started", "pending": "started"}
Conversation = Callable[[ShownExample], Sequence[Message]]


def inspect_log(
    record: RunRecord,
    times: Mapping[str, str | None],
    key: SearchKey,
    answers: SearchAnswers,
    model: str,
    conversation: Conversation,
) -> dict[str, Any]:
    """The log of a search: a sample for each example that its best prompt has answered, ``test`` first.

    A sample's score has the name of its split, so that the viewer shows the mean of each. Metadata hold the initial
    prompt's answer and score.

    Args:
        times: ``started_at`` and ``finished_at`` of the run, ISO 8601.
        model: name of the task model.
        conversation: what the task model was asked about an example.

    Raises:
        ConfigError: no answers to the best prompt are recorded.
    """
    trajectory = record.checkpoints[key].trajectory
    initial, best = trajectory.initial.prompt, trajectory.best.prompt
    compared = [one for one in answers.compared(initial.id, best.id) if one.after is not None]
    if not compared:
        remedy = "run with record.answers: chosen, the default, or all"
        raise ConfigError("--format", f"no answers of {key} are recorded", remedy)
    compared.sort(key=lambda one: (one.split is not Split.TEST, str(one.split), one.index))
    samples = [_sample(one, one.after, model, conversation) for one in compared if one.after is not None]
    created = times.get("started_at") or "1970-01-01T00:00:00+00:00"
    usage = {"total_tokens": sum(one.after.tokens for one in compared if one.after is not None)}
    status = _STATUS.get(record.status, "cancelled")
    return {
        "version": 2,
        "status": status,
        "eval": {
            "eval_id": f"{record.run_id}-{key.task}-{key.seed}",
            "run_id": record.run_id,
            "created": created,
            "task": key.task,
            "task_id": key.task,
            "task_version": 0,
            "dataset": {"name": key.task, "samples": len(samples), "sample_ids": [one["id"] for one in samples]},
            "model": model,
            "config": {"epochs": 1},
            "metadata": {"seed": key.seed, "prompt": best.text, "prompt_id": best.id, "initial_prompt": initial.text},
            "scorers": [{"name": name} for name in _splits(compared)],
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": len(samples),
            "completed_samples": sum("error" not in sample for sample in samples),
            "scores": [_mean(name, compared) for name in _splits(compared)],
        },
        "stats": {
            "started_at": created,
            "completed_at": times.get("finished_at") or "",
            "model_usage": {model: usage},
        },
        **({"error": _error("; ".join(record.errors.values()) or "the run failed")} if status == "error" else {}),
        "samples": samples,
    }


def log_name(log: Mapping[str, Any]) -> str:
    """The name by which ``inspect view`` finds a log in a folder."""
    known = log["eval"]
    moment = str(known["created"])[:19].replace(":", "-")
    task, name = (re.sub("[^A-Za-z0-9-]", "-", str(known[part])) for part in ("task", "eval_id"))
    return f"{moment}_{task}_{name}.json"


def _sample(one: ComparedExample, answer: RecordedAnswer, model: str, conversation: Conversation) -> dict[str, Any]:
    name, asked = str(one.split), [dict(message) for message in conversation(one.example)]
    reply = {"role": "assistant", "content": answer.answer, "source": "generate", "model": model}
    usage = {"total_tokens": answer.tokens}
    before = one.before
    return {
        "id": f"{name}/{one.index + 1}",
        "epoch": 1,
        "input": one.example.input,
        "target": list(one.example.targets) or "",
        "messages": [*asked, reply],
        "output": {
            "model": model,
            "choices": [{"message": reply, "stop_reason": "max_tokens" if answer.flaw == "cut" else "stop"}],
            "completion": answer.answer,
            "usage": usage,
            "time": answer.seconds,
        },
        "scores": {} if answer.value is None else {
            name: {"value": answer.value, "answer": answer.read or answer.answer, "explanation": answer.reason or None}
        },
        "metadata": {
            "split": name,
            "outcome": one.outcome,
            "from_cache": answer.is_cached,
            "initial_answer": before.answer if before else None,
            "initial_score": before.value if before else None,
        },
        "model_usage": {model: usage},
        "total_time": answer.seconds,
        **({"error": _error(answer.problem)} if answer.value is None else {}),
    }  # fmt: skip


def _splits(compared: Sequence[ComparedExample]) -> list[str]:
    return list(dict.fromkeys(str(one.split) for one in compared))


def _mean(name: str, compared: Sequence[ComparedExample]) -> dict[str, Any]:
    own = [one.after for one in compared if str(one.split) == name and one.after is not None]
    values = [answer.value for answer in own if answer.value is not None]
    metrics = {"mean": fmean(values)} if values else {}
    if len(values) > 1:
        metrics["stderr"] = stdev(values) / len(values) ** 0.5
    return {
        "name": name,
        "scorer": name,
        "scored_samples": len(values),
        "unscored_samples": len(own) - len(values),
        "metrics": {metric: {"name": metric, "value": value} for metric, value in metrics.items()},
    }


def _error(message: str) -> dict[str, str]:
    return {"message": message, "traceback": "", "traceback_ansi": ""}
