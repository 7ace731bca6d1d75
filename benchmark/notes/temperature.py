"""SAC's temperature: fixed, learned, learned towards a target that moves, and learned by note 001's loss.

    python benchmark/notes/temperature.py          # draws benchmark/figures/temperature.png
    python benchmark/notes/temperature.py run 1    # trains with seed 1, in about eight minutes

The note's loss has the entropy where log π belongs: it descends -log α (H + H̄).
"""

from common import FIGURES, band, main, train, write
from matplotlib import pyplot as plt

MOVING = {"target_entropy": 0.5, "target_entropy_end": -1.0, "target_entropy_duration": 10_000}
KINDS = {  # label, arguments
    "fixed": ("α = 0.2", {"autotune": False, "alpha": 0.2}),
    "learned": ("learned, H̄ = -1", {}),
    "moving": ("learned, H̄ from 0.5 to -1", MOVING),
    "note": ("learned by note 001's loss", {}),
}
NAMES = {"eval/episodic_return": "evaluation return", "losses/entropy": "entropy, nats", "losses/alpha": "α"}


def note_001(_):
    def alpha_loss(log_alpha, log_prob, target_entropy):
        return -(log_alpha * (-log_prob + target_entropy).detach()).mean()

    return alpha_loss


def run(seed: int) -> None:
    for kind, (_, arguments) in KINDS.items():
        task = {"env_id": "Pendulum-v1", "total_timesteps": 15_000, "learning_starts": 1_000, "eval_interval": 1_000}
        changes = {"alpha_loss": note_001} if kind == "note" else {}
        write("temperature", kind, seed, train("sac_continuous", {**task, **arguments}, seed, [*NAMES], changes))


def draw() -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for color, (kind, (label, _)) in enumerate(KINDS.items()):
        for axis, name in zip(axes, NAMES, strict=True):
            band(axis, "temperature", kind, name, f"C{color}", label)
    for axis, label in zip(axes, NAMES.values(), strict=True):
        axis.set(xlabel="environment steps", ylabel=label, xticks=range(0, 15_001, 5_000))
    axes[0].set(title="sac_continuous.py, Pendulum-v1")
    axes[2].set(yscale="log")
    axes[0].legend(title="3 seeds: mean, range", fontsize="small")
    figure.savefig(FIGURES / "temperature.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
