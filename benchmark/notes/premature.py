"""A small reward at once and a large one behind a lock: what PPO settles for without an entropy bonus and with it.

    python benchmark/notes/premature.py          # draws benchmark/figures/premature.png
    python benchmark/notes/premature.py run 1    # trains with seed 1, in a minute

Three actions. The first one, as the first step, pays 0.2 and ends the episode. The others begin to try the lock: LENGTH
right actions one after the other pay 1, a wrong one ends the episode with nothing.
"""

import gymnasium as gym
import numpy as np
from common import FIGURES, band, main, train, write
from matplotlib import pyplot as plt

LENGTH = 4
SEEDS = 1, 2, 3, 4, 5
COEFFICIENTS = 0.0, 0.1, 0.3, 0.5


class Lock(gym.Env):
    def __init__(self, render_mode: str | None = None):
        self.observation_space = gym.spaces.Box(0.0, 1.0, (LENGTH,), np.float32)
        self.action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.position = 0
        return self.observation(), {}

    def observation(self) -> np.ndarray:
        return np.eye(LENGTH, dtype=np.float32)[min(self.position, LENGTH - 1)]

    def step(self, action: int) -> tuple:
        if self.position == 0 and action == 0:
            return self.observation(), 0.2, True, False, {}
        if action != 1 + self.position % 2:
            return self.observation(), 0.0, True, False, {}
        self.position += 1
        opened = self.position == LENGTH
        return self.observation(), float(opened), opened, False, {}


gym.register("Lock-v0", Lock, max_episode_steps=50)


def run(seed: int) -> None:
    for coefficient in COEFFICIENTS:
        arguments = {"env_id": "Lock-v0", "total_timesteps": 100_000, "ent_coef": coefficient, "eval_interval": 1_000}
        arguments |= {"eval_episodes": 1, "log_interval": 512}
        rows = train("ppo_discrete", arguments, seed, ["eval/episodic_return", "losses/entropy"])
        write("premature", str(coefficient), seed, rows)


def draw() -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for color, coefficient in enumerate(COEFFICIENTS):
        for axis, name in zip(axes, ("eval/episodic_return", "losses/entropy"), strict=True):
            band(axis, "premature", str(coefficient), name, f"C{color}", f"c = {coefficient}", SEEDS)
    axes[0].set(title="ppo_discrete.py, a lock", xlabel="environment steps", ylabel="evaluation return")
    axes[1].set(xlabel="environment steps", ylabel="entropy, nats")
    axes[0].legend(title="5 seeds: mean, range")
    figure.savefig(FIGURES / "premature.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
