"""Three heads of which one should be certain and two should not: one entropy weight for all, or a target for each.

    python benchmark/notes/heads.py          # draws benchmark/figures/heads.png
    python benchmark/notes/heads.py run 1    # trains with seed 1, in about a minute

The task: in each of 25 steps steer to the side that is shown, of three (+1), fire or not, and choose one of four. An
opponent remembers what was done lately and guesses the last two: -1 for each that it guesses. The best there is: always
the right side, and the others at random, 25 · (1 - 1/2 - 1/4) = 6.25.
"""

import gymnasium as gym
import numpy as np
from common import FIGURES, band, main, train, write
from matplotlib import pyplot as plt

SIZES = [3, 2, 4]
HEADS = ["steer", "fire", "choose"]


class Duel(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (3,), np.float32)
    action_space = gym.spaces.MultiDiscrete(SIZES)

    def __init__(self, render_mode: str | None = None):
        self.counts = [np.zeros(n) for n in SIZES[1:]]  # what the opponent remembers, over episodes too

    def obs(self) -> np.ndarray:
        self.side = self.np_random.integers(3)
        return np.eye(3, dtype=np.float32)[self.side]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.obs(), {}

    def step(self, action):
        self.time += 1
        reward = float(action[0] == self.side)
        for counts, choice in zip(self.counts, action[1:], strict=True):
            reward -= float(counts.argmax() == choice)
            counts *= 0.9
            counts[choice] += 1
        return self.obs(), reward, False, self.time == 25, {}


gym.register("Duel-v0", Duel, disable_env_checker=True)
LEARNED = {"ent_autotune": True, "ent_coef": 0.01, "ent_coef_lr": 0.003}
KINDS = {  # label, arguments
    "fixed": ("c = 0.01 for all", {}),
    "one": ("learned c, target 0.5 for all", {**LEARNED, "target_entropy": 0.5}),
    "own": ("learned c, targets 0.1, 0.95, 0.95", {**LEARNED, "target_entropy": (0.1, 0.95, 0.95)}),
}
NAMES = ["charts/episodic_return", *(f"losses/entropy_{k}" for k in range(3))]


def run(seed: int) -> None:
    for kind, (_, arguments) in KINDS.items():
        task = {"env_id": "Duel-v0", "total_timesteps": 100_000, "eval_interval": 0, "learning_rate": 1e-3}
        rows = train("ppo_discrete", {**task, "log_interval": 2_048, **arguments}, seed, NAMES)
        write("heads", kind, seed, thin(rows))


def thin(rows: list) -> list:
    """Means of the returns over 2,048 steps each, and the entropies as shares of the largest."""
    of_bin, thinned = {}, []
    for step, name, value in rows:
        if name == "charts/episodic_return":
            of_bin.setdefault(2_048 * (step // 2_048 + 1), []).append(value)
        else:
            k = int(name[-1])
            thinned.append((step, f"share_{k}", value / np.log(SIZES[k])))
    return [*((step, "return", float(np.mean(values))) for step, values in of_bin.items()), *thinned]


def draw() -> None:
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
    for color, (kind, (label, _)) in enumerate(KINDS.items()):
        for k in range(3):
            band(axes[k], "heads", kind, f"share_{k}", f"C{color}", label)
        band(axes[3], "heads", kind, "return", f"C{color}", label)
    for k, head in enumerate(HEADS):
        axes[k].set(title=f"{head}, of {SIZES[k]}", ylim=(-0.05, 1.05))
    axes[0].set(ylabel="entropy / largest")
    axes[3].axhline(6.25, color="gray", linestyle=":")
    axes[3].set(title="return while training")
    for axis in axes:
        axis.set(xlabel="environment steps", xticks=[0, 50_000, 100_000])
    axes[3].legend(title="3 seeds: mean, range", fontsize="small")
    figure.savefig(FIGURES / "heads.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
