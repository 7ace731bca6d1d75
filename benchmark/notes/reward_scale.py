"""Rewards that are ten times as large from the middle of training on: what it does to the entropy, and to the return.

    python benchmark/notes/reward_scale.py          # draws benchmark/figures/reward_scale.png
    python benchmark/notes/reward_scale.py run 1    # trains with seed 1, in about 25 minutes of a core

Note 001 says that a target entropy acts on the behaviour and a coefficient on the objective. So the entropy should fall
with a coefficient that is fixed or falls along a line, and stay with one that is learned. "raw" is PPO without its
scaling of rewards and advantages. Returns are in units of the smaller rewards.
"""

import gymnasium as gym
from common import FIGURES, band, main, train, write
from matplotlib import pyplot as plt

STEPS = {"sac_continuous": 8_000, "ppo_continuous": 81_920}
TASKS = {
    "sac_continuous": {"learning_starts": 1_000, "log_interval": 250, "eval_interval": 500},
    "ppo_continuous": {"log_interval": 2_048, "eval_interval": 4_096, "learning_rate": 1e-3, "gamma": 0.9},
}
RAW = {"norm_adv": False, "norm_reward": False}
LINE = {"ent_coef_schedule": "linear", "ent_coef_end": 0.0, "ent_coef_duration": STEPS["ppo_continuous"]}
LEARNED = {"ent_autotune": True, "ent_coef_lr": 0.01, "target_entropy": 0.5}
KINDS = {  # script, kind: arguments
    ("sac_continuous", "fixed"): {"autotune": False},
    ("sac_continuous", "line"): {"autotune": False},
    ("sac_continuous", "learned"): {},
    ("ppo_continuous", "fixed"): {"ent_coef": 0.02},
    ("ppo_continuous", "line"): {"ent_coef": 0.02, **LINE},
    ("ppo_continuous", "learned"): {"ent_coef": 0.02, **LEARNED},
    ("ppo_continuous", "fixed, raw"): {"ent_coef": 2.0, **RAW},
    ("ppo_continuous", "learned, raw"): {"ent_coef": 2.0, **LEARNED, **RAW},
}
NAMES = ["losses/entropy", "eval/episodic_return"]


class Scaled(gym.RewardWrapper):
    scale = 1.0  # of all environments, those of evaluations too

    def reward(self, reward: float) -> float:
        return Scaled.scale * reward


def make(render_mode: str | None = None) -> gym.Env:
    return Scaled(gym.make("Pendulum-v1", render_mode=render_mode))


gym.register("ScaledPendulum-v0", make, disable_env_checker=True)


def with_scale(total_timesteps: int, scale: float, falling: bool):
    """Makes another class of the script's Run, which scales rewards from the middle on; falling: α goes to 0."""

    def change(run_class):
        class Run(run_class):
            def steps(self):
                for step in super().steps():
                    Scaled.scale = scale if step > total_timesteps / 2 else 1.0
                    if falling:
                        share = max(1 - step / total_timesteps, 1e-3)
                        self.agent.log_alpha.data.fill_(self.args.alpha * share).log_()
                    yield step

        return Run

    return change


def run(seed: int) -> None:
    for (script, kind), arguments in KINDS.items():
        for scale in (1, 10):
            steps = STEPS[script]
            task = {"env_id": "ScaledPendulum-v0", "total_timesteps": steps, **TASKS[script], **arguments}
            changes = {"Run": with_scale(steps, scale, falling=(script, kind) == ("sac_continuous", "line"))}
            rows = train(script, task, seed, NAMES, changes)
            rows = [
                (step, name, value / scale if name.startswith("eval") and step > steps / 2 else value)
                for step, name, value in rows
            ]
            write("reward_scale", f"{script}-{kind.replace(', ', '-')}-{scale}", seed, rows)


def draw() -> None:
    columns = [("sac_continuous", False), ("ppo_continuous", False), ("ppo_continuous", True)]
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.4), layout="constrained", sharex="col")
    for (script, raw), (entropy, returns) in zip(columns, axes.T, strict=True):
        kinds = [kind for name, kind in KINDS if name == script and kind.endswith("raw") == raw]
        for kind in kinds:
            color = {"fixed": "C0", "line": "C1", "learned": "C2"}[kind.split(",")[0]]
            for scale, style in ((1, ":"), (10, "-")):
                name = f"{script}-{kind.replace(', ', '-')}-{scale}"
                label = kind.split(",")[0] + (", rewards as they are" if scale == 1 else "")
                band(entropy, "reward_scale", name, "losses/entropy", color, label, style=style)
                band(returns, "reward_scale", name, "eval/episodic_return", color, label, style=style)
        entropy.set(title=f"{script}.py" + (", nothing scaled" if raw else ""), ylabel="entropy, nats")
        returns.set(xlabel="environment steps", ylabel="evaluation return")
        for axis in (entropy, returns):
            axis.axvline(STEPS[script] / 2, color="grey", linewidth=0.8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = "coefficient; rewards x 10 from the grey line on; 3 seeds: mean, range"
    figure.legend(handles, labels, title=title, loc="outside lower center", ncols=3)
    figure.savefig(FIGURES / "reward_scale.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
