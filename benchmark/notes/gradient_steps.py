"""SAC with one, two and four updates in each environment step: return by steps, and by the time that they take.

    python benchmark/notes/gradient_steps.py          # draws benchmark/figures/gradient_steps.png
    python benchmark/notes/gradient_steps.py run 1    # trains with seed 1: some minutes for each

Time is that of the processor, without evaluations, so that other work on the machine does not count.
"""

import time

import numpy as np
from common import FIGURES, SEEDS, band, main, read, train, write
from matplotlib import pyplot as plt

KINDS = {1: "C0", 2: "C1", 4: "C2"}  # updates in a step
TASK = {"env_id": "Pendulum-v1", "total_timesteps": 8_000, "learning_starts": 1_000, "eval_interval": 250}


class Clock:
    """Seconds of this process between evaluations."""

    def __init__(self):
        self.total, self.since = 0.0, time.process_time()

    def pausing(self, run_class):
        clock = self

        class Run(run_class):
            def evaluate_if_due(self):
                clock.total += time.process_time() - clock.since
                super().evaluate_if_due()
                clock.since = time.process_time()

        return Run


def run(seed: int) -> None:
    for number in KINDS:
        clock = Clock()
        changes, measures = {"Run": clock.pausing}, {"seconds": lambda _, clock=clock: clock.total}
        rows = train(
            "sac_continuous", {**TASK, "gradient_steps": number}, seed, ["eval/episodic_return"], changes, measures
        )
        write("gradient_steps", str(number), seed, rows)


def draw() -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
    for number, color in KINDS.items():
        label = f"{number} update{'s' * (number > 1)} in a step"
        band(axes[0], "gradient_steps", str(number), "eval/episodic_return", color, label)
        _, returns = read("gradient_steps", str(number), "eval/episodic_return", SEEDS)
        _, seconds = read("gradient_steps", str(number), "seconds", SEEDS)
        axes[1].plot(np.mean(seconds, 0), returns.mean(0), color=color, label=label)
        axes[1].fill_between(np.mean(seconds, 0), returns.min(0), returns.max(0), color=color, alpha=0.15, linewidth=0)
    axes[0].set(title="sac_continuous.py, Pendulum-v1", xlabel="environment steps", ylabel="evaluation return")
    axes[1].set(xlabel="seconds of one core", xlim=(0, 200))
    axes[0].legend(title="3 seeds: mean, range", fontsize="small")
    figure.savefig(FIGURES / "gradient_steps.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
