"""A task on which DDPG may stop learning although the reward is found, after arXiv:1911.11679; DDPG, TD3 and SAC.

    python benchmark/notes/toy.py               # draws benchmark/figures/toy.png
    python benchmark/notes/toy.py run ddpg      # trains all seeds of a kind: 15 minutes of a core, SAC 30

The task: a point in [0, 1] begins at 0 and moves by at most 0.1 in each step; it gets 1, and the episode ends, where it
would leave to the left. So it should go left at once. An episode is cut after 50 steps.

There are no random actions before the first update. DDPG and TD3 explore by an action of the policy, and in a tenth of
the steps by one that is uniformly random, so that rewards are found whatever the policy does. SAC explores as it always
does, with its learned α, which begins at 0.2, or with one that is fixed. A run of DDPG and TD3 ends early when its
policy has gone left in four evaluations in a row, since it stays there; SAC's goes on, since its policy may turn back.
"""

import argparse
import csv
from collections import defaultdict

import gymnasium as gym
import numpy as np
import torch
from common import FIGURES, NOTES, train
from matplotlib import pyplot as plt

SHORT = {"total_timesteps": 2_000, "compile": True}
KINDS = {  # label, script, seeds, arguments
    "ddpg": ("ddpg.py", "ddpg", 100, {}),
    "td3": ("td3.py", "td3", 100, {}),
    "sac": ("sac_continuous.py, α learned", "sac_continuous", 100, SHORT),
    "sac-0.01": ("sac_continuous.py, α = 0.01", "sac_continuous", 30, SHORT | {"autotune": False, "alpha": 0.01}),
}
STEPS, INTERVAL = 5_000, 250
NAMES = "action", "slope", "dq_da", "num_rewards"


class Toy(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-0.1, 0.1, (1,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.position = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = 0.0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        moved = self.position + float(action[0])
        self.position = min(1.0, max(0.0, moved))
        return np.array([self.position], np.float32), float(moved < 0), moved < 0, False, {}


gym.register("Toy-v0", Toy, max_episode_steps=50, disable_env_checker=True)


def with_uniform_actions(agent_class):
    class Agent(agent_class):
        def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
            if explore and torch.rand(()) < 0.1:
                return (2 * torch.rand(1) - 1).numpy()
            return super().act(obs, explore=False)

    return Agent


def until_solved(run_class):
    class Run(run_class):
        num_left = 0  # evaluations in a row in which the policy went left

        def steps(self):
            for step in super().steps():
                yield step
                if step % INTERVAL == 0:
                    self.num_left = self.num_left + 1 if action_at_start(self) < 0 else 0
                if self.num_left == 4:
                    return

    return Run


def action_at_start(run) -> float:
    """What the deterministic policy does at 0, in units of the largest action."""
    return run.agent.act(np.zeros(1, np.float32), explore=False).item()


def slope_of_critic(run) -> float:
    """∂Q/∂a at 0 and the policy's action there: what the actor climbs."""
    critic = run.agent.critic if hasattr(run.agent, "critic") else run.agent.critics[0]
    action = torch.tensor([[action_at_start(run)]], requires_grad=True)
    (slope,) = torch.autograd.grad(critic(torch.zeros(1, 1), action).sum(), action)
    return slope.item()


MEASURES = {
    "action": action_at_start,
    "slope": lambda run: 1 - action_at_start(run) ** 2,  # of tanh: what of ∂Q/∂a gets through to the actor
    "dq_da": slope_of_critic,
    "num_rewards": lambda run: (run.buffer.rows[: run.buffer.num_added, 2] > 0).sum().item(),  # found so far
}


def run(kind: str) -> None:
    _, script, num_seeds, arguments = KINDS[kind]
    task = {"env_id": "Toy-v0", "total_timesteps": STEPS, "learning_starts": 1, "batch_size": 64}
    task |= {"eval_interval": INTERVAL, "eval_episodes": 1, **arguments}
    changes = {} if script == "sac_continuous" else {"Run": until_solved, "Agent": with_uniform_actions}
    path = NOTES / "data" / "toy" / f"{kind}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "step", "name", "value"])
        for seed in range(1, num_seeds + 1):
            rows = train(script, task, seed, [], changes, MEASURES)
            writer.writerows((seed, step, name, f"{value:.6g}") for step, name, value in rows)


def read(kind: str) -> dict[int, dict[str, np.ndarray]]:
    """By seed and name, the values at every evaluation until the run ended."""
    runs = defaultdict(lambda: defaultdict(list))
    with open(NOTES / "data" / "toy" / f"{kind}.csv", newline="") as file:
        for row in csv.DictReader(file):
            runs[int(row["seed"])][row["name"]].append(float(row["value"]))
    return {seed: {name: np.array(values) for name, values in run.items()} for seed, run in runs.items()}


def share_not_left(kind: str) -> np.ndarray:
    """Share of the seeds whose policy does not go left, at each evaluation; a run that ended early stays as it is."""
    actions = [run["action"] for run in read(kind).values()]
    length = max(map(len, actions))
    return np.mean([np.pad(action, (0, length - len(action)), mode="edge") >= 0 for action in actions], axis=0)


def draw() -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    steps = np.arange(1, STEPS // INTERVAL + 1) * INTERVAL
    for color, (kind, (label, script, *_)) in enumerate(KINDS.items()):
        runs, share = read(kind), share_not_left(kind)
        axes[0].plot(
            np.arange(1, len(share) + 1) * INTERVAL, share, color=f"C{color}", label=f"{label} ({len(runs)} seeds)"
        )
        failed = {seed: run for seed, run in runs.items() if run["action"][-1] >= 0}
        print(f"{label}: {len(failed)} of {len(runs)} do not go left in the end")
        for seed, run in failed.items() if script != "sac_continuous" else ():
            last = {name: run[name][-1] for name in NAMES}
            print(f"  seed {seed}: " + ", ".join(f"{name} {value:.3g}" for name, value in last.items()))
            if kind == "ddpg":
                axes[1].plot(steps, run["action"], color="C0", linewidth=1)
                axes[2].plot(steps, run["num_rewards"], color="C0", linewidth=1)
    axes[0].set(ylabel="share of seeds", title="policy does not go left", ylim=(-0.02, 1.02))
    axes[1].set(ylabel="action at 0", ylim=(-1.1, 1.1), title="DDPG's failed runs: the actor")
    axes[2].set(ylabel="rewards found", title="DDPG's failed runs: what they have seen")
    for axis in axes:
        axis.set(xlabel="environment steps")
    axes[0].legend(fontsize="small", loc="center right")
    figure.savefig(FIGURES / "toy.png", dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["draw", "run"], default="draw")
    parser.add_argument("kind", nargs="?", choices=KINDS, default="ddpg")
    options = parser.parse_args()
    run(options.kind) if options.what == "run" else draw()
