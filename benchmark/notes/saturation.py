"""DDPG and TD3 that stop learning: the actor saturates, and the gradient of its tanh vanishes.

    python benchmark/notes/saturation.py               # draws benchmark/figures/saturation.png
    python benchmark/notes/saturation.py run 1         # trains all runs with seed 1: hours
    python benchmark/notes/saturation.py run 1 td3     # only runs whose name has this in it

small: the last layer of the actor begins with weights and biases from U(-3e-3, 3e-3), as the paper of DDPG has it
(arXiv:1509.02971, Section 7), in place of PyTorch's U(-1/16, 1/16). slow: step sizes of 3e-4 in place of 1e-3.
saturated: the share of components of the actor's actions, over 1,000 observations from the replay buffer, that are
within 0.01 of a bound.
"""

import argparse

import torch
from common import FIGURES, read, train, write
from matplotlib import pyplot as plt

PENDULUM, RUNNERS = "InvertedDoublePendulum-v5", ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"]
CHANGES = {"": "as it is", "-small": "last layer of U(-3e-3, 3e-3)", "-slow": "step sizes of 3e-4"}
KINDS = {  # name: script, task, change
    f"{script}-{task}{change}": (script, task, change)
    for script in ("td3", "ddpg")  # the runners are there to be run; only the pendulum is drawn
    for task in (PENDULUM, *RUNNERS)
    for change in CHANGES
}
SEEDS = {PENDULUM: (*range(1, 11),), **dict.fromkeys(RUNNERS, (1, 2, 3))}
NAMES = {"eval/episodic_return": "evaluation return", "saturated": "share of saturated actions"}


def small_last_layer(actor_class):
    class Actor(actor_class):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            for parameter in self.net[-1].parameters():
                torch.nn.init.uniform_(parameter, -3e-3, 3e-3)

    return Actor


def share_of_saturated(run) -> float:
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # training goes on with its own random numbers
        return (run.agent(run.buffer.sample(1_000).obs).abs() > 0.99).float().mean().item()


def run(seed: int, part: str = "") -> None:
    for kind, (script, task, change) in KINDS.items():
        if part in kind and seed in SEEDS[task]:
            steps = 50_000 if task == PENDULUM else 100_000
            arguments = {"env_id": task, "total_timesteps": steps, "eval_interval": 2_500, "compile": True}
            if change == "-slow":
                arguments |= {"actor_lr": 3e-4, "critic_lr": 3e-4}
            changes = {"Actor": small_last_layer} if change == "-small" else {}
            rows = train(script, arguments, seed, [*NAMES], changes, {"saturated": share_of_saturated})
            write("saturation", kind, seed, rows)


def draw() -> None:
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), sharex=True, layout="constrained")
    for row, script in zip(axes, ("ddpg", "td3"), strict=True):
        for axis, (name, label) in zip(row, NAMES.items(), strict=True):
            for color, (change, text) in enumerate(CHANGES.items()):
                kind = f"{script}-{PENDULUM}{change}"
                steps, values = read("saturation", kind, name, SEEDS[PENDULUM])
                lines = axis.plot(steps, values.T, color=f"C{color}", alpha=0.6, linewidth=1)
                lines[0].set_label(text)
            axis.set(title=f"{script}.py, {PENDULUM}", ylabel=label)
    axes[0, 0].legend(title="ten seeds each", fontsize="small")
    for axis in axes[-1]:
        axis.set(xlabel="environment steps", xlim=(25_000, 50_000))  # updates begin after 25,000 random steps
    figure.savefig(FIGURES / "saturation.png", dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["draw", "run"], default="draw")
    parser.add_argument("seed", nargs="?", type=int, default=1)
    parser.add_argument("part", nargs="?", default="", help="of the names of the runs")
    options = parser.parse_args()
    run(options.seed, options.part) if options.what == "run" else draw()
