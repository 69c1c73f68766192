"""Configuration of an evaluation: recipe, references and the steps that are left out. Meaningless combinations are refused."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError

RECIPES = ("default", "one-shot", "together", "layer", "paper")
STEPS = ("scaling", "whitening", "own", "nuisance", "centring", "gallery")
GALLERY_STEPS = ("own", "gallery")
"""Steps that only recipe default has."""
REFERENCE_POLICIES = ("resynthesised", "arbitrary", "aligned")
"""Origin of the references: pictures of the probe's own prompt, or gallery pictures of other prompts, at random or by content."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Configuration of an evaluation; ConfigError names the option that does not fit."""

    recipe: str = "default"
    references: int = 1
    """per candidate; 0: only the gallery is used, and the content is estimated from the other pictures of the prompt"""
    draws: int = 5
    seed: int = 0
    without: tuple[str, ...] = ()
    """steps of the recipe that are left out"""
    leave_out: tuple[str, ...] = ()
    """families of degradations that are left out of the nuisance constants"""
    together: int | None = None
    """number of captions that share their resyntheses, the probe's own included; None: all"""
    policy: str = "resynthesised"
    """origin of the references"""

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ConfigError(f"--recipe is {self.recipe!r}; it must be {', '.join(RECIPES)}")
        if unknown := set(self.without) - set(STEPS):
            raise ConfigError(f"--without is {sorted(unknown)[0]!r}; it must be {', '.join(STEPS)}")
        if absent := set(self.without) - set(self.steps()):
            raise ConfigError(f"--without is {sorted(absent)[0]!r}, a step that recipe {self.recipe!r} does not have; drop the option")
        if "scaling" in self.without and "whitening" not in self.without:
            raise ConfigError("--without scaling needs --without whitening too; the covariance is that of scaled features")
        if self.leave_out and "nuisance" not in self.steps():
            raise ConfigError(
                f"--leave-out is {self.leave_out[0]!r}, but recipe {self.recipe!r} has no nuisance constants; drop the option"
            )
        if not 0 <= self.references <= 1000 or not 1 <= self.draws <= 1000:
            raise ConfigError(f"references is {self.references} and draws {self.draws}; they must be 0 … 1000 and 1 … 1000")
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}; it must be 0 or more")
        if self.references == 0 and not self.gallery:
            without = " without a gallery" if self.recipe == "default" else ""
            raise ConfigError(
                f"--references is 0, but recipe {self.recipe!r}{without} has only its references; use --recipe default, or give 1 or more"
            )
        if self.together is not None and (self.recipe != "together" or self.together < 1):
            raise ConfigError(f"--together is {self.together} with recipe {self.recipe!r}; it must be at least 1, with recipe together")
        if self.policy not in REFERENCE_POLICIES:
            raise ConfigError(f"policy is {self.policy!r}; it must be {', '.join(REFERENCE_POLICIES)}")
        if self.policy != "resynthesised" and (self.recipe != "one-shot" or self.references == 0):
            raise ConfigError(
                f"policy {self.policy!r} uses gallery pictures as references; it needs recipe one-shot and at least one reference"
            )

    def steps(self) -> tuple[str, ...]:
        """The steps that the recipe has."""
        if self.recipe in ("layer", "paper"):
            return ()
        return STEPS if self.recipe == "default" else tuple(step for step in STEPS if step not in GALLERY_STEPS)

    @property
    def gallery(self) -> bool:
        """Whether pictures of other prompts are used."""
        return self.recipe == "default" and "gallery" not in self.without
