"""Return by wall time: a script and its peers as they come out of the box, one core each.

    python benchmark/wall_time.py                        # draws figures/wall_time.png and prints the table
    python benchmark/wall_time.py run --workers 2        # every run that has no result yet: hours
    python benchmark/wall_time.py run td3 --seeds 1      # one case, one seed of each

This is what a user waits for: the clock runs from the start of the process, so that imports, compilation, logs and
evaluations are in. Nothing is set but the environment, the seed and the interval of evaluations, which is the same for
all: a script is `python td3.py --env-id Hopper-v5 ...`, a peer is TD3("MlpPolicy", environment, seed=...) with the same
total number of steps, from which schedules follow. Each plays ten episodes without noise in an evaluation. A run is
ended after the minutes of its case. The table has the minutes to a return that every library reaches.

A run becomes results/wall_time/<case>/<library>/<seed>.csv: what it was made by, then seconds, step and mean return of
each evaluation.
"""

import argparse
import csv
import io
import math
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
from grid import BENCHMARK, ROOT, code_hash
from matplotlib import pyplot as plt
from plot import draw_panels, table
from run import commit_of, machine

SEEDS = 1, 2, 3
CASES = {  # script: the peers' name of the algorithm, environment, steps, interval of evaluations, minutes
    "ddpg": ("DDPG", "Hopper-v5", 1_000_000, 2_500, 15),
    "td3": ("TD3", "Hopper-v5", 1_000_000, 2_500, 15),
    "sac_continuous": ("SAC", "Hopper-v5", 1_000_000, 2_500, 15),
    "ppo_continuous": ("PPO", "Hopper-v5", 1_000_000, 10_000, 6),
    "dqn": ("DQN", "CartPole-v1", 500_000, 5_000, 3),
    "ppo_discrete": ("PPO", "CartPole-v1", 500_000, 5_000, 3),
}
LIBRARIES = {"plainrl": "PlainRL", "sb3": "SB3", "sbx": "SBX"}

PEER = """
import importlib, sys
library, name, env_id, seed, total, interval = sys.argv[1:]
import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

class Evaluations(BaseCallback):
    env, due = gym.make(env_id), int(interval)

    def play(self, seed):
        (obs, _), total, done = self.env.reset(seed=seed), 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = self.env.step(self.model.predict(obs, deterministic=True)[0])
            total, done = total + reward, terminated or truncated
        return total

    def _on_step(self):
        if self.num_timesteps >= self.due:
            self.due += int(interval)
            mean = np.mean([self.play(10_000 + episode) for episode in range(10)])
            print(f"step {self.num_timesteps:,}: evaluation {mean:.2f}", flush=True)
        return True

algorithm = getattr(importlib.import_module(library), name)
algorithm("MlpPolicy", gym.make(env_id), seed=int(seed)).learn(int(total), callback=Evaluations())
"""


def command(script: str, library: str, seed: int, folder: str) -> list[str]:
    name, env_id, total, interval, _ = CASES[script]
    if library == "plainrl":
        line = [sys.executable, str(ROOT / f"{script}.py"), "--env-id", env_id, "--seed", str(seed)]
        return [*line, "--total-timesteps", str(total), "--eval-interval", str(interval), "--out-dir", folder]
    module = {"sb3": "stable_baselines3", "sbx": "sbx"}[library]
    return [sys.executable, "-c", PEER, module, name, env_id, str(seed), str(total), str(interval)]


