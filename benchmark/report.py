"""Draws every table and figure of the READMEs from the files in results/ and the speed files, without any training.

    python benchmark/report.py

Tables are put between the marks `<!-- table: NAME -->` and `<!-- end -->` of README.md and benchmark/README.md, figures
into benchmark/figures. A row is a script and an environment of experiments.toml with the seeds that are finished.
Intervals are rliable's (Agarwal et al., arXiv:2108.13264): the interquartile mean over the seeds, and its 95 % interval
by a bootstrap that draws seeds.
"""

import json
import math
import re
import statistics
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from grid import BENCHMARK, ROOT, code_hash, defaults, grid, read_result
from rliable import library, metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CONTESTANTS = {
    "PlainRL": "ours",
    "PlainRL compiled": "`--compile`",
    "PlainRL captured": "`--cudagraphs`",
    "PlainRL compiled, captured": "both",
    "SB3": "SB3",
    "SBX": "SBX",
}
NOT_THE_RESULT = {"cuda", "torch_threads", "compile", "cudagraphs", "track", "wandb_project", "wandb_entity"}
NOT_THE_RESULT |= {"capture_video", "log_interval", "checkpoint_interval", "resume", "evaluate", "out_dir", "seed"}


# ---- Results ----
class Row:
    """The finished seeds of a script in an environment: for each the returns of training and of the evaluations."""

    def __init__(self, runs: list, results: Path):
        self.script, self.env_id, self.variant = runs[0].script, runs[0].env_id, runs[0].variant
        self.given, self.num_seeds = runs[0].arguments, len(runs)
        self.seeds = [
            read_result(results / f"{run.name}.csv") for run in runs if (results / f"{run.name}.csv").exists()
        ]

    @property
    def has_changed(self) -> bool:
        """Whether a seed was run by other mathematics or arguments than those of now."""
        source = (ROOT / f"{self.script}.py").read_text("utf-8")
        now, code = {**defaults(source), "env_id": self.env_id, **self.given}, code_hash(source)
        rollout = now.get("num_envs", 1) * now.get("num_steps", 1)  # PPO rounds up to whole ones
        now["total_timesteps"] = math.ceil(now["total_timesteps"] / rollout) * rollout
        same = now.keys() - NOT_THE_RESULT
        return any(a["code"] != code or any(a["arguments"].get(k) != now[k] for k in same) for a, _ in self.seeds)

    def returns(self, kind: str, steps: int) -> np.ndarray:
        """For each seed that got so far: the mean of the last 100 training episodes, or the evaluation, at `steps`."""
        values = []
        for _, rows in self.seeds:
            if rows[-1][0] >= steps:
                until = [value for step, of, value in rows if of == kind and step <= steps]
                values.append(np.mean(until[-100:]) if kind == "train" else until[-1])
        return np.array(values)

    def curve(self, num_points: int) -> tuple[list[int], np.ndarray]:
        """Steps of at most num_points evaluations, the last one among them, and their returns [seeds, points]."""
        last = min(rows[-1][0] for _, rows in self.seeds)
        steps = [step for step, of, _ in self.seeds[0][1] if of == "eval" and step <= last]
        steps = steps[:: -math.ceil(len(steps) / num_points)][::-1]
        return steps, np.stack([self.returns("eval", step) for step in steps], axis=1)


