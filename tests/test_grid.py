"""The benchmark's grid, runner and report, piece by piece, without a training."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmark"))
import grid  # noqa: E402
import run as runner  # noqa: E402

ARGUMENTS = {"total_timesteps": 5_000, "num_envs": 2, "num_steps": 512, "num_minibatches": 8}
RUN = grid.Run("ppo_continuous", "Pendulum-v1", "", 3, ARGUMENTS)
SOURCE = (ROOT / "ppo_continuous.py").read_text("utf-8")


# ---- What a result depends on ----
def test_what_makes_a_result_an_old_one():
    """Other code, another value of an argument, or one that it did not have; not what only shows or times a run."""
    about = grid.made_by(RUN, SOURCE)
    assert not grid.has_changed(RUN, about)
    assert not grid.has_changed(RUN, about | {"arguments": about["arguments"] | {"an_argument_that_is_gone": 1}})
    assert grid.has_changed(RUN, about | {"code": "000000000000"})
    for name, value in (("gamma", 0.9), ("seed", 4), ("env_id", "Hopper-v5"), ("total_timesteps", 5_000)):
        assert grid.has_changed(RUN, about | {"arguments": about["arguments"] | {name: value}}), name
    less = {name: value for name, value in about["arguments"].items() if name != "gamma"}
    assert grid.has_changed(RUN, about | {"arguments": less})
    shown = {**ARGUMENTS, "log_interval": 5, "compile": True, "torch_threads": 2, "checkpoint_interval": 7}
    assert not grid.has_changed(grid.Run("ppo_continuous", "Pendulum-v1", "", 3, shown), about)


def test_steps_of_ppo_are_those_of_whole_rollouts():
    """Of 2 * 512: 5,000 become 5,120, which its args.json will have."""
    assert grid.made_by(RUN, SOURCE)["arguments"]["total_timesteps"] == 5_120
    td3 = grid.Run("td3", "Pendulum-v1", "", 1, {"total_timesteps": 5_000})
    assert grid.made_by(td3, (ROOT / "td3.py").read_text("utf-8"))["arguments"]["total_timesteps"] == 5_000


def test_results_are_in_the_order_of_their_steps(tmp_path):
    rows = [(20, "train", 2.0), (10, "train", 1.0), (10, "eval", 3.0)]
    grid.write_result(tmp_path / "1.csv", {"arguments": {}}, rows)
    assert grid.read_result(tmp_path / "1.csv")[1] == [(10, "eval", 3.0), (10, "train", 1.0), (20, "train", 2.0)]


# ---- One run ----
@pytest.fixture
def scripts(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "ppo_continuous.py").write_text(SOURCE)
    (folder / "commits.json").write_text(json.dumps({"ppo_continuous": "abc"}))
    return folder


def test_folder_of_a_run_of_other_code_or_arguments_is_put_by(tmp_path, scripts):
    folder = tmp_path / "runs" / "3"
    runner.prepare(RUN, folder, scripts)
    made = json.loads((folder / "made_by.json").read_text())
    assert made == {"commit": "abc", **grid.made_by(RUN, SOURCE)}
    (folder / "kept").touch()
    runner.prepare(RUN, folder, scripts)
    assert (folder / "kept").exists() and len(list(folder.parent.iterdir())) == 1
    (scripts / "ppo_continuous.py").write_text(SOURCE.replace("(1 - terminated)", "terminated"))
    runner.prepare(RUN, folder, scripts)
    assert not (folder / "kept").exists()
    [put_by] = folder.parent.glob("3.old-*")
    assert (put_by / "kept").exists()
    runner.prepare(grid.Run("ppo_continuous", "Pendulum-v1", "", 3, {**ARGUMENTS, "gamma": 0.5}), folder, scripts)
    assert len(list(folder.parent.glob("3.old-*"))) == 2


def test_command_of_a_run_that_begins_and_of_one_that_goes_on(tmp_path):
    """The last of several with a checkpoint goes on, by the time in its name, whatever the order of their files."""
    run = grid.Run("sac_continuous", "Hopper-v5", "", 3, {"total_timesteps": 10, "autotune": False, "compile": True})
    script = [sys.executable, str(Path("scripts", "sac_continuous.py"))]
    begins = runner.command(run, Path("scripts"), tmp_path, track=False)
    assert begins[:2] == script
    flags = f"--env-id Hopper-v5 --seed 3 --total-timesteps 10 --no-autotune --compile --out-dir {tmp_path}"
    assert " ".join(begins[2:]) == flags
    assert runner.command(run, Path("scripts"), tmp_path, track=True)[-1] == "--track"
    for time in (9, 1_000, 30):
        folder = tmp_path / f"Hopper-v5__sac_continuous__3__{time}"
        folder.mkdir()
        (folder / "checkpoint.pt").touch()
    (tmp_path / "Hopper-v5__sac_continuous__3__2000").mkdir()  # killed before its first checkpoint
    last = str(tmp_path / "Hopper-v5__sac_continuous__3__1000")
    assert runner.command(run, Path("scripts"), tmp_path, track=False) == [*script, "--resume", last]


def test_commit_says_where_a_script_has_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    assert runner.commit_of("td3") == "unknown"
    author = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    (tmp_path / "td3.py").write_text("1")
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert re.fullmatch("[0-9a-f]{40}", runner.commit_of("td3"))
    (tmp_path / "td3.py").write_text("2")
    assert re.fullmatch("[0-9a-f]{40} with changes", runner.commit_of("td3"))


def test_progress_after_a_resume(tmp_path):
    """From 2,000 to 3,000 of 5,000 steps in 60 seconds: two minutes are left."""
    log = (
        "from step 0 on cpu\nstep 1,000: evaluation 1.0 ± 0\nfrom step 2,000 on cpu\nstep 3,000: evaluation -7.5 ± 1\n"
    )
    (tmp_path / "log.txt").write_text(log)
    line = "ppo_continuous/Pendulum-v1/3: 3,000 of 5,000 steps, evaluation -7.5, 0:02:00 left"
    assert runner.progress_line(RUN, tmp_path, 60) == line
    (tmp_path / "log.txt").write_text("from step 2,000 on cpu\n")
    assert runner.progress_line(RUN, tmp_path, 60) == "ppo_continuous/Pendulum-v1/3: 2,000 of 5,000 steps, ? left"


def finished(folder: Path, evaluated: list[int]) -> None:
    """What a run leaves: evaluations at these steps, of which each takes a second, and an hour's pause after 200."""
    from torch.utils.tensorboard import SummaryWriter

    run_dir = folder / "Pendulum-v1__td3__1__5"
    run_dir.mkdir(parents=True)
    arguments = {"total_timesteps": 500, "eval_interval": 100, "out_dir": str(folder), "gamma": 0.9}
    (run_dir / "args.json").write_text(json.dumps(arguments))
    with SummaryWriter(run_dir) as writer:
        for step in evaluated:
            wall_time = 1e9 + step + 3600 * (step > 200)
            writer.add_scalar("eval/episodic_return", step / 2, step, walltime=wall_time)
            writer.add_scalar("charts/episodic_return", -step, step, walltime=wall_time)
    (folder / "made_by.json").write_text(json.dumps({"commit": "abc", "code": "123"}))
    (folder / "made_on.json").write_text(json.dumps([{"versions": "v", "machine": m} for m in ("one", "two", "one")]))
    (folder / "log.txt").write_text("from step 0 on cpu\nfrom step 200 on cuda\n")