def measure(line: list[str], seconds: float, core: int | None, folder: str) -> list[tuple[float, int, float]]:
    """(seconds since the start of the process, step, return) of each evaluation that it prints within `seconds`.

    RuntimeError, with its last words, if it fails, or if there is none.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment, rows, tail = os.environ | threads | {"JAX_PLATFORMS": "cpu"}, [], []
    hold = None if core is None else lambda: os.sched_setaffinity(0, {core})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    start = time.monotonic()
    with subprocess.Popen(line, env=environment, cwd=folder, preexec_fn=hold, **pipes) as process:
        timer = threading.Timer(seconds, process.terminate)
        timer.start()
        for text in process.stdout:
            tail = [*tail[-20:], text]
            now = time.monotonic() - start
            if now < seconds and (seen := re.match(r"step ([\d,]+): evaluation (\S+)", text)):
                rows.append((now, int(seen[1].replace(",", "")), float(seen[2])))
        timer.cancel()
    if not rows or (process.returncode and time.monotonic() - start < seconds):
        raise RuntimeError("".join(tail) or "no evaluation")
    return rows


def path_of(script: str, library: str, seed: int) -> Path:
    return BENCHMARK / "results" / "wall_time" / script / library / f"{seed}.csv"


def run(script: str, library: str, seed: int, cores: queue.Queue) -> None:
    core = cores.get()
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{script}, {LIBRARIES[library]}, seed {seed}: started", flush=True)
            rows = measure(command(script, library, seed, folder), 60 * CASES[script][-1], core, folder)
    finally:
        cores.put(core)
    packages = {"plainrl": ["torch"], "sb3": ["stable-baselines3", "torch"], "sbx": ["sbx-rl", "jax"]}[library]
    about = {"versions": ", ".join(f"{name} {version(name)}" for name in [*packages, "gymnasium", "mujoco"])}
    about["machine"] = machine()
    if library == "plainrl":
        about |= {"commit": commit_of(script), "code": code_hash((ROOT / f"{script}.py").read_text("utf-8"))}
    lines = [f"# {name}: {value}" for name, value in about.items()] + ["seconds,step,return"]
    lines += [f"{seconds:.2f},{step},{value:.3f}" for seconds, step, value in rows]
    path = path_of(script, library, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text("\n".join(lines) + "\n", "utf-8")
    path.with_suffix(".tmp").replace(path)
    best = max((value for *_, value in rows), default=math.nan)
    print(f"{script}, {LIBRARIES[library]}, seed {seed}: at best {best:,.1f}", flush=True)


def read(script: str, library: str) -> list[np.ndarray]:
    """For each seed that there is (minutes, return) of its evaluations [n, 2]."""
    curves = []
    for seed in SEEDS:
        path = path_of(script, library, seed)
        if path.exists():
            text = "\n".join(line for line in path.read_text("utf-8").splitlines() if not line.startswith("#"))
            rows = [(float(row["seconds"]) / 60, float(row["return"])) for row in csv.DictReader(io.StringIO(text))]
            curves.append(np.array(rows).reshape(-1, 2))
    return curves


def minutes_to(curve: np.ndarray, value: float) -> float:
    """Until the first evaluation of at least that return; inf without one."""
    reached = curve[curve[:, 1] >= value, 0]
    return reached[0] if len(reached) else math.inf


def common_return(curves: dict[str, list[np.ndarray]]) -> float:
    """The largest of two digits that, in each library, half of the seeds reach."""
    best = [np.median([curve[:, 1].max() for curve in seeds]) for seeds in curves.values()]
    lowest = min(best)
    unit = 10 ** (math.floor(math.log10(abs(lowest))) - 1)
    return math.floor(lowest / unit) * unit


def wall_time_table() -> str:
    lines = []
    for script, (_, env_id, *_) in CASES.items():
        curves = {library: seeds for library in LIBRARIES if (seeds := read(script, library))}
        if not curves:
            continue
        value = common_return(curves)
        line = [f"`{script}.py`", env_id, f"{value:,.0f}"]
        for library in LIBRARIES:
            times = sorted(minutes_to(curve, value) for curve in curves.get(library, []))
            shown = ["never" if time == math.inf else f"{time:.1f}" for time in times]
            line.append(f"{shown[(len(times) - 1) // 2]} ({', '.join(shown)})" if times else "")
        lines.append(line)
    return table(["script", "environment", "return", *(f"{label}: minutes" for label in LIBRARIES.values())], lines)


def draw() -> None:
    cases = [script for script in CASES if any(read(script, library) for library in LIBRARIES)]
    if not cases:
        sys.exit("there are no results to draw: wall_time.py run makes them")
    figure, panels = draw_panels(len(cases))
    lines = {}
    for panel, script in zip(panels, cases, strict=True):
        for color, (library, label) in enumerate(LIBRARIES.items()):
            for curve in read(script, library):
                (lines[label],) = panel.plot(*curve.T, color=f"C{color}", alpha=0.7, linewidth=1)
        panel.set(title=f"{script}.py, {CASES[script][1]}", xlabel="minutes", ylabel="evaluation return")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3, title="a line is a seed")
    figure.savefig(BENCHMARK / "figures" / "wall_time.png", dpi=100)
    plt.close(figure)
    print(wall_time_table())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["draw", "run"], default="draw")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, each on a core of its own")
    options = parser.parse_args()
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    if options.what == "draw":
        return draw()
    free = sorted(os.sched_getaffinity(0))[: options.workers] if hasattr(os, "sched_getaffinity") else []
    cores = queue.Queue()
    for worker in range(options.workers):
        cores.put(free[worker] if worker < len(free) else None)
    of_cases = [(script, library) for script in options.cases or CASES for library in LIBRARIES]
    todo = [(*one, seed) for seed in options.seeds for one in of_cases if not path_of(*one, seed).exists()]
    with ThreadPoolExecutor(options.workers) as pool:
        futures = [pool.submit(run, *one, cores) for one in todo]
    errors = [(one, future.exception()) for one, future in zip(todo, futures, strict=True)]
    if failed := [f"{' '.join(map(str, one))}: {error}" for one, error in errors if error]:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
