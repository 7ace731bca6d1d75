"""Draws every table and figure of the READMEs from the files in results/ and the speed files, without any training.

    python benchmark/report.py

Tables are put between the marks `<!-- table: NAME -->` and `<!-- end -->` of README.md and benchmark/README.md, figures
into benchmark/figures. A row is a script and an environment of experiments.toml with the seeds that are finished.
Intervals are rliable's (Agarwal et al., arXiv:2108.13264): the interquartile mean over the seeds, and its 95 % interval
by a bootstrap that draws seeds; where there are fewer than five seeds, there is none.
"""

import hashlib
import json
import math
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import numpy as np
from grid import BENCHMARK, ROOT, code_hash, grid, has_changed, read_result
from matplotlib import pyplot as plt
from plot import MIN_SEEDS, draw_curve, draw_panels, interquartile_mean, label_axes, number, spread, table

CONTESTANTS = {
    "PlainRL": "`--no-compile`",
    "PlainRL compiled": "`--compile`",
    "PlainRL captured": "`--no-compile --cudagraphs`",
    "PlainRL compiled, captured": "`--compile --cudagraphs`",
    "SB3": "SB3",
    "SBX": "SBX",
}


# ---- Results ----
class Row:
    """The finished seeds of a script in an environment: for each the returns of training and of the evaluations."""

    def __init__(self, runs: list, results: Path):
        self.script, self.env_id, self.variant = runs[0].script, runs[0].env_id, runs[0].variant
        self.num_seeds, self.steps = len(runs), runs[0].arguments["total_timesteps"]
        done = [(run, results / f"{run.name}.csv") for run in runs if (results / f"{run.name}.csv").exists()]
        read = [(run, *read_result(path)) for run, path in done]
        self.seeds = [rows for _, _, rows in read if rows and rows[-1][0] >= self.steps]
        if short := [run.name for run, _, rows in read if not rows or rows[-1][0] < self.steps]:
            print(f"left out, with fewer than {self.steps:,} steps: {', '.join(short)}", file=sys.stderr)
        self.mark = " †" * any(has_changed(run, about) for run, about, _ in read)

    def returns(self, kind: str, steps: float, window: float | None = None) -> np.ndarray:
        """For each seed the mean of the last 100 training episodes, or the last evaluation, until `steps`.

        With a window: the mean of all training episodes, or evaluations, of the last `window` steps until then.
        """
        until = [[(step, value) for step, of, value in rows if of == kind and step <= steps] for rows in self.seeds]
        if window is not None:
            return np.array([np.mean([value for step, value in rows if step > steps - window]) for rows in until])
        num = 100 if kind == "train" else 1
        return np.array([np.mean([value for _, value in rows[-num:]]) for rows in until])

    def curve(self, num_points: int) -> tuple[list[int], np.ndarray]:
        """Steps of at most num_points evaluations, most of them early, and their returns [seeds, points].

        The first and the last evaluation are among them.
        """
        steps = [step for step, of, _ in self.seeds[0] if of == "eval"]
        chosen = np.unique(np.geomspace(1, len(steps), num_points).round().astype(int)) - 1
        steps = [steps[i] for i in chosen]
        return steps, np.stack([self.returns("eval", step) for step in steps], axis=1)


# ---- Tables ----
def results_table(rows: list[Row], variants: bool) -> str:
    head = ["script", "environment", *["variant"] * variants, "steps", "seeds", "last 100 training episodes"]
    head += ["interquartile mean [95 %]", "last evaluation", "interquartile mean [95 %]"]
    lines = []
    for row in rows:
        if bool(row.variant) != variants:
            continue
        line = [f"`{row.script}.py`", row.env_id + row.mark, *[row.variant] * variants]
        line += [f"{row.steps:,}", f"{len(row.seeds)} of {row.num_seeds}"]
        for kind in ("train", "eval"):
            values = row.returns(kind, math.inf)  # PPO ends with a whole rollout, after row.steps
            line += [spread(values), ""]
            if len(values) >= MIN_SEEDS:
                iqm, low, high = (number(x[0]) for x in interquartile_mean(values[:, None]))
                line[-1] = f"{iqm} [{low}, {high}]"
        lines.append(line)
    return table(head, lines)