def test_result_of_a_finished_run(tmp_path):
    """Its returns, where it ran, and the time without its pauses."""
    run = grid.Run("td3", "Pendulum-v1", "", 1, {"total_timesteps": 500})
    finished(tmp_path / "run", [100, 200, 300, 400, 500])
    path = runner.collect(run, tmp_path / "run", tmp_path / "results")
    assert path == tmp_path / "results" / "td3" / "Pendulum-v1" / "1.csv"
    about, rows = grid.read_result(path)
    steps = [100, 200, 300, 400, 500]
    assert rows == sorted([(s, "eval", s / 2) for s in steps] + [(s, "train", float(-s)) for s in steps])
    assert (about["commit"], about["code"], about["machine"], about["device"]) == (
        "abc",
        "123",
        "one; two",
        "cpu, cuda",
    )
    assert about["wall time"] == "300 s" and about["arguments"]["gamma"] == 0.9 and "out_dir" not in about["arguments"]


def test_result_has_every_episode_of_a_long_run(tmp_path):
    """TensorBoard's reader would draw 10,000 of them by chance."""
    from torch.utils.tensorboard import SummaryWriter

    run = grid.Run("td3", "Pendulum-v1", "", 1, {"total_timesteps": 500})
    finished(tmp_path / "run", [100, 200, 300, 400, 500])
    with SummaryWriter(tmp_path / "run" / "Pendulum-v1__td3__1__5", filename_suffix=".more") as writer:
        for number in range(10_001):
            writer.add_scalar("charts/episodic_return", 1.0, 500, walltime=1e9 + 5_000 + number)
    _, rows = grid.read_result(runner.collect(run, tmp_path / "run", tmp_path / "results"))
    assert len(rows) == 10 + 10_001


