"""Runs the grid of experiments.toml, each run in a process of its own, on this machine or on a Ray cluster.

    python benchmark/run.py --workers 2                            # every run that has no result yet
    python benchmark/run.py --workers 2 --only /td3/ Hopper-v5     # those whose /name/ has all of these words
    python benchmark/run.py --ray auto --only sac                  # on the cluster that this machine belongs to
    python benchmark/run.py --list

A run is the command `python <script>.py ...`, in the folder benchmark/runs/<script>/<environment>/<seed>, with its
output in log.txt. The scripts are copied when the grid is started: they may be edited while it runs. A run that has a
result is skipped, an interrupted one resumed from its last checkpoint; if its arguments or the script's mathematics
have changed since, it starts anew, and the old folder is kept as <seed>.old-<time>. A finished run becomes
benchmark/results/<script>/<environment>/<seed>.csv: comments with what it was made by, then a row for each training
episode ("train") and for each evaluation ("eval", the mean of its deterministic episodes). Ctrl-C lets all runs write a
checkpoint and stop; a second one kills them. The exit status is 1 if a run failed; all that failed are listed.

On a cluster, start it on one of the machines; each needs Python with benchmark/requirements.txt, the scripts are sent
to it. Whatever a run writes comes to this machine with every checkpoint, into the same folders: a run whose machine is
lost goes on from there on another one, or later with --workers.
"""

import argparse
import contextlib
import fcntl
import importlib.util
import itertools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from grid import BENCHMARK, ROOT, Run, grid, has_changed, made_by, read_result, write_result

STOPPED = 128 + signal.SIGTERM  # exit status of a script after SIGTERM


def say(line: str, error: bool = False) -> None:
    """Prints; without a terminal any more, nothing: the runs go on."""
    try:
        print(line, file=sys.stderr if error else sys.stdout, flush=True)
    except OSError:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


# ---- One run: its command, its folder, its result ----
def machine() -> str:
    """Processor, number of its cores, and the GPU if there is one."""
    try:
        processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        processor = platform.processor() or platform.machine()
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    gpus = subprocess.run(query, capture_output=True, text=True).stdout if shutil.which(query[0]) else ""
    return ", ".join([processor, f"{num_cores()} cores", *gpus.split("\n")[:-1]])


def num_cores() -> int:
    """Those that this process may use, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def copy_scripts(folder: Path) -> None:
    """With their commits, which may be others when a run begins."""
    for path in [*ROOT.glob("*.py"), *BENCHMARK.glob("*.py")]:
        shutil.copy(path, folder)
    write_json(folder / "commits.json", {path.stem: commit_of(path.stem) for path in ROOT.glob("*.py")})


def commit_of(script: str) -> str:
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain", "--", f"{script}.py"], capture_output=True, text=True)
        return head + " with changes" * bool(status.stdout)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def started_at(run_dir: Path) -> int:
    """The time in the name of a run's folder; a copy of the folder has other times of change."""
    return int(run_dir.name.rpartition("__")[2])


def command(run: Run, scripts: Path, folder: Path, track: bool) -> list[str]:
    """Starts the run or, where `folder` has a checkpoint of it, goes on with it."""
    script = [sys.executable, str(scripts / f"{run.script}.py")]
    if run_dirs := [path.parent for path in folder.glob("*/checkpoint.pt")]:
        run_dir = max(run_dirs, key=started_at)
        if track and not json.loads((run_dir / "args.json").read_text("utf-8"))["track"]:
            say(f"{run.name}: was begun without --track, and goes on without")
        return [*script, "--resume", str(run_dir)]
    for name, value in {"env_id": run.env_id, "seed": run.seed, **run.arguments, "out_dir": folder}.items():
        flag = name.replace("_", "-")
        script += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return script + ["--track"] * track


def write_json(path: Path, content: dict | list) -> None:
    path.with_suffix(".tmp").write_text(json.dumps(content, indent=1), "utf-8")
    path.with_suffix(".tmp").replace(path)


