"""Section ``optimizer.direction``: what the optimizer model learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import NonNegativeInt, PositiveInt, Tag

from cluster.config.section import Section, by_kind
from gpo.data.example import Example
from gpo.evaluation.evaluator import Answerer
from gpo.models.protocol import ChatModel, Embedder, Sampling
from gpo.strategies.reflection import FailureReflector, NoReflection, Reflector
from gpo.strategies.retrieval import ImportanceRetriever, RecencyRetriever, RelevanceRetriever, Retriever
from gpo.strategies.summary import NoSummary, RunningSummary, Summarizer


class RetrievalConfig(Section):
    """Show past prompts that were retrieved from the trajectory."""

    kind: Literal["retrieval"] = "retrieval"
    by: Literal["recency", "importance", "relevance"] = "relevance"
    """The last ones, the best ones, or those nearest in meaning to the current prompt."""
    k: NonNegativeInt = 3
    """How many."""

    def build_summarizer(self, model: ChatModel, sampling: Sampling, *, show_scores: bool) -> Summarizer:
        """None: the prompts speak for themselves."""
        del model, sampling, show_scores
        return NoSummary()

    def build_retriever(self, embedder: Embedder) -> Retriever:
        """The retriever."""
        retrievers: dict[str, Retriever] = {
            "recency": RecencyRetriever(),
            "importance": ImportanceRetriever(),
            "relevance": RelevanceRetriever(embedder),
        }
        return retrievers[self.by]


class NoTrajectoryConfig(Section):
    """Show the current prompt alone."""

    kind: Literal["none"]

    @property
    def k(self) -> int:
        """No past prompt is shown."""
        return 0

    def build_summarizer(self, model: ChatModel, sampling: Sampling, *, show_scores: bool) -> Summarizer:
        """None."""
        del model, sampling, show_scores
        return NoSummary()

    def build_retriever(self, embedder: Embedder) -> Retriever:
        """Any retriever: it is asked for 0 prompts."""
        del embedder
        return RecencyRetriever()


class SummaryConfig(Section):
    """Show a summary of the search so far, which the optimizer model brings up to date in every step."""

    kind: Literal["summary"]

    @property
    def k(self) -> int:
        """No past prompt is shown."""
        return 0

    def build_summarizer(self, model: ChatModel, sampling: Sampling, *, show_scores: bool) -> Summarizer:
        """The summarizer, on the optimizer model."""
        return RunningSummary(model=model, sampling=sampling, show_scores=show_scores)

    def build_retriever(self, embedder: Embedder) -> Retriever:
        """Any retriever: it is asked for 0 prompts."""
        del embedder
        return RecencyRetriever()


class DirectionConfig(Section):
    """Update direction: what the optimizer model learns from."""

    form: Literal["prompt", "score", "score_reflection"] = "score"
    """``prompt``: the texts of prompts alone. ``score``: with their scores. ``score_reflection``: also with what the
    optimizer model says of the current prompt's failures on a batch of ``train``."""
    failures: PositiveInt = 3
    """With ``score_reflection``: failures that a reflection is made from, at most."""
    trajectory: Annotated[
        Annotated[RetrievalConfig, Tag("retrieval")]
        | Annotated[SummaryConfig, Tag("summary")]
        | Annotated[NoTrajectoryConfig, Tag("none")],
        by_kind("retrieval", "summary", "none"),
    ] = RetrievalConfig()
    """How the trajectory so far is used."""

    def build_reflector(
        self, model: ChatModel, sampling: Sampling, answerer: Answerer, examples: Sequence[Example]
    ) -> Reflector:
        """The reflector, on the optimizer model and the train split's examples."""
        if self.form != "score_reflection":
            return NoReflection()
        return FailureReflector(
            model=model, sampling=sampling, answerer=answerer, examples=examples, num_failures=self.failures
        )
