"""The divergences of note 004: of pairs of Gaussians, by the number of samples, by the standard deviation, and in both
directions on a density with two humps.

    python benchmark/notes/kl.py          # draws benchmark/figures/kl.png
    python benchmark/notes/kl.py run 1    # draws seed 1's samples and works all out anew, in seconds

Exact values are closed forms or sums over a fine grid. "Terms added up" is an estimate not divided by the number
of its terms: the likely cause of what the note reports.
"""

import math

import numpy as np
from common import FIGURES, SEEDS, main, read, write
from matplotlib import pyplot as plt

GRID = np.linspace(-30, 30, 60_001)
NUMBERS = 500, 1000, 2000, 3000, 4000, 5000  # of samples, as in the note


def log_normal(x: np.ndarray, mean: float, std: float) -> np.ndarray:
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)


def divergence(log_p: np.ndarray, log_q: np.ndarray) -> float:
    """KL(p || q) by a sum over the grid."""
    return float(np.sum(np.exp(log_p) * (log_p - log_q)) * (GRID[1] - GRID[0]))


def run(seed: int) -> None:
    rng, rows = np.random.default_rng(seed), []
    for number in NUMBERS:  # p = N(0, 2), q = N(8, 2), 2 the standard deviation
        x = rng.normal(0, 2, number)
        terms = log_normal(x, 0, 2) - log_normal(x, 8, 2)
        rows += [(number, "mean", terms.mean()), (number, "sum", terms.sum())]
    for std in np.arange(1, 20.5, 0.5):  # p = N(0, 2), q = N(3, std)
        x = rng.normal(0, 2, 5000)
        rows.append((std, "exact by std", divergence(log_normal(GRID, 0, 2), log_normal(GRID, 3, std))))
        rows.append((std, "estimate by std", (log_normal(x, 0, 2) - log_normal(x, 3, std)).mean()))
    p = np.logaddexp(log_normal(GRID, -3, 1) + math.log(0.6), log_normal(GRID, 3, 0.8) + math.log(0.4))
    fits = [(mean, std) for mean in np.arange(-5, 5.05, 0.1) for std in np.arange(0.4, 5.05, 0.1)]
    forward = min(fits, key=lambda fit: divergence(p, log_normal(GRID, *fit)))
    reverse = min(fits, key=lambda fit: divergence(log_normal(GRID, *fit), p))
    for x in np.arange(-8, 8.05, 0.1):
        at = np.searchsorted(GRID, x)
        rows.append((x, "two humps", math.exp(p[at])))
        rows += [(x, name, math.exp(log_normal(x, *fit))) for name, fit in (("forward", forward), ("reverse", reverse))]
    write("kl", "all", seed, rows)


def draw() -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for color, (name, label) in enumerate((("sum", "terms added up"), ("mean", "their mean"))):
        numbers, values = read("kl", "all", name)
        axes[0].plot(numbers, values.mean(0), f"C{color}o-", label=label)
    axes[0].axhline(8, color="black", linestyle=":", label="KL = 8")
    axes[0].set(title="KL(N(0, 2) ‖ N(8, 2)), estimated", xlabel="number of samples", yscale="log")
    stds, exact = read("kl", "all", "exact by std", seeds=SEEDS[:1])
    axes[1].plot(stds, exact[0], "k", label="exact")
    stds, estimates = read("kl", "all", "estimate by std")
    axes[1].fill_between(stds, estimates.min(0), estimates.max(0), color="C1", alpha=0.5, label="mean of 5,000 terms")
    axes[1].set(title="KL(N(0, 2) ‖ N(3, std))", xlabel="std")
    for name, style, label in (
        ("two humps", "k", "p"),
        ("forward", "C0--", "least KL(p ‖ q): covers both"),
        ("reverse", "C3", "least KL(q ‖ p): takes one"),
    ):
        x, density = read("kl", "all", name, seeds=SEEDS[:1])
        axes[2].plot(x, density[0], style, label=label)
    axes[2].set(title="The nearest Gaussian q to a density p", ylim=(0, 0.55))
    for axis in axes:
        axis.legend(fontsize="small")
    figure.savefig(FIGURES / "kl.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
