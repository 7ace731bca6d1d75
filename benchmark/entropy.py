"""The entropy of PPO's policy in training, with the bonus subtracted from the loss and added to it, and by coefficient.

    python benchmark/entropy.py            # draws benchmark/figures/entropy.png from the CSV files
    python benchmark/entropy.py run 1      # trains all of them with seed 1 and writes their CSV files anew

"added" is note 002's formula: the same script, but for the sign of the bonus in `total_loss`.
"""

import argparse
import csv
import functools
import importlib
import sys
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SEEDS = 1, 2, 3
TASKS = {  # script: environment, arguments that differ from the defaults, coefficient, target entropy
    "ppo_discrete": ("CartPole-v1", {"total_timesteps": 100_000}, 0.05, 0.9),
    "ppo_continuous": ("InvertedPendulum-v5", {"total_timesteps": 100_000}, 0.05, 1.0),
}
KINDS = "none", "subtracted", "added", "linear", "exponential", "learned"


def arguments(script: str, kind: str) -> dict:
    _, _, coefficient, target = TASKS[script]
    if kind in ("linear", "exponential"):
        moves = {"ent_coef_schedule": kind, "ent_coef_end": coefficient / 100, "ent_coef_duration": 100_000}
        return {"ent_coef": coefficient, **moves}
    if kind == "learned":
        return {"ent_coef": coefficient, "ent_autotune": True, "target_entropy": target}
    return {"ent_coef": 0.0 if kind == "none" else coefficient}


def run(script: str, kind: str, seed: int) -> None:
    sys.path.insert(0, str(FOLDER.parent))
    module = importlib.import_module(script)
    total_loss, scalars = module.total_loss, module.Logger.scalars
    rows = []

    def added(policy_loss, value_loss, entropy, vf_coef, ent_coef):
        return total_loss(policy_loss, value_loss, -entropy, vf_coef, ent_coef)

    def recording(logger, values, step):
        if "losses/entropy" in values:
            rows.append((step, values["losses/entropy"], values["losses/ent_coef"]))
        scalars(logger, values, step)

    module.total_loss = added if kind == "added" else total_loss
    module.Logger.scalars = functools.partialmethod(recording)
    env_id, options, _, _ = TASKS[script]
    with tempfile.TemporaryDirectory() as folder:
        options = {"env_id": env_id, "seed": seed, "eval_interval": 0, "checkpoint_interval": 0, **options}
        module.train(module.Args(**options, **arguments(script, kind), out_dir=folder))
    module.total_loss, module.Logger.scalars = total_loss, scalars
    path = FOLDER / "results" / "entropy" / f"{script}__{env_id}__{kind}__{seed}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        rows = [(step, f"{entropy:.5f}", f"{ent_coef:.3e}") for step, entropy, ent_coef in rows]
        csv.writer(file, lineterminator="\n").writerows([("step", "entropy", "ent_coef"), *rows])


def draw() -> None:
    """Entropy above and coefficient below, a column for each script: means over the seeds and their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 6), sharex=True, layout="constrained")
    for (script, (env_id, *_)), (above, below) in zip(TASKS.items(), axes.T, strict=True):
        for color, kind in enumerate(KINDS):
            paths = [FOLDER / "results" / "entropy" / f"{script}__{env_id}__{kind}__{seed}.csv" for seed in SEEDS]
            if missing := [path.name for path in paths if not path.exists()]:
                sys.exit(f"missing: {', '.join(missing)}; run their seeds")
            runs = np.stack([np.loadtxt(path, delimiter=",", skiprows=1) for path in paths])
            step = runs[0, :, 0]
            for axis, column in ((above, 1), (below, 2)):
                axis.plot(step, runs[:, :, column].mean(0), color=f"C{color}", label=kind)
                axis.fill_between(
                    step, runs[:, :, column].min(0), runs[:, :, column].max(0), color=f"C{color}", alpha=0.12
                )
            print(f"{script}, {kind}: entropy at the end {', '.join(f'{value:.3f}' for value in runs[:, -1, 1])}")
        above.set(title=f"{script}.py, {env_id}", ylabel="entropy, nats")
        below.set(xlabel="environment steps", ylabel="ent_coef", yscale="log")
    axes[0, 0].legend(title=f"{len(SEEDS)} seeds: mean, range")
    path = FOLDER / "figures" / "entropy.png"
    figure.savefig(path, dpi=120)
    print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["draw", "run"], default="draw")
    parser.add_argument("seed", nargs="?", type=int, choices=SEEDS, default=1)
    options = parser.parse_args()
    if options.what == "run":
        for script in TASKS:
            for kind in KINDS:
                run(script, kind, options.seed)
    else:
        draw()