def compare(row: Row, figure: dict) -> tuple[np.ndarray, float]:
    """Ours at, and over, the steps of the published figure, and the means' difference in standard errors, or NaN."""
    ours = row.returns(figure["metric"], figure["steps"], figure.get("window"))
    if len(ours) < 2 or "sd" not in figure:
        return ours, math.nan
    variance = ours.var(ddof=1) / len(ours) + figure["sd"] ** 2 / (figure["seeds"] - (1 - figure["ddof"]))
    return ours, (ours.mean() - figure["mean"]) / math.sqrt(variance)


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
        if row is None or figure["steps"] > row.steps or (main_only and not figure.get("main")):
            continue
        ours, difference = compare(row, figure)
        theirs = number(figure["mean"]) + (f" ± {number(figure['sd'], figure['mean'])}" if "sd" in figure else "")
        by = f"{published['sources'][figure['source']]}, {figure['on']}"
        by += f": {figure['note']}" if "note" in figure else ""
        seeds = f"{len(ours)}" + f" of {row.num_seeds}" * (len(ours) < row.num_seeds)
        line = [f"`{row.script}.py`", row.env_id + row.mark, f"{figure['steps']:,}", f"{spread(ours)} ({seeds})"]
        of = {"train": "training", "eval": "evaluation"}[figure["metric"]]
        of += f", {figure['window']:,} steps" if "window" in figure else ""
        line += [f"{theirs} ({figure['seeds']})", by, of]
        lines.append(
            [*line, "" if math.isnan(difference) else f"{difference:+.1f}", "**behind**" if difference < -2 else ""]
        )
    return table(head, lines)


def newer_table(published: dict) -> str:
    """What newer methods reach, of ten seeds each, by environment."""
    lines = []
    for one in sorted(published["newer"], key=lambda one: one["environment"]):
        cells = [f"{number(mean)} ± {number(sd, mean)}" for mean, sd in zip(one["mean"], one["sd"], strict=True)]
        lines.append([one["environment"], one["method"], *cells])
    return table(["environment", "method", "100,000 steps", "300,000", "1,000,000"], lines)


def speed_table() -> str:
    """Medians of steps per second over the rounds, their range, and medians of the rounds' ratios."""
    lines, measured_on = [], defaultdict(list)
    for path in sorted((BENCHMARK / "results" / "speed").glob("*.json")):
        measured, case = json.loads(path.read_text("utf-8")), path.stem.removesuffix("-cuda")
        script = case.removesuffix("-atari")
        now = code_hash((ROOT / f"{script}.py").read_text("utf-8"))
        case += " †" * (measured.get("code") != now)
        measured_on[f"{measured['machine']}; {measured['versions']}"].append(case)
        for threads, rounds in sorted(measured["rounds"].items(), key=lambda of: int(of[0])):
            where = threads
            if measured["device"] == "cuda":
                where = measured["machine"].split(", ")[-1] + f", {threads} threads" * (threads != "1")
            line = [case, where]
            for name in CONTESTANTS:
                speeds = [one[name] for one in rounds if name in one]
                line.append(f"{np.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})" if speeds else "")
            for peer in ("SB3", "SBX"):
                ours = [name for name in CONTESTANTS if name.startswith("PlainRL") and {name, peer} <= rounds[0].keys()]
                line.append(", ".join(f"{np.median([one[name] / one[peer] for one in rounds]):.2f}" for name in ours))
            lines.append(line)
    head = ["case", "threads or GPU", *CONTESTANTS.values(), "ours / SB3", "ours / SBX"]
    used = [i for i in range(len(head)) if any(line[i] for line in lines)]
    notes = [f"{', '.join(cases)}: {where}." for where, cases in measured_on.items()]
    if len(notes) == 1:
        notes = [f"{next(iter(measured_on))}."]
    return table([head[i] for i in used], [[line[i] for i in used] for line in lines]) + "\n\n" + "\n".join(notes)


