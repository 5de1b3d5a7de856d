"""Section ``answer`` of a task: how answers are asked for and judged."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from cluster.config.functions import (
    FUNCTION,
    FunctionName,
    folder_beside,
    folder_of,
    quoted,
    reference,
    refuse_file,
    require_allowed,
    require_loadable,
)
from cluster.config.section import LOCATION, ConfigPath, Section, unfit
from gpo.data.catalogue import BenchmarkTask, Family
from gpo.data.example import Example, inferred_kind
from gpo.errors import ConfigError, EvaluationError
from gpo.evaluation.metrics import (
    BooleanScorer,
    ChoiceScorer,
    CustomScorer,
    ExactScorer,
    LabelScorer,
    NumberScorer,
    ParsedScorer,
    RougeScorer,
    Rubric,
    Scorer,
)
from gpo.evaluation.metrics.paper import PARSERS
from gpo.user_code.functions import FunctionReference


def _parser(name: str, info: ValidationInfo) -> str:
    refuse_file(name)
    if name not in PARSERS and not re.fullmatch(FUNCTION, name):
        raise unfit(f"{quoted(name)} is not a parser; choose default, paper, or a function as module:function")
    if name not in PARSERS:
        require_allowed(name, info)
    return name


class AnswerConfig(Section):
    """How answers are asked for and judged."""

    kind: Literal["choice", "boolean", "number", "exact", "label", "text", "custom", "judge"] | None = None
    """How an answer is judged. ``choice``: an option such as (B). ``boolean``: yes or no, true or false. ``number``.
    ``exact``: the target itself. ``label``: the answer names the target and no other label. ``text``: ROUGE-L.
    ``custom``: by the function ``metric``. ``judge``: a language model judges by ``rubric``. Default: as the benchmark
    needs, or inferred from the targets."""
    parser: Annotated[
        str, AfterValidator(_parser), Field(json_schema_extra={"pattern": rf"^(default|paper|{FUNCTION})$"})
    ] = "default"
    """How an answer is read: ``default``, ``paper`` (the rules behind the paper's figures), or your own function,
    ``module:function``, which gets the answer and the input and returns the text that ``kind`` judges."""
    rounds: Literal[1, 2] | None = None
    """Rounds per example; 2 asks a second time, for the bare answer. Default: 1 for files, 2 for benchmarks."""
    labels: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """The labels, for kind ``label``. Default: all targets in the data."""
    metric: FunctionName | None = None
    """Your own function ``module:function``, for kind ``custom``. It gets the answer and the example, and returns a
    number from 0 to 1 or a truth value, or a pair of that and a text that says why. The example has ``input``,
    ``target``, ``targets``, and all columns of its row, as in ``example["column"]``. A function with three required
    parameters gets the answer, the targets and the input."""
    rubric: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    """What makes an answer good, for kind ``judge``."""
    scale: Annotated[int, Field(ge=1, le=100)] | None = None
    """The best verdict, for kind ``judge``; the worst is 0. Default: 10."""
    folder: Annotated[ConfigPath | None, LOCATION] = None
    """Folder with the modules of ``metric`` and ``parser``. The working directory is searched next, then the installed
    packages. On a cluster, every node must have the modules. Default: this file's folder."""

    @model_validator(mode="before")
    @classmethod
    def _folder_of_functions(cls, answer: Any) -> Any:
        if isinstance(answer, dict) and answer.get("folder") is None and _names_function(answer):
            function = answer["metric"] if answer.get("metric") else answer["parser"]
            return {**answer, "folder": folder_beside(function)}
        return answer

    @field_validator("folder")
    @classmethod
    def _folder_where_it_is(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        name = info.data.get("metric") or str(info.data.get("parser"))
        return folder if folder is None or ":" not in name else folder_of(name, folder)

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> Self:
        for option, kind in _OPTION_OF.items():
            if getattr(self, option) is not None and self.kind != kind:
                raise unfit(f"needs kind: {kind}; set that kind, or leave it out", at=option)
        for kind, option in (("custom", "metric"), ("judge", "rubric")):
            if self.kind == kind and getattr(self, option) is None:
                raise unfit("is missing; set it", at=option)
        if self.kind in ("custom", "judge") and self.parser != "default":
            raise unfit("is used only by kinds that judge by rule; leave it out", at="parser")
        if self.folder is not None and not _names_function({"metric": self.metric, "parser": self.parser}):
            raise unfit("is not used by metric or parser; leave it out", at="folder")
        return self

    def scorer(self, examples: list[Example], where: str, known: BenchmarkTask | None = None) -> Scorer | Rubric:
        """The scorer for these examples, or the rubric by which a language model judges.

        Args:
            where: this section's path, for errors.
            known: the task in the catalogue, if the examples are a known benchmark's.

        Raises:
            ConfigError: the scorer would judge many of the targets themselves wrong; the paper has no such rule; or a
                user's function cannot be loaded, or fails on the first target.
        """
        if self.kind == "judge":
            return Rubric(self.rubric or "", self.scale or _SCALE)
        if self.kind == "custom":
            metric = reference(self.metric or "", self.folder)
            return _tried(CustomScorer(metric), metric, examples[0], f"{where}.metric")
        scorer = self._by_rule(examples, where, known)
        if self.parser in PARSERS:
            return scorer
        parser = reference(self.parser, self.folder)
        return _tried(ParsedScorer(parser, scorer), parser, examples[0], f"{where}.parser")

    def _by_rule(self, examples: list[Example], where: str, known: BenchmarkTask | None) -> Scorer:
        kind = self.kind or (known.family if known else inferred_kind(examples))
        if self.parser == "paper":
            scorer = PARSERS["paper"][self._paper_family(kind, where, known)]()
        elif self.kind is None and known is not None:
            scorer = PARSERS["default"][known.family]()
        else:
            scorer = self._label_scorer(examples) if kind == "label" else _SCORERS[kind]()
        wrong = [example.target for example in examples if scorer.score(example.target, example) == 0]
        # Some published benchmarks have a few faulty targets.
        if len(wrong) > max(1, _FAULTY * len(examples)):
            raise ConfigError(
                f"{where}.{'labels' if self.labels else 'kind'}",
                f"{kind!r} would judge {len(wrong)} of {len(examples)} targets wrong, such as {quoted(wrong[0])}",
                "choose the kind or the labels that fit the data, or correct those targets",
            )
        return scorer

    def _paper_family(self, kind: str, where: str, known: BenchmarkTask | None) -> Family:
        family = _FAMILIES.get(kind)
        if known is not None and (self.kind is None or (kind == "exact" and known.family in ("words", "brackets"))):
            family = known.family
        if family is None:
            raise ConfigError(
                f"{where}.parser",
                f"'paper' has no rule for answers of kind {kind!r}",
                f"set kind to one of: {', '.join(_FAMILIES)}; or leave parser out",
            )
        return family

    def _label_scorer(self, examples: list[Example]) -> LabelScorer:
        found = {target for example in examples for target in example.targets}
        return LabelScorer(self.labels or tuple(sorted(found)))


def _names_function(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("metric")) or ":" in str(answer.get("parser"))


def _tried(scorer: Scorer, function: FunctionReference, example: Example, field: str) -> Scorer:
    """The scorer, after its function was loaded and has judged a target."""
    require_loadable(function, field)
    try:
        scorer.score(example.target, example)
    except EvaluationError as failure:
        raise ConfigError(field, f"tried on the first target: {failure}", "correct the function") from None
    return scorer


_SCORERS: dict[str, Callable[[], Scorer]] = {
    "choice": ChoiceScorer,
    "boolean": BooleanScorer,
    "number": NumberScorer,
    "exact": ExactScorer,
    "text": RougeScorer,
}
_FAMILIES: Mapping[str, Family] = {"choice": "choice", "boolean": "boolean", "number": "number", "text": "text"}
"""Kind → the family whose answers the paper reads by the same rules."""
_OPTION_OF: Mapping[str, str] = {"labels": "label", "metric": "custom", "rubric": "judge", "scale": "judge"}
"""Option → the only kind that uses it."""
_SCALE = 10
_FAULTY = 0.05
"""Share of targets that may be faulty."""
