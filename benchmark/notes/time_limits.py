"""PPO where every episode ends at a time limit, with the limit taken for what it is and for an end of the task.

    python benchmark/notes/time_limits.py          # draws benchmark/figures/time_limits.png
    python benchmark/notes/time_limits.py run 1    # trains with seed 1, in half a minute

Pendulum has no other end. The wrong form is the script with one word changed: `done` in the place of `terminated`.
"""

from common import FIGURES, band, main, train, write
from matplotlib import pyplot as plt

KINDS = {"right": "V of the state at the limit counts", "wrong": "the limit taken for an end"}


def limits_are_ends(gae):
    return lambda reward, value, next_value, terminated, done, *rest: gae(reward, value, next_value, done, done, *rest)


def run(seed: int) -> None:
    arguments = {"env_id": "Pendulum-v1", "total_timesteps": 100_000}
    for kind in KINDS:
        changes = {"gae": limits_are_ends} if kind == "wrong" else {}
        write("time_limits", kind, seed, train("ppo_continuous", arguments, seed, ["eval/episodic_return"], changes))


def draw() -> None:
    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for color, (kind, label) in zip(("C0", "C3"), KINDS.items(), strict=True):
        band(axis, "time_limits", kind, "eval/episodic_return", color, label)
    axis.set(title="ppo_continuous.py, Pendulum-v1", xlabel="environment steps", ylabel="evaluation return")
    axis.legend(title="3 seeds: mean, range")
    figure.savefig(FIGURES / "time_limits.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
