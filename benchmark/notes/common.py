"""What the figures about the notes share: a script trained with changes, its scalars as CSV, bands over seeds.

A file of this folder draws its figure from the data; with `run SEED` it trains anew and replaces that seed's data.
"""

import argparse
import contextlib
import csv
import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import matplotlib
import numpy as np

NOTES = Path(__file__).resolve().parent
FIGURES = NOTES.parent / "figures"
SEEDS = 1, 2, 3
sys.path.insert(0, str(NOTES.parents[1]))  # the scripts
matplotlib.use("Agg")


def train(
    script: str, arguments: dict, seed: int, names: list[str], changes: dict | None = None, measures: dict | None = None
) -> list:
    """Rows (step, name, value) of the logged scalars `names`, and of the measures.

    changes: by the name of a function or class of the script, what makes another one of it, which takes its place.
    measures: by their names, functions of the Run, which are called with each evaluation.
    """
    module, rows = importlib.import_module(script), []

    def record(run, values: dict, video: str | None = None) -> None:
        rows.extend((run.step, name, values[name]) for name in names if name in values)
        if "eval/episodic_return" in values:
            rows.extend((run.step, name, measure(run)) for name, measure in (measures or {}).items())

    fixed = {"seed": seed, "compile": False, "checkpoint_interval": 0}  # not compiled, as most data here were made
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(module.Run, "log", record))
        for name, change in (changes or {}).items():
            stack.enter_context(mock.patch.object(module, name, change(getattr(module, name))))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        module.train(module.Args(**{**fixed, "out_dir": folder, **arguments}))
    return rows


def path_of(figure: str, kind: str, seed: int) -> Path:
    return NOTES / "data" / figure / f"{kind}__{seed}.csv"


def write(figure: str, kind: str, seed: int, rows: list) -> None:
    path_of(figure, kind, seed).parent.mkdir(parents=True, exist_ok=True)
    with open(path_of(figure, kind, seed), "w", newline="") as file:
        rows = [(step, name, f"{value:.6g}") for step, name, value in rows]
        csv.writer(file, lineterminator="\n").writerows([("step", "name", "value"), *rows])


def read(figure: str, kind: str, name: str, seeds: tuple = SEEDS) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n], and the values of `name` at them [seeds, n]."""
    curves = []
    for seed in seeds:
        if not path_of(figure, kind, seed).exists():
            sys.exit(f"{path_of(figure, kind, seed)} is missing: run seed {seed}")
        with open(path_of(figure, kind, seed), newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["name"] == name]
        curves.append(np.array([(float(row["step"]), float(row["value"])) for row in rows]))
    length = min(map(len, curves))
    return curves[0][:length, 0], np.stack([curve[:length, 1] for curve in curves])


def band(
    axis, figure: str, kind: str, name: str, color: str, label: str, seeds: tuple = SEEDS, style: str = "-"
) -> None:
    """Mean over the seeds, and their range."""
    steps, values = read(figure, kind, name, seeds)
    axis.plot(steps, values.mean(0), style, color=color, label=label)
    axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)


def main(doc: str, run: Callable[[int], None], draw: Callable[[], None]) -> None:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["draw", "run"], default="draw")
    parser.add_argument("seed", nargs="?", type=int, default=1)
    options = parser.parse_args()
    run(options.seed) if options.what == "run" else draw()