@pytest.mark.parametrize("evaluated", [[100, 200, 300, 400], [100, 200, 400, 500], [200, 300, 400, 500]])
def test_run_without_all_of_its_evaluations_has_no_result(tmp_path, evaluated):
    run = grid.Run("td3", "Pendulum-v1", "", 1, {"total_timesteps": 500})
    finished(tmp_path / "run", evaluated)
    with pytest.raises(ValueError, match="evaluations are missing"):
        runner.collect(run, tmp_path / "run", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_files_are_packed_and_unpacked_so_that_events_reach_as_far_as_the_checkpoint(tmp_path):
    """The checkpoint is read first and written last; what is being written is left out."""
    (tmp_path / "one" / "run").mkdir(parents=True)
    for name in ("args.json", "checkpoint.pt", "events.1", "zzz", "checkpoint.tmp", "half.part"):
        (tmp_path / "one" / "run" / name).write_text(name)
    files = runner.pack(tmp_path / "one")
    assert next(iter(files)) == "run/checkpoint.pt"
    assert set(files) == {f"run/{name}" for name in ("args.json", "checkpoint.pt", "events.1", "zzz")}
    written, replace = [], Path.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: written.append(target.name) or replace(self, target))
        runner.unpack(files, tmp_path / "two")
    assert written[-1] == "checkpoint.pt" and len(written) == 4
    assert (tmp_path / "two" / "run" / "zzz").read_text() == "zzz"


# ---- Many runs ----
def test_no_more_runs_than_workers_and_each_once(tmp_path, monkeypatch):
    """Ten runs that end after three looks, by two workers; the third cannot be started, and the others go on."""
    running, most = set(), []

    class Process:
        def __init__(self, name):
            self.name, self.looks, self.returncode = name, 0, 0

        def poll(self):
            self.looks += 1
            if self.looks == 3:
                running.discard(self.name)
                return 0
            return None

    def start(run, folder, scripts, track, kept_open):
        if run.seed == 3:
            raise OSError("no space left")
        running.add(run.name)
        most.append(len(running))
        return Process(run.name)

    monkeypatch.setattr(runner, "start", start)
    monkeypatch.setattr(runner, "copy_scripts", lambda folder: None)
    monkeypatch.setattr(runner, "prepare", lambda *_: None)
    monkeypatch.setattr(runner.time, "sleep", lambda _: None)
    runs = [grid.Run("td3", "Pendulum-v1", "", seed, {"total_timesteps": 5}) for seed in range(1, 11)]
    options = argparse.Namespace(workers=2, runs=tmp_path, track=False, progress=1e9)
    signals = types.SimpleNamespace(count=0, news=lambda: 0)
    ended = dict(runner.run_here(runs, options, signals, 0))
    assert max(most) == 2 and not running
    assert ended == {run: "cannot be started: no space left" if run.seed == 3 else 0 for run in runs}