def interquartile_mean(values: np.ndarray, reps: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interquartile mean over seeds and the bounds of its 95 % interval, each [n], for values [seeds, n]."""

    def metric(scores: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_iqm(scores[:, :, i]) for i in range(scores.shape[-1])])

    np.random.seed(0)  # rliable draws from this generator
    point, interval = library.get_interval_estimates({"ours": values[:, None, :]}, metric, reps=reps)
    return point["ours"], *interval["ours"]


def number(value: float, like: float | None = None) -> str:
    """With one digit after the point, from 1,000 on with none; `like`: of another number, for its deviation."""
    return f"{value:,.0f}" if abs(value if like is None else like) >= 1000 else f"{value:.1f}"


def spread(values: np.ndarray) -> str:
    mean = values.mean()
    return number(mean) + (f" ± {number(values.std(ddof=1), mean)}" if len(values) > 1 else "")


# ---- Tables ----
def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def results_table(rows: list[Row]) -> str:
    head = ["script", "environment", "steps", "seeds", "last 100 training episodes", "interquartile mean [95 %]"]
    head += ["last evaluation", "interquartile mean [95 %]"]
    lines = []
    for row in rows:
        steps = row.seeds[0][0]["arguments"]["total_timesteps"]
        environment = row.env_id + f" ({row.variant})" * bool(row.variant) + " †" * row.has_changed
        line = [f"`{row.script}.py`", environment, f"{steps:,}", f"{len(row.seeds)} of {row.num_seeds}"]
        for kind in ("train", "eval"):
            values = row.returns(kind, steps)
            iqm, low, high = (number(x[0]) for x in interquartile_mean(values[:, None]))
            line += [spread(values), f"{iqm} [{low}, {high}]"]
        lines.append(line)
    return table(head, lines)


def compare(row: Row, figure: dict) -> tuple[np.ndarray, float]:
    """Ours at the steps of the published figure, and the difference of the means in standard errors of it."""
    ours = row.returns(figure["metric"], figure["steps"])
    variance = ours.var(ddof=1) / len(ours) if len(ours) > 1 else 0.0
    if "sd" in figure:
        variance += figure["sd"] ** 2 / (figure["seeds"] - (1 - figure["ddof"]))
    return ours, (ours.mean() - figure["mean"]) / math.sqrt(variance) if variance else math.nan


def comparison_table(rows: list[Row], published: dict, main_only: bool) -> str:
    head = [
        "script",
        "environment",
        "steps",
        "ours (seeds)",
        "published (seeds)",
        "by, on",
        "of",
        "difference / SE",
        "",
    ]
    lines, by_name = [], {(row.script, row.env_id): row for row in rows if not row.variant}
    for figure in published["figures"]:
        row = by_name.get((figure["script"], figure["environment"]))
        if row is None or (main_only and not figure.get("main")):
            continue
        ours, difference = compare(row, figure)
        if not len(ours):
            continue
        theirs = number(figure["mean"]) + (f" ± {number(figure['sd'], figure['mean'])}" if "sd" in figure else "")
        by = f"{published['sources'][figure['source']]}, {figure['on']}" + (
            f": {figure['note']}" if "note" in figure else ""
        )
        metric = {"train": "training", "eval": "evaluation"}[figure["metric"]]
        line = [f"`{row.script}.py`", row.env_id + " †" * row.has_changed, f"{figure['steps']:,}"]
        line += [f"{spread(ours)} ({len(ours)})", f"{theirs} ({figure['seeds']})", by, metric]
        lines.append([*line, f"{difference:+.1f}" if "sd" in figure else "", "**behind**" if difference < -2 else ""])
    return table(head, lines)


def speed_table() -> str:
    """Medians of steps per second, and ratios of the medians."""
    lines = []
    for path in sorted((BENCHMARK / "results" / "speed").glob("*.json")):
        measured = json.loads(path.read_text())
        for threads, rounds in measured["rounds"].items():
            median = {peer: statistics.median(one[peer] for one in rounds) for peer in rounds[0]}
            line = [
                path.stem.replace("-cuda", ""),
                measured["machine"].split(", ")[-1] if "-cuda" in path.stem else threads,
            ]
            line += [f"{median[peer]:,.0f}" if peer in median else "" for peer in CONTESTANTS]
            for peer in ("SB3", "SBX"):
                ours = [name for name in CONTESTANTS if name.startswith("PlainRL") and name in median]
                line.append(", ".join(f"{median[name] / median[peer]:.2f}" for name in ours) if peer in median else "")
            lines.append(line)
    head = ["case", "threads or GPU", *CONTESTANTS.values(), "ours / SB3", "ours / SBX"]
    used = [i for i in range(len(head)) if any(line[i] for line in lines)]
    return table([head[i] for i in used], [[line[i] for i in used] for line in lines])


# ---- Figures ----
def draw_curves(rows: list[Row], env_ids: list[str], path: Path) -> None:
    """A panel for each environment: interquartile means of the evaluations and their intervals, a colour a script."""
    columns = min(3, len(env_ids))
    lines = -(-len(env_ids) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.5 * columns, 3.4 * lines), layout="constrained", squeeze=False
    )
    colors = dict(zip(sorted({row.script for row in rows}), plt.cm.tab10.colors, strict=False))
    for panel, env_id in zip(axes.flat, env_ids, strict=False):
        for row in rows:
            if row.env_id == env_id and not row.variant:
                steps, values = row.curve(20)
                iqm, low, high = interquartile_mean(values, reps=200)
                panel.plot(steps, iqm, color=colors[row.script], label=f"{row.script} ({len(values)} seeds)")
                panel.fill_between(steps, low, high, color=colors[row.script], alpha=0.2, linewidth=0)
        panel.set(title=env_id, xlabel="environment steps", ylabel="evaluation return")
        panel.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:,.0f}k")
        panel.legend(fontsize="small")
    for panel in axes.flat[len(env_ids) :]:
        panel.axis("off")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def tables() -> dict[str, str]:
    """Name -> table, for every mark in the READMEs."""
    rows = load_rows()
    published = tomllib.loads((BENCHMARK / "published.toml").read_text("utf-8"))
    return {
        "results": results_table(rows),
        "published": comparison_table(rows, published, main_only=False),
        "main": comparison_table(rows, published, main_only=True),
        "speed": speed_table(),
    }


def load_rows() -> list[Row]:
    by_row = defaultdict(list)
    for run in grid(BENCHMARK / "experiments.toml"):
        by_row[run.row].append(run)
    return [row for runs in by_row.values() if (row := Row(runs, BENCHMARK / "results")).seeds]


def fill(text: str, made: dict[str, str]) -> str:
    """The text with each table between its marks. KeyError for a mark of no table."""
    marks = re.compile(r"(<!-- table: (\w+) -->).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda match: f"{match[1]}\n\n{made[match[2]]}\n\n{match[3]}", text)


def main() -> None:
    made = tables()
    for path in (ROOT / "README.md", BENCHMARK / "README.md"):
        path.write_text(fill(path.read_text("utf-8"), made), "utf-8")
    rows, figures = load_rows(), BENCHMARK / "figures"
    for name, scripts in FIGURES.items():
        chosen = [row for row in rows if row.script in scripts]
        draw_curves(chosen, list(dict.fromkeys(row.env_id for row in chosen)), figures / f"{name}.png")
    for path in sorted((BENCHMARK / "notes").glob("*.py")):
        if path.stem != "common":
            subprocess.run([sys.executable, path], check=True, stdout=subprocess.DEVNULL)


FIGURES = {
    "discrete": ("dqn", "ddqn", "ppo_discrete"),
    "continuous": ("ddpg", "td3", "sac_continuous", "ppo_continuous"),
}

if __name__ == "__main__":
    sys.exit(main())
