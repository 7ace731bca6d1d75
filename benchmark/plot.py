"""Draws the evaluations of any runs: a panel for each environment, a curve for each script and set of arguments.

    python benchmark/plot.py runs/* --output plot.png
    python benchmark/plot.py runs/Hopper* --hours --table

Runs that differ in their seed only are one curve: the interquartile mean over the seeds, with its 95 % interval
(rliable's) where there are at least five, else with their range. Curves of one script are told apart by the arguments
in which they differ. --table prints the last values as Markdown, mean ± standard deviation over the seeds.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from rliable import library, metrics
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog
from tqdm import tqdm

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MIN_SEEDS = 5  # for an interval: of normal data the bootstrap's covers 91 % with 5 seeds, 75 % with 3
# Arguments that change what a run shows of itself, or how fast it is, and not what it learns.
NOT_COMPARED = {"seed", "env_id", "resume", "evaluate", "out_dir", "cuda", "torch_threads", "compile", "cudagraphs"}
NOT_COMPARED |= {"track", "wandb_project", "wandb_entity", "capture_video", "log_interval"}


# ---- Statistics ----
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


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---- Drawing ----
def draw_curve(panel: plt.Axes, x: list[float], values: np.ndarray, label: str, color: tuple) -> None:
    """values [seeds, points] at x."""
    iqm, low, high = interquartile_mean(values, reps=200)
    if len(values) < MIN_SEEDS:
        low, high = values.min(0), values.max(0)
    dots = "o" if len(x) < 3 else None  # a line through one point is invisible
    panel.plot(x, iqm, color=color, marker=dots, label=f"{label} ({len(values)} seed{'s' * (len(values) > 1)})")
    panel.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def draw_panels(num_panels: int) -> tuple[plt.Figure, list[plt.Axes]]:
    """A figure with so many panels, at most three beside each other."""
    columns = min(3, num_panels)
    lines = -(-num_panels // columns)
    size = (4.5 * columns, 3.4 * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
    for panel in axes.flat[num_panels:]:
        panel.axis("off")
    return figure, list(axes.flat[:num_panels])


def label_axes(panel: plt.Axes, env_id: str, hours: bool = False) -> None:
    panel.set(title=env_id, xlabel="hours" if hours else "environment steps", ylabel="evaluation return")
    if not hours:
        panel.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:,g}k")


# ---- Runs ----
class Run:
    """The evaluations of a run's folder: steps, hours since its start and returns, each [n]."""

    def __init__(self, folder: Path):
        self.args = json.loads((folder / "args.json").read_text("utf-8"))
        self.script, self.env_id, self.seed = folder.name.split("__")[1], self.args["env_id"], self.args["seed"]
        events = [event for file in folder.glob("events.*") for event in LegacyEventFileLoader(str(file)).Load()]
        events.sort(key=lambda event: event.wall_time)
        evaluations = {}  # by step: what a resumed run has evaluated again counts once
        self.busy, last = 0.0, None
        for event in events:
            if last is not None and event.file_version == "":  # a file's first event comes after a pause
                self.busy += event.wall_time - last
            last = event.wall_time
            if event.session_log.status == SessionLog.START:  # what a kill left past the checkpoint is made again
                evaluations = {step: made for step, made in evaluations.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == "eval/episodic_return":
                    evaluations[event.step] = (self.busy / 3600, value.simple_value)
        self.steps = np.array(sorted(evaluations))
        self.hours = np.array([evaluations[step][0] for step in self.steps])
        self.returns = np.array([evaluations[step][1] for step in self.steps])


class Curve:
    """Runs of one script in one environment that differ in their seed only, up to where the shortest of them is."""

    def __init__(self, runs: list[Run], hours: bool):
        self.script, self.env_id, self.args = runs[0].script, runs[0].env_id, runs[0].args
        at = [run.hours if hours else run.steps for run in runs]
        start, end = max(x[0] for x in at), min(x[-1] for x in at)
        union = np.unique(np.concatenate(at))
        x = union[(union >= start) & (union <= end)]
        self.x = x if len(x) else np.array([end])
        values = zip(at, runs, strict=True)
        self.values = np.stack([np.interp(self.x, where, run.returns) for where, run in values])  # [seeds, points]

    def label(self, others: list["Curve"]) -> str:
        """The script, and those arguments in which it differs from the script's other curves."""
        names = [name for name in self.args if name not in NOT_COMPARED]
        of_script = [curve for curve in others if curve.script == self.script]
        differing = [name for name in names if len({repr(curve.args.get(name)) for curve in of_script}) > 1]
        return ", ".join([self.script, *(f"{name} {self.args[name]}" for name in differing)])


def read_runs(folders: list[Path]) -> list[Run]:
    runs = []
    for folder in tqdm(folders, unit=" run", delay=2):  # seconds
        if not (folder / "args.json").exists():
            print(f"left out, not the folder of a run: {folder}", file=sys.stderr)
            continue
        run = Run(folder)
        if len(run.steps):
            runs.append(run)
        else:
            print(f"left out, without an evaluation yet: {folder}", file=sys.stderr)
    return runs


def group(runs: list[Run], hours: bool) -> dict[str, list[Curve]]:
    """environment -> its curves. A seed that was run twice counts once, by the run with the most steps."""
    groups = defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.steps[-1]):
        learned = {name: value for name, value in run.args.items() if name not in NOT_COMPARED}
        groups[run.env_id, run.script, json.dumps(learned, sort_keys=True)][run.seed] = run
    curves = defaultdict(list)
    for (env_id, *_), by_seed in sorted(groups.items()):
        curves[env_id].append(Curve(list(by_seed.values()), hours))
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_DIR", help="folders of runs")
    parser.add_argument("--output", type=Path, default=Path("plot.png"), help="the picture, plot.png if not given")
    parser.add_argument("--hours", action="store_true", help="by hours of running instead of environment steps")
    parser.add_argument("--table", action="store_true", help="prints the last values as Markdown")
    args = parser.parse_args()
    curves = group(read_runs(args.folders), args.hours)
    if not curves:
        sys.exit("none of these folders has an evaluation")
    figure, panels = draw_panels(len(curves))
    lines = []
    for panel, (env_id, of_env) in zip(panels, curves.items(), strict=True):
        for curve, color in zip(of_env, plt.cm.tab10(np.arange(len(of_env)) % 10), strict=True):
            label = curve.label(of_env)
            draw_curve(panel, curve.x, curve.values, label, color)
            where = f"{curve.x[-1]:.2f} h" if args.hours else f"{curve.x[-1]:,.0f}"
            lines.append([label, env_id, where, str(len(curve.values)), spread(curve.values[:, -1])])
        label_axes(panel, env_id, args.hours)
        panel.legend(fontsize="small")
    figure.savefig(args.output, dpi=100)
    number_of_curves = sum(len(of_env) for of_env in curves.values())
    print(f"{args.output}: {number_of_curves} curve{'s' * (number_of_curves > 1)}", file=sys.stderr)
    if args.table:
        print(table(["runs", "environment", "hours" if args.hours else "steps", "seeds", "return"], lines))


if __name__ == "__main__":
    main()
