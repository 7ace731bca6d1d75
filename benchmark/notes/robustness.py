"""Agents trained with and without entropy, played under disturbances that training did not have.

    python benchmark/notes/robustness.py          # draws benchmark/figures/robustness.png
    python benchmark/notes/robustness.py run 1    # trains with seed 1

Notes 000, 002 and 003 say that a policy of higher entropy withstands disturbances better. SAC with its learned α and
with none (1e-9), TD3, and PPO with a bonus of 0.05 and with none; each played by its deterministic policy and, but for
TD3, by sampled actions. Disturbances, each at two levels:

push      in one step of twenty, N(0, level²) is added to the velocities
mass      of the pendulum, or of the pole, times the level
action    N(0, level²) is added to each action, of which 1 is the largest
obs       N(0, level²) is added to each number that the agent sees
"""

import importlib

import gymnasium as gym
import numpy as np
from common import FIGURES, main, path_of, train, write
from matplotlib import pyplot as plt

SEEDS, NUM_EPISODES = (1, 2, 3, 4, 5), 5
KINDS = {  # label, script, arguments
    "sac": ("SAC, α learned", "sac_continuous", {}),
    "sac-0": ("SAC, α = 0", "sac_continuous", {"autotune": False, "alpha": 1e-9}),
    "td3": ("TD3", "td3", {}),
    "ppo": ("PPO, c = 0.05", "ppo_continuous", {"ent_coef": 0.05}),
    "ppo-0": ("PPO, c = 0", "ppo_continuous", {}),
}
OFF_POLICY, PPO = {"learning_starts": 1_000, "compile": True}, {"total_timesteps": 100_000}
TASKS = {  # arguments of SAC and TD3, and of PPO
    "Pendulum-v1": (OFF_POLICY | {"total_timesteps": 7_000}, PPO | {"learning_rate": 1e-3, "gamma": 0.9}),
    "InvertedPendulum-v5": (OFF_POLICY | {"total_timesteps": 20_000}, PPO),
}
LEVELS = {  # by task and disturbance
    "Pendulum-v1": {"none": [0], "push": [2, 4], "mass": [0.5, 1.5], "action": [0.5, 1], "obs": [0.1, 0.3]},
    "InvertedPendulum-v5": {"none": [0], "push": [0.5, 1], "mass": [0.5, 2], "action": [0.3, 0.6], "obs": [0.05, 0.1]},
}


def push(env: gym.Env, level: float, random: np.random.Generator) -> None:
    if env.spec.id == "Pendulum-v1":
        env.unwrapped.state[1] += level * random.normal()
    else:
        env.unwrapped.data.qvel[:] += level * random.normal(size=2)


def scale_mass(env: gym.Env, level: float) -> None:
    if env.spec.id == "Pendulum-v1":
        env.unwrapped.m *= level
    else:
        pole = env.unwrapped.model.body("pole").id
        env.unwrapped.model.body_mass[pole] *= level
        env.unwrapped.model.body_inertia[pole] *= level


def played(disturbance: str, level: float, sampled: bool):
    """Makes a measure: the mean return of the run's agent in episodes with this disturbance."""

    def measure(run) -> float:
        env = importlib.import_module(type(run).__module__).make_env(run.args.env_id)
        if disturbance == "mass":
            scale_mass(env, level)
        random, returns, is_ppo = np.random.default_rng(0), [], "num_envs" in vars(run.args)
        for episode in range(NUM_EPISODES):
            obs, done = env.reset(seed=episode)[0], False
            while not done:
                seen = obs + level * random.normal(size=obs.shape) if disturbance == "obs" else obs
                action = run.agent.act(seen[None], sampled)[0] if is_ppo else run.agent.act(seen, sampled)
                if disturbance == "action":
                    action = np.clip(action + level * random.normal(size=action.shape), -1, 1).astype(np.float32)
                if disturbance == "push" and random.random() < 0.05:
                    push(env, level, random)
                obs, _, terminated, truncated, info = env.step(action)
                done = terminated or truncated
            returns.append(float(info["episode"]["r"]))
        return float(np.mean(returns))

    return measure


def conditions(task: str) -> list[tuple[str, float]]:
    return [(disturbance, level) for disturbance, levels in LEVELS[task].items() for level in levels]


def run(seed: int) -> None:
    for task, (off_policy, ppo) in TASKS.items():
        for kind, (_, script, arguments) in KINDS.items():
            modes = ("deterministic",) if script == "td3" else ("deterministic", "sampled")
            measures = {
                f"{disturbance} {level} {mode}": played(disturbance, level, mode == "sampled")
                for disturbance, level in conditions(task)
                for mode in modes
            }
            arguments = (ppo if script == "ppo_continuous" else off_policy) | arguments
            arguments |= {"env_id": task, "eval_interval": arguments["total_timesteps"]}
            write("robustness", f"{task}-{kind}", seed, train(script, arguments, seed, [], None, measures))


def read(task: str, kind: str) -> dict[str, np.ndarray]:
    """By condition and mode, the returns of the seeds."""
    values: dict[str, list[float]] = {}
    for seed in SEEDS:
        for line in path_of("robustness", f"{task}-{kind}", seed).read_text().splitlines()[1:]:
            _, name, value = line.split(",")
            values.setdefault(name, []).append(float(value))
    return {name: np.array(returns) for name, returns in values.items()}


def interval(values: np.ndarray, num_draws: int = 5_000) -> tuple[float, float]:
    """95 % of the means of as many seeds, drawn with replacement."""
    means = np.random.default_rng(0).choice(values, (num_draws, len(values))).mean(1)
    return tuple(np.quantile(means, [0.025, 0.975]))


def draw() -> None:
    figure, axes = plt.subplots(2, 1, figsize=(12, 7), layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        for k, (kind, (label, *_)) in enumerate(KINDS.items()):
            values = read(task, kind)
            for mode, marker in (("deterministic", "o"), ("sampled", "x")):
                if f"none 0 {mode}" not in values:
                    continue
                returns = [values[f"{disturbance} {level} {mode}"] for disturbance, level in conditions(task)]
                x = np.arange(len(returns)) + (k - 2) * 0.15 + (0.05 if mode == "sampled" else 0)
                means = np.array([seeds.mean() for seeds in returns])
                bounds = np.array([interval(seeds) for seeds in returns]).T
                errors = np.maximum(0, [means - bounds[0], bounds[1] - means])
                axis.errorbar(x, means, errors, fmt=marker, color=f"C{k}", label=f"{label}, {mode}", markersize=4)
                print(f"{task:20} {label:15} {mode:14}", " ".join(f"{mean:8.0f}" for mean in means))
        names = [f"{disturbance} {level}" if level else disturbance for disturbance, level in conditions(task)]
        axis.set(title=task, ylabel="return", xticks=range(len(names)), xticklabels=names)
    axes[0].legend(
        title="5 seeds: mean, 95 % interval", fontsize="small", ncols=1, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    figure.savefig(FIGURES / "robustness.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