# ---- Figures ----
def draw_curves(rows: list[Row], figures: list[dict], path: Path) -> None:
    """A panel for each environment, a colour for each script: our evaluations, and those that others published."""
    env_ids = list(dict.fromkeys(row.env_id for row in rows))
    figure, panels = draw_panels(len(env_ids))
    scripts = sorted({row.script for row in rows})
    colors, lines = dict(zip(scripts, plt.cm.tab10.colors, strict=False)), {}
    for panel, env_id in zip(panels, env_ids, strict=True):
        for row in rows:
            if row.env_id == env_id:
                draw_curve(panel, *row.curve(40), row.script, colors[row.script])
                lines[f"{row.script}.py"] = panel.lines[-1]
        for one in figures:
            if one["environment"] == env_id:
                style = {"fmt": "x", "color": colors[one["script"]], "capsize": 3, "zorder": 3}
                lines["published, ± deviation"] = panel.errorbar(one["steps"], one["mean"], one.get("sd"), **style)
        label_axes(panel, env_id)
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines))
    figure.savefig(path, dpi=100, metadata={"Data": digest(rows, figures)})
    plt.close(figure)


def figures_of(rows: list[Row], published: dict) -> list[dict]:
    """What was published of evaluations of these scripts, up to the steps that ours have."""
    steps = {(row.script, row.env_id): row.steps for row in rows}
    of_rows = [one for one in published["figures"] if (one["script"], one["environment"]) in steps]
    return [
        one for one in of_rows if one["metric"] == "eval" and one["steps"] <= steps[one["script"], one["environment"]]
    ]


def digest(rows: list[Row], figures: list[dict]) -> str:
    """Of the data of a figure, which a test compares with that in the figure's file."""
    data = [(row.script, row.env_id, row.variant, row.seeds) for row in rows], figures
    return hashlib.sha256(repr(data).encode()).hexdigest()


def rows_of(figure: str, rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.script in FIGURES[figure] and not row.variant]


def load_published() -> dict:
    return tomllib.loads((BENCHMARK / "published.toml").read_text("utf-8"))


def tables() -> dict[str, str]:
    """Name -> table, for every mark in the READMEs."""
    rows, published = load_rows(), load_published()
    return {
        "results": results_table(rows, variants=False),
        "variants": results_table(rows, variants=True),
        "published": comparison_table(rows, published, main_only=False),
        "main": comparison_table(rows, published, main_only=True),
        "newer": newer_table(published),
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
    print("tables: reads all results and draws thousands of bootstrap samples", flush=True)
    try:
        made = tables()
    except ValueError as error:
        sys.exit(str(error))
    for path in (ROOT / "README.md", ROOT / "README.zh-CN.md", BENCHMARK / "README.md"):
        path.write_text(fill(path.read_text("utf-8"), made), "utf-8")
    rows, figures = load_rows(), BENCHMARK / "figures"
    for name in FIGURES:
        if chosen := rows_of(name, rows):
            print(f"figures/{name}.png", flush=True)
            draw_curves(chosen, figures_of(chosen, load_published()), figures / f"{name}.png")
    for path in sorted((BENCHMARK / "notes").glob("*.py")):
        if (path.parent / "data" / path.stem).exists():
            print(f"notes/{path.name}", flush=True)
            subprocess.run([sys.executable, path], check=True, stdout=subprocess.DEVNULL)


FIGURES = {  # a new script needs a name here
    "discrete": ("dqn", "ddqn", "ppo_discrete"),
    "continuous": ("ddpg", "td3", "sac_continuous", "ppo_continuous"),
}

if __name__ == "__main__":
    sys.exit(main())
