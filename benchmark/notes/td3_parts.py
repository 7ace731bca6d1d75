"""TD3 with each of its three parts taken away.

    python benchmark/notes/td3_parts.py          # draws benchmark/figures/td3_parts.png
    python benchmark/notes/td3_parts.py run 1    # trains with seed 1, in about a quarter of an hour

Without twins: the target is that of one critic. Without delay: the actor and the targets follow in every step. Without
smoothing: no noise in the target's action.
"""

from common import FIGURES, band, main, train, write
from matplotlib import pyplot as plt

KINDS = {  # label, arguments
    "all": ("TD3", {}),
    "twins": ("without twins", {}),
    "delay": ("without delay", {"policy_delay": 1}),
    "smoothing": ("without smoothing", {"target_noise": 0.0}),
}
NAMES = {"eval/episodic_return": "evaluation return", "losses/q": "mean Q₁ of a batch"}


def one_critic(td_target):
    return lambda reward, terminated, q1, q2, gamma: td_target(reward, terminated, q1, q1, gamma)


def run(seed: int) -> None:
    for kind, (_, arguments) in KINDS.items():
        task = {"env_id": "Hopper-v5", "total_timesteps": 50_000, "learning_starts": 5_000, "eval_interval": 2_500}
        changes = {"td_target": one_critic} if kind == "twins" else {}
        write("td3_parts", kind, seed, train("td3", {**task, **arguments}, seed, [*NAMES], changes))


def draw() -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for color, (kind, (label, _)) in enumerate(KINDS.items()):
        for axis, name in zip(axes, NAMES, strict=True):
            band(axis, "td3_parts", kind, name, f"C{color}", label)
    for axis, label in zip(axes, NAMES.values(), strict=True):
        axis.set(xlabel="environment steps", ylabel=label)
    axes[0].set(title="td3.py, Hopper-v5")
    axes[0].legend(title="3 seeds: mean, range", fontsize="small")
    figure.savefig(FIGURES / "td3_parts.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