def test_threads_of_a_run_are_those_of_its_arguments(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(runner, "command", lambda *_: ["true"])
    monkeypatch.setattr(runner.subprocess, "Popen", lambda line, env, **_: seen.update(env))
    runner.start(grid.Run("td3", "Pendulum-v1", "few", 1, {"torch_threads": 3}), tmp_path, tmp_path, False)
    assert (seen["OMP_NUM_THREADS"], seen["WANDB_RUN_GROUP"]) == ("3", "variants/td3/Pendulum-v1__few")
    runner.start(grid.Run("td3", "Pendulum-v1", "", 1, {}), tmp_path, tmp_path, False)
    assert (seen["OMP_NUM_THREADS"], seen["WANDB_TAGS"]) == ("1", "benchmark,td3,Pendulum-v1")
    [here] = json.loads((tmp_path / "made_on.json").read_text())  # the same machine is named once
    there = {"versions": "others", "machine": "another"}
    (tmp_path / "made_on.json").write_text(json.dumps([there]))
    runner.start(grid.Run("td3", "Pendulum-v1", "", 1, {}), tmp_path, tmp_path, False)
    assert json.loads((tmp_path / "made_on.json").read_text()) == [there, here], "where it began, and where it went on"


def listed(*flags: str) -> list[str]:
    command = [sys.executable, ROOT / "benchmark" / "run.py", "--list", *flags]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def test_only_takes_runs_with_all_of_its_words():
    names = {line.partition(":")[0] for line in listed("--only", "/td3/", "Hopper-v5")}
    expected = {run.name for run in grid.grid(ROOT / "benchmark" / "experiments.toml")}
    assert names == {name for name in expected if "td3/" in f"/{name}/" and "Hopper-v5" in name} and names < expected
    assert listed("--only", "nothing/of/this") == []


def test_why_a_run_failed(tmp_path):
    (tmp_path / "log.txt").write_text("Traceback\nno such environment\n\n")
    assert runner.why(2, tmp_path) == "exit status 2: no such environment"
    assert "SIGKILL, perhaps for want of memory" in runner.why(-signal.SIGKILL, tmp_path)
    assert "memory" not in runner.why(-signal.SIGSEGV, tmp_path)


def test_signals_are_told_once_each():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signals = runner.Signals()
        assert signals.news() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert [signals.news(), signals.news()] == [1, 0]
        os.kill(os.getpid(), signal.SIGINT)
        assert [signals.news(), signals.news()] == [2, 0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- Speed ----
def test_speed_is_that_after_the_warm_up_on_as_many_cores_as_threads(monkeypatch):
    """A second a step until 1,000, then a tenth of one: 10 steps per second, whatever came before."""
    import speed
    from torch.utils.tensorboard import SummaryWriter

    held = []

    def run(command, preexec_fn, cwd, **_):
        preexec_fn()
        with SummaryWriter(Path(cwd, "Hopper-v5__td3__1__1")) as writer:
            for step in range(100, 3_001, 100):
                wall_time = 1e9 + min(step, 1_000) + max(0, step - 1_000) / 10
                writer.add_scalar("charts/SPS", 0, step, walltime=wall_time)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(speed.subprocess, "run", run)
    monkeypatch.setattr(speed.os, "sched_getaffinity", lambda _: {2, 5, 7}, raising=False)
    monkeypatch.setattr(speed.os, "sched_setaffinity", lambda _, cores: held.append(cores), raising=False)
    assert speed.measure("td3", "PlainRL", 1, 2_000, False) == pytest.approx(10)
    assert speed.measure("td3", "PlainRL", 2, 2_000, False) == pytest.approx(10)
    assert held == [[2], [2, 5]]


# ---- Report and plot ----
def row_of(monkeypatch, tmp_path, lengths: dict[int, int], changed: set[int]):
    """A row of three seeds of 100 steps; lengths: what of them is finished."""
    import report

    runs = [grid.Run("td3", "Pendulum-v1", "", seed, {"total_timesteps": 100}) for seed in (1, 2, 3)]
    for run in runs:
        if run.seed in lengths:
            rows = [(step, "eval", float(step)) for step in range(10, lengths[run.seed] + 1, 10)]
            grid.write_result(tmp_path / f"{run.name}.csv", {"arguments": {}}, rows)
    monkeypatch.setattr(report, "has_changed", lambda run, about: run.seed in changed)
    return report.Row(runs, tmp_path)


@pytest.mark.benchmark
def test_row_has_whole_seeds_only_and_a_mark_where_one_is_old(monkeypatch, tmp_path, capsys):
    row = row_of(monkeypatch, tmp_path, {1: 100, 3: 90}, changed={3})
    assert (len(row.seeds), row.num_seeds, row.mark) == (1, 3, " †")
    assert "fewer than 100 steps: td3/Pendulum-v1/3" in capsys.readouterr().err
    row = row_of(monkeypatch, tmp_path, {1: 100, 2: 100, 3: 100}, changed=set())
    assert (len(row.seeds), row.mark) == (3, "")
    assert row.curve(4)[0] == [10, 20, 50, 100] and row.curve(4)[1].shape == (3, 4)


@pytest.mark.benchmark
def test_published_figures_of_more_steps_or_of_training_are_not_drawn(monkeypatch, tmp_path):
    import report

    row = row_of(monkeypatch, tmp_path, {1: 100}, changed=set())
    figure = {"script": "td3", "environment": "Pendulum-v1", "metric": "eval", "steps": 100}
    others = [{"steps": 101}, {"metric": "train"}, {"script": "ddpg"}, {"environment": "Hopper-v5"}]
    published = {"figures": [figure, *(figure | other for other in others)]}
    assert report.figures_of([row], published) == [figure]


@pytest.mark.benchmark
def test_ratio_of_speeds_is_the_median_of_the_rounds_ratios(monkeypatch, tmp_path):
    """Ratios of 2, 3 and 0.6: 2. The ratio of the medians is 3."""
    import report

    (tmp_path / "results" / "speed").mkdir(parents=True)
    rounds = [{"PlainRL": a, "SB3": b} for a, b in ((100, 50), (300, 100), (600, 1_000))]
    measured = {"machine": "m", "versions": "v", "device": "cpu", "code": "x", "rounds": {"1": rounds}}
    (tmp_path / "results" / "speed" / "td3.json").write_text(json.dumps(measured))
    monkeypatch.setattr(report, "BENCHMARK", tmp_path)
    line = next(line for line in report.speed_table().splitlines() if line.startswith("| td3"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "td3 †",
        "1",
        "300 (100 to 600)",
        "100 (50 to 1,000)",
        "2.00",
    ]


@pytest.mark.benchmark
def test_curve_is_between_the_evaluations_that_all_seeds_have():
    """Seeds at other steps are read off their lines, from the last of the starts to the first of the ends."""
    import numpy as np
    import plot

    def made(steps, returns):
        run = object.__new__(plot.Run)
        run.script, run.env_id, run.args = "td3", "Task-v0", {}
        run.steps, run.returns = np.array(steps), np.array(returns, float)
        return run

    curve = plot.Curve([made([10, 20, 30], [0, 10, 20]), made([15, 25], [100, 200])], hours=False)
    assert curve.x.tolist() == [15, 20, 25]
    assert curve.values.tolist() == [[5, 10, 15], [100, 150, 200]]


@pytest.mark.benchmark
def test_band_of_five_seeds_is_an_interval_and_of_four_their_range():
    import numpy as np
    import plot

    for seeds, is_range in ((5, False), (4, True)):
        panel = plot.plt.figure().subplots()
        values = np.array([0.0, 1, 2, 3, 100])[-seeds:, None].repeat(3, 1)
        plot.draw_curve(panel, [1, 2, 3], values, "", "C0")
        band = panel.collections[0].get_paths()[0].vertices[:, 1]
        assert ((band.min(), band.max()) == (values.min(), values.max())) == is_range
        assert band.min() <= np.median(values) <= band.max()
