"""What is evaluated: recipe, references, and the steps that are left out; every combination that says nothing is refused."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError

RECIPES = ("default", "one-shot", "together", "layer", "paper")
STEPS = ("scaling", "whitening", "own", "nuisance", "centring", "gallery")
GALLERY_STEPS = ("own", "gallery")
"""Steps of recipe default alone."""
REFERENCE_POLICIES = ("resynthesised", "arbitrary", "aligned")
"""References are pictures of the probe's own prompt; or gallery pictures of other prompts, at random or by their content."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is evaluated; ConfigError names the option that does not fit."""

    recipe: str = "default"
    references: int = 1
    """of each candidate; 0: the gallery alone, the content estimated from the other pictures of the prompt"""
    draws: int = 5
    seed: int = 0
    without: tuple[str, ...] = ()
    """steps of the recipe that are left out"""
    leave_out: tuple[str, ...] = ()
    """families of degradations that are left out of the nuisance constants"""
    together: int | None = None
    """how many captions lend each other their resyntheses, the probe's own included; None: all"""
    policy: str = "resynthesised"
    """where the references come from"""

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ConfigError(f"--recipe is {self.recipe!r}; it must be {', '.join(RECIPES)}")
        if unknown := set(self.without) - set(STEPS):
            raise ConfigError(f"--without is {sorted(unknown)[0]!r}; it must be {', '.join(STEPS)}")
        if foreign := set(self.without) - set(self.steps()):
            raise ConfigError(f"--without is {sorted(foreign)[0]!r}, a step that recipe {self.recipe!r} does not have")
        if "scaling" in self.without and "whitening" not in self.without:
            raise ConfigError("--without scaling needs --without whitening too: the covariance is that of scaled features")
        if self.leave_out and "nuisance" not in self.steps():
            raise ConfigError(f"--leave-out is {self.leave_out[0]!r}, but recipe {self.recipe!r} has no nuisance constants")
        if not 0 <= self.references <= 1000 or not 1 <= self.draws <= 1000:
            raise ConfigError(f"references is {self.references} and draws {self.draws}; they must be 0 … 1000 and 1 … 1000")
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}; it must be 0 or more")
        if self.references == 0 and not self.gallery:
            without = " without a gallery" if self.recipe == "default" else ""
            raise ConfigError(
                f"--references is 0, but recipe {self.recipe!r}{without} has nothing but its references; use --recipe default or ask for one"
            )
        if self.together is not None and (self.recipe != "together" or self.together < 1):
            raise ConfigError(f"--together is {self.together} with recipe {self.recipe!r}; it is a number of captions of recipe together")
        if self.policy not in REFERENCE_POLICIES:
            raise ConfigError(f"policy is {self.policy!r}; it must be {', '.join(REFERENCE_POLICIES)}")
        if self.policy != "resynthesised" and (self.recipe != "one-shot" or self.references == 0):
            raise ConfigError(
                f"policy {self.policy!r} takes gallery pictures in place of resyntheses: recipe one-shot, one reference or more"
            )

    def steps(self) -> tuple[str, ...]:
        """The steps that the recipe has."""
        if self.recipe in ("layer", "paper"):
            return ()
        return STEPS if self.recipe == "default" else tuple(step for step in STEPS if step not in GALLERY_STEPS)

    @property
    def gallery(self) -> bool:
        """Whether the other prompts' pictures are looked at."""
        return self.recipe == "default" and "gallery" not in self.without
