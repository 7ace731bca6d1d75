"""A target entropy that changes between two stages, and one that goes to the same value along a line; SAC and PPO.

    python benchmark/notes/stages.py          # draws benchmark/figures/stages.png
    python benchmark/notes/stages.py run 1    # trains with seed 1, in about ten minutes

The jump is Agent.set_target_entropy, called in the middle of training, as a change of the task's stage would call it.
"""

from common import FIGURES, band, main, train, write
from matplotlib import pyplot as plt

# by script: arguments of both kinds, those of the line, and the first and the last target in nats
TASKS = {
    "sac_continuous": {
        "env_id": "Pendulum-v1",
        "total_timesteps": 15_000,
        "learning_starts": 1_000,
        "log_interval": 250,
    },
    "ppo_continuous": {"env_id": "Pendulum-v1", "total_timesteps": 100_000, "log_interval": 2_048},
}
TASKS["sac_continuous"] |= {"eval_interval": 1_000}
TASKS["ppo_continuous"] |= {"eval_interval": 4_096, "ent_autotune": True, "ent_coef": 0.01, "ent_coef_lr": 0.01}
TASKS["ppo_continuous"] |= {"learning_rate": 1e-3, "gamma": 0.9}
FIRST, LAST = 0.5, -1.0
NAMES = ["losses/entropy", "losses/target_entropy", "eval/episodic_return"]


def with_jump(total_timesteps: int):
    """Makes another class of the script's Run, which changes the target halfway."""

    def change(run_class):
        class Run(run_class):
            def steps(self):
                for step in super().steps():
                    if step > total_timesteps / 2 and not getattr(self, "has_jumped", False):
                        self.has_jumped = True
                        self.agent.set_target_entropy(LAST)
                    yield step

        return Run

    return change


def run(seed: int) -> None:
    for script, task in TASKS.items():
        task = {**task, "target_entropy": FIRST}
        steps = task["total_timesteps"]
        write("stages", f"{script}-jump", seed, train(script, task, seed, NAMES, {"Run": with_jump(steps)}))
        task |= {"target_entropy_end": LAST, "target_entropy_duration": steps - task.get("learning_starts", 0)}
        write("stages", f"{script}-line", seed, train(script, task, seed, NAMES))


def draw() -> None:
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), layout="constrained", sharex="col")
    for column, script in enumerate(TASKS):
        for color, kind in (("C0", "jump"), ("C1", "line")):
            name = f"{script}-{kind}"
            band(axes[0, column], "stages", name, "losses/entropy", color, f"entropy, {kind}")
            band(axes[0, column], "stages", name, "losses/target_entropy", color, f"target, {kind}", style=":")
            band(axes[1, column], "stages", name, "eval/episodic_return", color, kind)
        axes[0, column].set(title=f"{script}.py, Pendulum-v1", ylabel="nats")
        axes[1, column].set(xlabel="environment steps", ylabel="evaluation return")
    axes[0, 0].legend(title="3 seeds: mean, range", fontsize="small")
    figure.savefig(FIGURES / "stages.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