def prepare(run: Run, folder: Path, scripts: Path) -> None:
    """Makes the folder with made_by.json; one with a run of something else, or of who knows what, is put by."""
    made = made_by(run, (scripts / f"{run.script}.py").read_text("utf-8"))
    try:
        old = json.loads((folder / "made_by.json").read_text("utf-8"))
    except (OSError, ValueError):
        old = {}
    if folder.exists() and {name: old.get(name) for name in made} != made:
        put_by = folder.with_name(f"{folder.name}.old-{time.time_ns()}")
        say(f"{run.name}: its script or arguments have changed: it starts anew, what there was is in {put_by}")
        folder.rename(put_by)
    if not folder.exists():
        folder.mkdir(parents=True)
        commits = json.loads((scripts / "commits.json").read_text("utf-8"))
        write_json(folder / "made_by.json", {"commit": commits[run.script], **made})


def start(run: Run, folder: Path, scripts: Path, track: bool, kept_open: tuple = ()) -> subprocess.Popen:
    """The process, in a group of its own, so that Ctrl-C reaches it through us only. kept_open: file descriptors."""
    names = "torch", "gymnasium", "mujoco", "numpy"
    here = {"versions": ", ".join(f"{name} {version(name)}" for name in names)}
    here["machine"] = f"{machine()}, Python {platform.python_version()}"
    before = json.loads((folder / "made_on.json").read_text("utf-8")) if (folder / "made_on.json").exists() else []
    write_json(folder / "made_on.json", before + [here] * (here not in before))
    variables = {"WANDB_RUN_GROUP": run.row, "WANDB_TAGS": f"benchmark,{run.script},{run.env_id}"}
    variables |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(run.arguments.get("torch_threads", 1)))
    die_with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    line = [*die_with_us, *command(run, scripts, folder, track)]
    with open(folder / "log.txt", "a") as log:
        own_group = {"start_new_session": True, "pass_fds": kept_open}
        return subprocess.Popen(line, cwd=folder, env=os.environ | variables, stdout=log, stderr=log, **own_group)


def progress(folder: Path) -> tuple[int, int, str]:
    """Steps at the start of this process, steps so far, and the last evaluation, all from log.txt."""
    log = (folder / "log.txt").read_text("utf-8", errors="replace")
    begun = [int(step.replace(",", "")) for step in re.findall(r"from step ([\d,]+) on", log)]
    seen = re.findall(r"^step ([\d,]+): evaluation (\S+)", log.rpartition("from step")[2], re.MULTILINE)
    steps = int(seen[-1][0].replace(",", "")) if seen else begun[-1] if begun else 0
    return begun[-1] if begun else 0, steps, f", evaluation {seen[-1][1]}" if seen else ""


def progress_line(run: Run, folder: Path, seconds: float) -> str:
    first, steps, evaluation = progress(folder)
    total = max(steps, run.arguments["total_timesteps"])  # PPO rounds up to whole rollouts
    left = seconds * (total - steps) / (steps - first) if steps > first else None
    time_left = "?" if left is None else f"{int(left // 3600)}:{int(left // 60 % 60):02}:{int(left % 60):02}"
    return f"{run.name}: {steps:,} of {total:,} steps{evaluation}, {time_left} left"


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def why(status: int, folder: Path) -> str:
    """Of a run that failed: what its process ended with, and said last."""
    if status < 0:
        killed = f"killed by {signal.Signals(-status).name}"
        return killed + ", perhaps for want of memory" * (-status == signal.SIGKILL) + "; start again to resume it"
    lines = (folder / "log.txt").read_text("utf-8", errors="replace").strip().splitlines()
    return f"exit status {status}: {lines[-1] if lines else 'no output'}"


