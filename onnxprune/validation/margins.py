"""How many decisions change, told from margins: of a hundred samples more than by counting the few that did.

The margin of a sample is the score of the right class less the best of the others; the decision is right where it is
above 0. Of n samples maybe one changes sides, but all of them tell how margins move:

    m'_i = a + b m_i + e_i          after against before, a and b by least squares

Every sample might as well have met the error of another one, so the share that is right afterwards is

    mean over i and j of [a + b m_i + e_j > 0]

which is a U-statistic; its standard error is that of the mean of its projections on single samples (Hoeffding 1948, "A
class of statistics with asymptotically normal distribution", section 5).
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["lost", "margins"]

_TINY = 1e-12


def margins(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The margin of each sample, in logits or log-probabilities: (samples,).

    Args:
        scores: (samples, classes), logits or probabilities.
        right: The right classes, (samples,).
    """
    wide = scores.astype(np.float64)
    if (wide >= 0).all() and np.allclose(wide.sum(1), 1, atol=1e-2):
        wide = np.log(np.maximum(wide, _TINY))
    rows = np.arange(len(wide))
    own = wide[rows, right]
    wide[rows, right] = -np.inf
    return np.asarray(own - wide.max(1))


def lost(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """The share of decisions that are right before and not after, less the contrary, and its standard error.

    Args:
        before: Margins of the original, (samples,).
        after: Those of the other model, of the same samples; all finite.
    """
    design = np.stack([np.ones_like(before), before], axis=1)
    fitted = design @ np.linalg.lstsq(design, after, rcond=None)[0]
    errors = after - fitted
    n = len(before)
    stays = 1.0 - np.searchsorted(np.sort(errors), -fitted, side="right") / n
    keeps = 1.0 - np.searchsorted(np.sort(fitted), -errors, side="right") / n
    right = (before > 0).astype(np.float64)
    projections = right - stays - (keeps - keeps.mean())
    return float(right.mean() - stays.mean()), float(projections.std() / math.sqrt(n))
