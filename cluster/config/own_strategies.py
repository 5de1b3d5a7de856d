"""Strategies of a user's own, which stand in for built-in ones: ``kind: module:function``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue, NonNegativeInt, field_validator

from cluster.config.functions import FunctionName, FunctionSection, reference
from cluster.config.section import LOCATION, ConfigPath, unfit
from gpo.models.protocol import Embedder
from gpo.strategies.own import OwnAcceptance, OwnRefinement, OwnRetriever, OwnSchedule
from gpo.user_code.functions import FunctionReference


class OwnStrategyConfig(FunctionSection):
    """A strategy of your own."""

    kind: FunctionName
    """Your own function ``module:function``, which returns the strategy."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    folder: Annotated[ConfigPath | None, LOCATION] = None
    """Folder with the function's module. The working directory is searched next, then the installed packages. On a
    cluster, every node must have the module. Default: this file's folder."""

    named_by = "kind"
    passed: ClassVar[tuple[str, ...]] = ()
    """The keyword arguments that the program passes to a function that has such parameters."""

    @field_validator("options")
    @classmethod
    def _options_are_not_passed(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in options:
            if name in cls.passed:
                raise unfit("is passed by the program; leave it out", at=name)
        return options

    @property
    def function(self) -> FunctionReference:
        """The function, not imported yet."""
        return reference(self.kind, self.folder)

    @property
    def arguments(self) -> dict[str, Any]:
        """The options as plain values: other processes need not know the types of the configuration."""
        plain: dict[str, Any] = self.model_dump(mode="json", include={"options"})["options"]
        return plain


class OwnScheduleConfig(OwnStrategyConfig):
    """A step-size schedule of your own."""

    passed = ("num_steps",)

    @property
    def warmup_steps(self) -> int:
        """The program knows of no warm-up."""
        return 0

    def build(self, num_steps: int) -> OwnSchedule:
        """The schedule over ``num_steps`` steps; a search without steps has one that is never used."""
        return OwnSchedule(self.function, self.arguments, {"num_steps": max(1, num_steps)})


class OwnRetrievalConfig(OwnStrategyConfig):
    """Show the optimizer model past prompts that a retriever of your own selects."""

    passed = ("embedder",)
    k: NonNegativeInt = 8
    """How many past prompts to show, at most."""

    def build(self, embedder: Embedder) -> OwnRetriever:
        """The retriever."""
        return OwnRetriever(self.function, self.arguments, {"embedder": embedder})


class OwnRefinementConfig(OwnStrategyConfig):
    """An instruction of your own to the optimizer model, in the meta-prompt ``full``."""

    enforce: bool = False
    """Sample a prompt again if it changes more words than the step size allows."""
    max_samples: Annotated[int, Field(ge=2)] = 4
    """Most samples for one candidate, with ``enforce``."""

    def build(self) -> OwnRefinement:
        """The instruction for the optimizer model."""
        return OwnRefinement(self.function, self.arguments)


class OwnAcceptanceConfig(OwnStrategyConfig):
    """An acceptance rule of your own."""

    def build(self) -> OwnAcceptance:
        """The acceptance rule."""
        return OwnAcceptance(self.function, self.arguments)
