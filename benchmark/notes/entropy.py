"""The entropy of PPO's policies, with the bonus subtracted from the loss and added to it, and by coefficient.

    python benchmark/notes/entropy.py          # draws benchmark/figures/entropy.png
    python benchmark/notes/entropy.py run 1    # trains all of them with seed 1, in about three minutes

"added" is note 002's formula: the same script, but for the sign of the bonus in `total_loss`.
"""

from common import FIGURES, band, main, read, train, write
from matplotlib import pyplot as plt

STEPS, COEFFICIENT = 100_000, 0.05
TASKS = {"ppo_discrete": ("CartPole-v1", 0.9), "ppo_continuous": ("InvertedPendulum-v5", 1.0)}  # with target entropies
KINDS = "none", "subtracted", "added", "linear", "exponential", "learned"
NAMES = {"losses/entropy": "entropy, nats", "losses/ent_coef": "c"}


def add(total_loss):
    return lambda policy_loss, value_loss, entropy, *rest: total_loss(policy_loss, value_loss, -entropy, *rest)


def arguments(kind: str, target_entropy: float) -> dict:
    if kind in ("linear", "exponential"):
        moves = {"ent_coef_schedule": kind, "ent_coef_end": COEFFICIENT / 100, "ent_coef_duration": STEPS}
        return {"ent_coef": COEFFICIENT, **moves}
    if kind == "learned":
        return {"ent_coef": COEFFICIENT, "ent_autotune": True, "target_entropy": target_entropy}
    return {"ent_coef": 0.0 if kind == "none" else COEFFICIENT}


def run(seed: int) -> None:
    for script, (env_id, target_entropy) in TASKS.items():
        for kind in KINDS:
            task = {"env_id": env_id, "total_timesteps": STEPS, "eval_interval": 0, **arguments(kind, target_entropy)}
            rows = train(script, task, seed, [*NAMES], {"total_loss": add} if kind == "added" else {})
            write("entropy", f"{script}__{kind}", seed, rows)


def draw() -> None:
    """Entropy above and coefficient below, a column for each script."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 6), sharex=True, layout="constrained")
    for (script, (env_id, _)), column in zip(TASKS.items(), axes.T, strict=True):
        for color, kind in enumerate(KINDS):
            for axis, (name, label) in zip(column, NAMES.items(), strict=True):
                band(axis, "entropy", f"{script}__{kind}", name, f"C{color}", kind)
                axis.set(ylabel=label)
            ends = read("entropy", f"{script}__{kind}", "losses/entropy")[1][:, -1]
            print(f"{script}, {kind}: entropy at the end {', '.join(f'{value:.3f}' for value in ends)}")
        column[0].set(title=f"{script}.py, {env_id}")
        column[1].set(xlabel="environment steps", yscale="log")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", title="3 seeds:\nmean, range")
    figure.savefig(FIGURES / "entropy.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
