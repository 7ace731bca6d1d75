"""SBX's SAC on an environment where ours is behind a published figure, with the sizes and step sizes of ours.

    python benchmark/peer.py Hopper-v5 1          # seed 1; about half an hour

It tells whether the environment, the arguments or our script is the cause: the peer shares the first two, but for α,
which starts at 1 in it, not 0.2, and moves by 1e-3, not 3e-4. Episodes and evaluations go to
benchmark/results/peer/sbx_sac/<environment>/<seed>.csv, in the form of run.py's results.
"""

import argparse
import time
from importlib.metadata import version

import gymnasium as gym
import numpy as np
from grid import BENCHMARK, write_result
from run import machine
from sbx import SAC
from stable_baselines3.common.callbacks import BaseCallback

ARGUMENTS = {"learning_rate": 1e-3, "qf_learning_rate": 1e-3, "learning_starts": 5_000, "batch_size": 256}


class Record(BaseCallback):
    """(step, "train", return) of every episode and (step, "eval", mean of ten without noise) in every 10,000th step."""

    def __init__(self, env_id: str):
        super().__init__()
        self.rows, self.env = [], gym.make(env_id)

    def play(self, seed: int) -> float:
        (obs, _), total, done = self.env.reset(seed=seed), 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = self.env.step(self.model.predict(obs, deterministic=True)[0])
            total, done = total + reward, terminated or truncated
        return total

    def _on_step(self) -> bool:
        ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        self.rows += [(self.num_timesteps, "train", value) for value in ended]
        if self.num_timesteps % 10_000 == 0:
            value = np.mean([self.play(seed=10_000 + episode) for episode in range(10)])
            self.rows.append((self.num_timesteps, "eval", value))
            print(f"step {self.num_timesteps:,}: evaluation {value:.2f}", flush=True)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id")
    parser.add_argument("seed", type=int)
    parser.add_argument("--total-timesteps", type=int, default=300_000)
    options = parser.parse_args()
    begun, record = time.time(), Record(options.env_id)
    sizes = {"buffer_size": 1_000_000, "policy_kwargs": {"net_arch": [256, 256]}}
    model = SAC("MlpPolicy", gym.make(options.env_id), seed=options.seed, **ARGUMENTS, **sizes)
    model.learn(options.total_timesteps, callback=record)
    about = {"arguments": {**vars(options), **ARGUMENTS}}
    names = "sbx-rl", "stable-baselines3", "jax", "gymnasium", "mujoco"
    about["versions"] = ", ".join(f"{name} {version(name)}" for name in names)
    about |= {"machine": machine(), "wall time": f"{time.time() - begun:.0f} s"}
    folder = BENCHMARK / "results" / "peer" / "sbx_sac" / options.env_id.replace("/", "-")
    write_result(folder / f"{options.seed}.csv", about, record.rows)


if __name__ == "__main__":
    main()
