"""How much work a recipe is, known before any of it is done."""

from __future__ import annotations

from dataclasses import dataclass

from requant.quantizers import make_quantizer
from requant.recipe import Recipe
from requant.sensitivity.quadrature import quadrature_nodes


@dataclass(frozen=True)
class Plan:
    """Passes over the calibration windows, forward and backward or forward only, and over the weights."""

    gradient_passes: int
    loss_passes: int
    quantize_passes: int
    integrals: int

    @classmethod
    def of(cls, recipe: Recipe) -> Plan:
        """The work of `requant.pipeline.quantize`."""
        fisher = int(make_quantizer(recipe).needs_fisher)
        searched = bool(recipe.outlier_percent) and recipe.outlier_rule == "power_law"
        measured = searched and any(recipe.outlier_exponents)
        trials = len(recipe.outlier_exponents) if searched else 1
        integrals = int(measured) + (recipe.significant_steps if recipe.significant_percent else 0)
        return cls(
            gradient_passes=fisher + integrals * cls.nodes(recipe),
            loss_passes=(trials if trials > 1 else 0) + (integrals + 1 if integrals else 0),
            quantize_passes=int(measured) + trials,
            integrals=integrals,
        )

    @staticmethod
    def nodes(recipe: Recipe) -> int:
        """Gradient passes of one integral."""
        return len(quadrature_nodes(recipe.quadrature, recipe.intervals))

    @property
    def needs_windows(self) -> bool:
        """Whether there is anything to calibrate."""
        return self.gradient_passes + self.loss_passes > 0