def collect(run: Run, folder: Path, results: Path) -> Path:
    """Writes the result of a finished run. ValueError if it is not whole."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_dirs = [path.parent for path in folder.glob("*/args.json")]
    if not run_dirs:
        raise ValueError(f"there is no run in {folder}")
    run_dir = max(run_dirs, key=started_at)
    arguments = json.loads((run_dir / "args.json").read_text("utf-8"))
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {"train": "charts/episodic_return", "eval": "eval/episodic_return"}
    written = [(kind, tag) for kind, tag in scalars.items() if tag in events.Tags()["scalars"]]
    rows = [(event.step, kind, event.value) for kind, tag in written for event in events.Scalars(tag)]
    evaluated = [0, *sorted(step for step, kind, _ in rows if kind == "eval")]
    rollout = arguments.get("num_envs", 1) * arguments.get("num_steps", 1)
    longest = max(after - before for before, after in itertools.pairwise([*evaluated, evaluated[-1]]))
    if evaluated[-1] < arguments["total_timesteps"] or longest >= arguments["eval_interval"] + rollout:
        raise ValueError(f"evaluations are missing in {run_dir}")
    by, made_on = (json.loads((folder / f"made_{what}.json").read_text("utf-8")) for what in ("by", "on"))
    devices = re.findall(r"from step [\d,]+ on (\w+)", (folder / "log.txt").read_text("utf-8", errors="replace"))
    times = sorted(event.wall_time for tag in events.Tags()["scalars"] for event in events.Scalars(tag))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    about = {"commit": by["commit"], "code": by["code"]}
    about["arguments"] = {name: value for name, value in arguments.items() if name not in ("out_dir", "wandb_entity")}
    about |= {name: "; ".join(dict.fromkeys(on[name] for on in made_on)) for name in ("versions", "machine")}
    about["device"] = ", ".join(dict.fromkeys(devices))
    about["wall time"] = f"{sum(gap for gap in gaps if gap < 600):.0f} s"  # a longer gap is a pause
    write_result(results / f"{run.name}.csv", about, rows)
    return results / f"{run.name}.csv"


# ---- Many runs: here, or on a cluster ----
class Signals:
    """Counts Ctrl-C, SIGTERM, and the end of the terminal, unless nohup has it ignored."""

    def __init__(self):
        self.count, self.told = 0, 0
        self.listen()

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.receive)

    def receive(self, *_) -> None:
        self.count += 1  # and nothing else: a signal may come in the middle of a print

    def news(self) -> int:
        """The count, if it has risen since the last call, else 0."""
        if self.told == self.count:
            return 0
        self.told = self.count
        say("stopping: each run writes a checkpoint; once more kills them" if self.told == 1 else "killing", error=True)
        return self.told


def run_here(runs: list[Run], options: argparse.Namespace, signals: Signals, lock: int):
    """Yields (run, exit status) as runs end; at most options.workers at a time."""
    waiting, active, told = list(runs), {}, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        scripts = Path(name)
        copy_scripts(scripts)
        while active or (waiting and not signals.count):
            while waiting and len(active) < options.workers and not signals.count:
                run = waiting.pop(0)
                folder = options.runs / run.name
                try:
                    prepare(run, folder, scripts)
                    active[run] = start(run, folder, scripts, options.track, (lock,)), time.monotonic()
                    say(f"{run.name}: started, see {folder / 'log.txt'}")
                except (OSError, ImportError) as error:  # a full disk, a package that is not there: the others go on
                    yield run, f"cannot be started: {first_line(error)}"
            if count := signals.news():
                for process, _ in active.values():
                    os.killpg(process.pid, signal.SIGTERM if count == 1 else signal.SIGKILL)
            for run, (process, _) in list(active.items()):
                if process.poll() is not None:
                    del active[run]
                    yield run, process.returncode
            if time.monotonic() - told > options.progress:
                told = time.monotonic()
                for run, (_, begun) in active.items():
                    say(progress_line(run, options.runs / run.name, told - begun))
            time.sleep(0.2)


class Keeper:
    """An actor on the machine that asked for the runs: keeps what they wrote, and says how far they are."""

    def __init__(self, folder: Path):
        self.folder, self.lines = folder, {}

    def files(self, name: str) -> dict[str, bytes]:
        paths = (path for path in (self.folder / name).rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder / name)): path.read_bytes() for path in paths}

    def keep(self, name: str, files: dict[str, bytes]) -> None:
        unpack(files, self.folder / name)

    def say(self, name: str, line: str) -> None:
        self.lines[name] = line

    def said(self) -> dict[str, str]:
        return self.lines


def unpack(files: dict[str, bytes], folder: Path) -> None:
    """The checkpoint is written last: what is cut off in the middle has events that reach at least as far."""
    for name, content in sorted(files.items(), key=lambda file: file[0].endswith("checkpoint.pt")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".part").write_bytes(content)
        path.with_name(path.name + ".part").replace(path)


def pack(folder: Path) -> dict[str, bytes]:
    """The checkpoint is read before the events, which must reach at least as far."""
    paths, files = [path for path in folder.rglob("*") if path.suffix not in (".tmp", ".part")], {}
    for path in sorted(paths, key=lambda path: path.name != "checkpoint.pt"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # Weights & Biases' own come and go
            files[str(path.relative_to(folder))] = path.read_bytes()
    return files


def run_there(run: Run, options: argparse.Namespace, keeper) -> int:
    """A task on some machine of the cluster; the scripts are in its working directory. Returns the exit status."""
    import ray

    # a task that waits in its own thread gives its core away meanwhile
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(1) as thread:
        folder, kept, begun = Path(name), None, time.monotonic()
        unpack(thread.submit(ray.get, keeper.files.remote(run.name)).result(), folder)
        process = start(run, folder, Path.cwd(), options.track)
        try:
            while process.poll() is None:
                time.sleep(1)
                written = {path: path.stat().st_mtime_ns for path in folder.glob("*/checkpoint.pt")}
                if written != kept:
                    thread.submit(ray.get, keeper.keep.remote(run.name, pack(folder))).result()
                    kept = written
                keeper.say.remote(run.name, progress_line(run, folder, time.monotonic() - begun))
        except KeyboardInterrupt:  # ray.cancel
            process.terminate()
            process.wait()
        finally:
            process.kill()
        thread.submit(ray.get, keeper.keep.remote(run.name, pack(folder))).result()
        return process.returncode


def run_on_ray(runs: list[Run], options: argparse.Namespace, signals: Signals, _):
    """Yields (run, exit status or error) as runs end, as many at a time as the cluster has room for."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with tempfile.TemporaryDirectory() as scripts:
        copy_scripts(Path(scripts))
        quiet = {"log_to_driver": False, "logging_level": "WARNING"}
        try:
            ray.init(address=options.ray, runtime_env={"working_dir": scripts}, **quiet)
        except (ConnectionError, ValueError) as error:
            sys.exit(f"--ray {options.ray}: {first_line(error)}")
        signals.listen()  # again: Ray has put its own handler of SIGTERM there
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        keeper = ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here).remote(options.runs.resolve())
        needs = {"num_gpus": options.gpus_per_run, "max_retries": options.retries}
        tasks = {}
        for run in runs:
            try:
                prepare(run, options.runs / run.name, Path(scripts))
            except OSError as error:
                yield run, f"cannot be started: {first_line(error)}"
                continue
            threads = run.arguments.get("torch_threads", 1)
            tasks[ray.remote(run_there).options(num_cpus=threads, **needs).remote(run, options, keeper)] = run
        told = time.monotonic()
        while tasks:
            ended, _ = ray.wait(list(tasks), timeout=0.5)
            for task in ended:
                run = tasks.pop(task)
                try:
                    yield run, ray.get(task)
                except ray.exceptions.TaskCancelledError:
                    yield run, STOPPED
                except ray.exceptions.RayTaskError as error:
                    yield run, str(error).strip().splitlines()[-1]
                except ray.exceptions.RayError as error:
                    yield run, first_line(error)
            if count := signals.news():
                for task in tasks:
                    ray.cancel(task, force=count > 1)
            if time.monotonic() - told > options.progress:
                told = time.monotonic()
                waited_for = {run.name for run in tasks.values()}
                for name, line in ray.get(keeper.said.remote()).items():
                    if name in waited_for:
                        say(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=Path, default=BENCHMARK / "experiments.toml", help="the grid")
    parser.add_argument("--results", type=Path, default=BENCHMARK / "results", help="folder of the results")
    parser.add_argument("--runs", type=Path, default=BENCHMARK / "runs", help="folder of the runs themselves")
    parser.add_argument("--only", nargs="+", default=[], help="words that /name/ of a run must have, all of them")
    parser.add_argument(
        "--redo-changed", action="store_true", help="also runs whose result other code or arguments made"
    )
    parser.add_argument("--list", action="store_true", help="print the runs and how far they are, and stop")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time on this machine")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on this Ray cluster instead; auto: the one found here")
    parser.add_argument("--gpus-per-run", type=float, default=0, help="of a Ray cluster; 0.25: four runs share one")
    parser.add_argument("--retries", type=int, default=10, help="of a run whose machine is lost")
    parser.add_argument("--track", action="store_true", help="send all to Weights & Biases, grouped by row, with tags")
    parser.add_argument("--progress", type=float, default=60, help="seconds between two lines of each run")
    options = parser.parse_args()
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    options.runs, options.results = options.runs.resolve(), options.results.resolve()
    try:
        runs = grid(options.experiments)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    runs = [run for run in runs if all(word in f"/{run.name}/" for word in options.only)]
    if not runs:
        parser.error("no run has all words of --only; --list shows the names")
    if options.ray and importlib.util.find_spec("ray") is None:
        parser.error("--ray needs benchmark/requirements.txt: install it")
    have = {run: options.results / f"{run.name}.csv" for run in runs}
    try:
        have = {run: read_result(path)[0] for run, path in have.items() if path.exists()}
    except ValueError as error:
        parser.error(str(error))
    changed = {run for run, about in have.items() if has_changed(run, about)}
    left = [run for run in runs if run not in have or (options.redo_changed and run in changed)]
    if options.list:
        for run in runs:
            begun = (options.runs / run.name / "log.txt").exists()
            state = f"begun, {progress(options.runs / run.name)[1]:,} steps" if begun else "to do"
            finished = "finished" + ", but by other code or arguments" * (run in changed)
            say(f"{run.name}: {finished if run in have else state}")
        return 0
    say(f"{len(runs)} runs, {len(have)} finished before, {len(changed)} of them by other code or arguments")
    if not left:
        say("all are finished; --redo-changed repeats those by other code or arguments, a CSV that is deleted one run")
        return 0

    options.runs.mkdir(parents=True, exist_ok=True)
    signals, finished, failed = Signals(), 0, {}
    with open(options.runs / "lock", "w") as lock:  # the runs hold it too
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error(f"another run.py, or a run that it left behind, is at work in {options.runs}")
        for run, status in (run_on_ray if options.ray else run_here)(left, options, signals, lock.fileno()):
            folder = options.runs / run.name
            if status == 0:
                try:
                    say(f"{run.name}: finished, {collect(run, folder, options.results)}")
                    finished += 1
                    continue
                except (OSError, ValueError, KeyError) as error:
                    status = f"no result: {error!r}"
            elif signals.count > 1 or (signals.count and status in (STOPPED, -signal.SIGTERM, -signal.SIGKILL)):
                say(f"{run.name}: stopped")
                if (folder / "log.txt").exists():
                    with open(folder / "log.txt", "a") as log:  # its last line names a copy of the script that is gone
                        print("stopped with the grid: start run.py again to go on", file=log)
                continue
            failed[run] = f"{why(status, folder) if isinstance(status, int) else status} ({folder / 'log.txt'})"
            say(f"{run.name}: FAILED, {failed[run]}", error=True)
    say(f"{finished} finished, {len(failed)} failed, {len(left) - finished - len(failed)} left")
    for run, reason in failed.items():
        say(f"failed: {run.name}: {reason}", error=True)
    return 1 if failed else 128 + signal.SIGINT if signals.count else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
