"""The benchmark's grid, runner and report, piece by piece, without a training."""

import argparse
import importlib
import itertools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import types
from importlib.metadata import PackageNotFoundError, version
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
    shown = {**ARGUMENTS, "log_interval": 5, "compile": True, "torch_threads": 2}
    assert not grid.has_changed(grid.Run("ppo_continuous", "Pendulum-v1", "", 3, shown), about)
    show_or_time = {"cuda", "torch_threads", "compile", "cudagraphs", "track", "wandb_project", "wandb_entity"}
    show_or_time |= {"capture_video", "log_interval", "resume", "evaluate", "out_dir"}
    for name in grid.defaults(SOURCE):
        other = about | {"arguments": about["arguments"] | {name: "another value"}}
        assert grid.has_changed(RUN, other) == (name not in show_or_time), name


def test_argument_that_is_off_by_default_and_came_later_makes_no_result_an_old_one():
    """target_kl is None by default: a run that did not have it yet did the same, but not as one that is given it."""
    about = grid.made_by(RUN, SOURCE)
    less = about | {"arguments": {name: value for name, value in about["arguments"].items() if name != "target_kl"}}
    assert len(less["arguments"]) == len(about["arguments"]) - 1
    assert not grid.has_changed(RUN, less)
    given = grid.Run("ppo_continuous", "Pendulum-v1", "", 3, {**ARGUMENTS, "target_kl": 0.02})
    assert grid.has_changed(given, less)


def test_steps_of_ppo_are_those_of_whole_rollouts():
    """Of 2 * 512: 5,000 become 5,120, which its args.json will have."""
    assert grid.made_by(RUN, SOURCE)["arguments"]["total_timesteps"] == 5_120
    td3 = grid.Run("td3", "Pendulum-v1", "", 1, {"total_timesteps": 5_000})
    assert grid.made_by(td3, (ROOT / "td3.py").read_text("utf-8"))["arguments"]["total_timesteps"] == 5_000


def test_rollouts_of_ppo_have_the_script_s_own_sizes_where_none_are_given():
    """4 * 128 of ppo_discrete: 500,000 become 500,224; 1 * 2,048 of ppo_continuous: 1,000,000 become 1,001,472."""
    for script, steps, whole in (("ppo_discrete", 500_000, 500_224), ("ppo_continuous", 1_000_000, 1_001_472)):
        run = grid.Run(script, "CartPole-v1", "", 1, {"total_timesteps": steps})
        made = grid.made_by(run, (ROOT / f"{script}.py").read_text("utf-8"))
        assert made["arguments"]["total_timesteps"] == whole


def test_results_are_in_the_order_of_their_steps(tmp_path):
    """With three digits of each return, and what it was made on as it is, colons and all."""
    rows = [(20, "train", 2.0), (10, "train", 0.1234), (10, "eval", 3.0)]
    grid.write_result(tmp_path / "1.csv", {"arguments": {}, "machine": "one: a; two: b"}, rows)
    about, read = grid.read_result(tmp_path / "1.csv")
    assert read == [(10, "eval", 3.0), (10, "train", 0.123), (20, "train", 2.0)]
    assert about == {"arguments": {}, "machine": "one: a; two: b"}


@pytest.mark.parametrize("row", ["20,tra", "20,train,", "2x,train,1.0", "20,train,many"])
def test_result_that_is_cut_off_is_none(tmp_path, row):
    (tmp_path / "1.csv").write_text(f'# arguments: {{"seed": 1}}\nstep,kind,return\n10,train,1.000\n{row}\n')
    with pytest.raises(ValueError, match=r"1\.csv is not a result"):
        grid.read_result(tmp_path / "1.csv")


def test_result_stays_whole_on_a_full_disk(tmp_path, monkeypatch):
    """The files of a run too: the old one is there until the new one is written."""
    grid.write_result(tmp_path / "1.csv", {"arguments": {}}, [(10, "train", 1.0)])
    runner.write_json(tmp_path / "made_on.json", [1])
    write_text = Path.write_text

    def write_half(self, text, encoding):
        write_text(self, text[: len(text) // 2], encoding)
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="no space"):
        grid.write_result(tmp_path / "1.csv", {"arguments": {}}, [(20, "train", 2.0)])
    with pytest.raises(OSError, match="no space"):
        runner.write_json(tmp_path / "made_on.json", [1, 2])
    assert grid.read_result(tmp_path / "1.csv")[1] == [(10, "train", 1.0)]
    assert json.loads((tmp_path / "made_on.json").read_text()) == [1]


# ---- The grid ----
THREE = """
[[experiments]]
script = "td3"
environments = ["Pendulum-v1"]
seeds = 3
arguments = { total_timesteps = 500 }
"""
ENTRY = {"script": "td3", "environments": ["Pendulum-v1"], "seeds": 2, "arguments": {"total_timesteps": 500}}


def test_runs_of_an_experiment_are_its_environments_with_its_seeds():
    """A name is a folder: the slash of ALE's ids is none of a path."""
    entry = {**ENTRY, "environments": ["ALE/Pong-v5", "Hopper-v5"], "seeds": [3, 0]}
    assert [run.name for run in grid.runs_of(entry)] == [
        f"td3/{e}/{s}" for e in ("ALE-Pong-v5", "Hopper-v5") for s in (3, 0)
    ]
    assert [run.env_id for run in grid.runs_of(entry)] == ["ALE/Pong-v5"] * 2 + ["Hopper-v5"] * 2
    variant = grid.runs_of({**ENTRY, "environments": ["ALE/Pong-v5"], "variant": "few"})
    assert [run.name for run in variant] == [f"variants/td3/ALE-Pong-v5__few/{seed}" for seed in (1, 2)]


@pytest.mark.parametrize(
    "wrong, message",
    [
        *(
            ({"arguments": {"total_timesteps": 5, name: "a"}}, f"{name} is set by run.py")
            for name in ("env_id", "seed", "track", "resume", "evaluate", "out_dir")
        ),
        ({"arguments": [500]}, "total_timesteps is missing"),
        ({"environments": []}, "environments is a list"),
        ({"environments": ["Hopper-v5", 1]}, "environments is a list"),
        *(({"seeds": seeds}, "seeds is their number") for seeds in (True, 2.0, [], [1, -1], [True], "12")),
    ],
)
def test_experiment_that_cannot_be_run_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        grid.runs_of(ENTRY | wrong)


def test_types_of_arguments_are_those_of_their_defaults():
    """An integer is a number, True is none; what has no default takes any number or word."""
    for default, alike, others in (
        (1, [2, 0], [2.0, True, "2"]),
        (0.5, [1.5, 1], [True, "1"]),
        (False, [True], [1, 0.0, "yes"]),
        ("a", ["b"], [1, True]),
        (None, [1, 0.5, "a"], [[1]]),
    ):
        assert all(grid.is_like(value, default) for value in alike), default
        assert not any(grid.is_like(value, default) for value in others), default


def test_grid_says_which_of_its_experiments_is_wrong(tmp_path):
    (tmp_path / "grid.toml").write_text(THREE + THREE.replace("seeds = 3", "seeds = 0"))
    with pytest.raises(ValueError, match=r"grid\.toml: experiment 2: seeds is"):
        grid.grid(tmp_path / "grid.toml")
    for experiments in ("[1]", "1"):
        (tmp_path / "grid.toml").write_text(f"experiments = {experiments}")
        with pytest.raises(ValueError, match="no list of"):
            grid.grid(tmp_path / "grid.toml")


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
    (scripts / "commits.json").write_text(json.dumps({"ppo_continuous": "another, of the same mathematics"}))
    runner.prepare(RUN, folder, scripts)
    assert (folder / "kept").exists() and len(list(folder.parent.iterdir())) == 1
    (scripts / "ppo_continuous.py").write_text(SOURCE.replace("(1 - terminated)", "terminated"))
    runner.prepare(RUN, folder, scripts)
    assert not (folder / "kept").exists()
    [put_by] = folder.parent.glob("3.old-*")
    assert (put_by / "kept").exists()
    runner.prepare(grid.Run("ppo_continuous", "Pendulum-v1", "", 3, {**ARGUMENTS, "gamma": 0.5}), folder, scripts)
    assert len(list(folder.parent.glob("3.old-*"))) == 2
    for broken in ("{", None):  # of who knows what
        (folder / "made_by.json").unlink()
        if broken:
            (folder / "made_by.json").write_text(broken)
        runner.prepare(RUN, folder, scripts)
        assert json.loads((folder / "made_by.json").read_text())["commit"].startswith("another")
    assert len(list(folder.parent.glob("3.old-*"))) == 4


def test_command_of_a_run_that_begins_and_of_one_that_goes_on(tmp_path, capsys):
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
    for tracked, said in ((True, ""), (False, f"{run.name}: was begun without --track, and goes on without\n")):
        Path(last, "args.json").write_text(json.dumps({"track": tracked}))
        assert runner.command(run, Path("scripts"), tmp_path, track=True) == [*script, "--resume", last]
        assert capsys.readouterr().out == said


def test_commit_says_where_a_script_has_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    assert runner.commit_of("td3") == "unknown"
    author = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    (tmp_path / "td3.py").write_text("1")
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "ddpg.py").write_text("another script")
    assert re.fullmatch("[0-9a-f]{40}", runner.commit_of("td3"))
    (tmp_path / "td3.py").write_text("2")
    assert re.fullmatch("[0-9a-f]{40} with changes", runner.commit_of("td3"))
    monkeypatch.setenv("PATH", "")
    assert runner.commit_of("td3") == "unknown", "there is no git"


def test_machine_is_its_processor_the_cores_that_it_lends_and_its_gpus(monkeypatch):
    """In a container the cores are fewer; /proc/cpuinfo of an ARM names no model."""
    answer = subprocess.CompletedProcess([], 0, "NVIDIA A\nNVIDIA B\n")
    monkeypatch.setattr(runner.subprocess, "run", lambda *_, **__: answer)
    monkeypatch.setattr(runner.os, "sched_getaffinity", lambda _: {2, 5, 7}, raising=False)
    monkeypatch.setattr(runner.shutil, "which", lambda _: "/bin/nvidia-smi")
    monkeypatch.setattr(runner.Path, "read_text", lambda _: "model name\t: A 1\nflags: x\nmodel name\t: A 1\n")
    assert runner.machine() == "A 1, 3 cores, NVIDIA A, NVIDIA B"
    monkeypatch.setattr(runner.shutil, "which", lambda _: None)
    assert runner.machine() == "A 1, 3 cores"
    monkeypatch.setattr(runner.Path, "read_text", lambda _: "")
    assert runner.machine().endswith(", 3 cores") and not runner.machine().startswith(",")


def test_copy_of_the_scripts_has_their_commits(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "commit_of", lambda script: f"commit of {script}")
    runner.copy_scripts(tmp_path)
    assert (tmp_path / "ppo_continuous.py").read_text("utf-8") == SOURCE
    assert {path.name for path in (ROOT / "benchmark").glob("*.py")} <= {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "commits.json").read_text())["td3"] == "commit of td3"


def test_progress_after_a_resume(tmp_path):
    """From 2,000 to 3,000 of 5,000 steps in 60 seconds: two minutes are left."""
    log = (
        "from step 0 on cpu\nstep 1,000: evaluation 1.0 ± 0\nfrom step 2,000 on cpu\nstep 3,000: evaluation -7.5 ± 1\n"
    )
    (tmp_path / "log.txt").write_text(log)
    line = "ppo_continuous/Pendulum-v1/3: 3,000 of 5,000 steps, evaluation -7.5, 0:02:00 left"
    assert runner.progress_line(RUN, tmp_path, 60) == line
    assert runner.progress_line(RUN, tmp_path, 1863).endswith(" 1:02:06 left")
    (tmp_path / "log.txt").write_text("from step 2,000 on cpu\n")
    assert runner.progress_line(RUN, tmp_path, 60) == "ppo_continuous/Pendulum-v1/3: 2,000 of 5,000 steps, ? left"
    (tmp_path / "log.txt").write_text("from step 0 on cpu\nstep 5,120: evaluation 1.0 ± 0\n")  # rollouts are whole
    line = "ppo_continuous/Pendulum-v1/3: 5,120 of 5,120 steps, evaluation 1.0, 0:00:00 left"
    assert runner.progress_line(RUN, tmp_path, 60) == line


def test_progress_leaves_out_steps_that_a_kill_has_lost(tmp_path):
    """An evaluation at 3,000, then killed, and again from its checkpoint at 2,000: there it is."""
    log = "from step 0 on cpu\nstep 3,000: evaluation 1.0 ± 0\nfrom step 2,000 on cpu\n"
    (tmp_path / "log.txt").write_text(log)
    assert runner.progress_line(RUN, tmp_path, 60) == "ppo_continuous/Pendulum-v1/3: 2,000 of 5,000 steps, ? left"


def finished(folder: Path, evaluated: list[int], episodes: bool = True) -> None:
    """What a run leaves: evaluations at these steps, of which each takes a second, and an hour's pause after 200."""
    from torch.utils.tensorboard import SummaryWriter

    run_dir = folder / "Pendulum-v1__td3__1__5"
    run_dir.mkdir(parents=True)
    arguments = {"total_timesteps": 500, "eval_interval": 100, "out_dir": str(folder), "gamma": 0.9}
    arguments["wandb_entity"] = "somebody"
    (run_dir / "args.json").write_text(json.dumps(arguments))
    with SummaryWriter(run_dir) as writer:
        for step in evaluated:
            wall_time = 1e9 + step + 3600 * (step > 200)
            writer.add_scalar("eval/episodic_return", step / 2, step, walltime=wall_time)
            if episodes:
                writer.add_scalar("charts/episodic_return", -step, step, walltime=wall_time)
    (folder / "made_by.json").write_text(json.dumps({"commit": "abc", "code": "123"}))
    (folder / "made_on.json").write_text(json.dumps([{"versions": "v", "machine": m} for m in ("one", "two", "one")]))
    (folder / "log.txt").write_text("from step 0 on cpu\nfrom step 200 on cuda\nfrom step 300 on cuda\n")


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
    assert about["wall time"] == "300 s" and about["arguments"]["gamma"] == 0.9
    assert not {"out_dir", "wandb_entity"} & about["arguments"].keys()


def test_result_is_that_of_the_last_of_several_runs(tmp_path):
    """One that was killed before its first checkpoint left its folder."""
    run = grid.Run("td3", "Pendulum-v1", "", 1, {"total_timesteps": 500})
    finished(tmp_path / "run", [100, 200, 300, 400, 500])
    for time in (4, 30):
        shutil.copytree(tmp_path / "run" / "Pendulum-v1__td3__1__5", tmp_path / "run" / f"Pendulum-v1__td3__1__{time}")
    last = tmp_path / "run" / "Pendulum-v1__td3__1__30" / "args.json"
    last.write_text(json.dumps(json.loads(last.read_text()) | {"gamma": 0.3}))
    path = runner.collect(run, tmp_path / "run", tmp_path / "results")
    assert grid.read_result(path)[0]["arguments"]["gamma"] == 0.3
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there is no run in"):
        runner.collect(run, tmp_path / "empty", tmp_path / "results")


def test_result_without_a_whole_episode_of_training_and_with_strange_bytes_in_the_log(tmp_path):
    """An episode that is longer than the run, and a simulator that writes Latin-1: evaluations are a result."""
    run = grid.Run("td3", "Pendulum-v1", "", 1, {"total_timesteps": 500})
    finished(tmp_path / "run", [100, 200, 300, 400, 500], episodes=False)
    with open(tmp_path / "run" / "log.txt", "ab") as log:
        log.write(b"caf\xe9\n")
    about, rows = grid.read_result(runner.collect(run, tmp_path / "run", tmp_path / "results"))
    assert rows == [(step, "eval", step / 2) for step in (100, 200, 300, 400, 500)]
    assert about["device"] == "cpu, cuda"


@pytest.mark.parametrize("evaluated, whole", [([128, 256, 320, 448, 512], True), ([128, 320, 448, 512], False)])
def test_evaluations_of_ppo_come_with_its_rollouts(tmp_path, evaluated, whole):
    """Of 4 * 16 steps: the first after each 100 steps; 192 from one to the next are too many."""
    finished(tmp_path / "run", evaluated)
    path = tmp_path / "run" / "Pendulum-v1__td3__1__5" / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_envs": 4, "num_steps": 16}))
    run = grid.Run("td3", "Pendulum-v1", "", 1, {"total_timesteps": 500})
    if whole:
        assert runner.collect(run, tmp_path / "run", tmp_path / "results").exists()
    else:
        with pytest.raises(ValueError, match="evaluations are missing"):
            runner.collect(run, tmp_path / "run", tmp_path / "results")


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
    (tmp_path / "one" / "run" / "latest").symlink_to("gone")
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
    """Ten runs that end after three looks, by two workers; two cannot be started, and the others go on.

    They are started in their order, from the copy of the scripts, and hold the lock.
    """
    running, most, started = set(), [], []

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
        assert (scripts / "copied").exists() and folder == tmp_path / run.name and kept_open == (7,)
        started.append(run.seed)
        if run.seed in cannot:
            raise cannot[run.seed]
        running.add(run.name)
        most.append(len(running))
        return Process(run.name)

    cannot = {3: OSError("no space left"), 5: PackageNotFoundError("mujoco")}
    monkeypatch.setattr(runner, "start", start)
    monkeypatch.setattr(runner, "copy_scripts", lambda folder: (folder / "copied").touch())
    monkeypatch.setattr(runner, "prepare", lambda *_: None)
    monkeypatch.setattr(runner.time, "sleep", lambda _: None)
    runs = [grid.Run("td3", "Pendulum-v1", "", seed, {"total_timesteps": 5}) for seed in range(1, 11)]
    options = argparse.Namespace(workers=2, runs=tmp_path, track=False, progress=1e9)
    signals = types.SimpleNamespace(count=0, news=lambda: 0)
    ended = dict(runner.run_here(runs, options, signals, 7))
    assert max(most) == 2 and not running and started == list(range(1, 11))
    failed = {run: f"cannot be started: {runner.first_line(cannot[run.seed])}" for run in runs if run.seed in cannot}
    assert ended == {run: failed.get(run, 0) for run in runs}


def test_signals_reach_the_runs_and_no_other_is_started(tmp_path, monkeypatch):
    """The first asks them to stop, and 11 does; the second kills 12. A line of each comes every so many seconds."""
    alive, sent, said, clock = set(), [], [], [5_000.0]

    class Process:
        def __init__(self, pid):
            self.pid, self.returncode = pid, -9
            alive.add(pid)

        def poll(self):
            return None if self.pid in alive else self.returncode

    def killpg(pid, number):
        sent.append((pid, number))
        alive.difference_update({pid} if number == signal.SIGKILL or pid == 11 else ())

    def sleep(seconds):
        clock[0] += 10
        signals.count += clock[0] in (5_050, 5_100)
        assert clock[0] < 6_000, "it goes on without an end"

    monkeypatch.setattr(runner, "start", lambda run, *_: Process(run.seed))
    monkeypatch.setattr(runner, "copy_scripts", lambda _: None)
    monkeypatch.setattr(runner, "prepare", lambda *_: None)
    monkeypatch.setattr(runner, "progress_line", lambda run, folder, seconds: f"{run.seed} after {seconds:.0f}")
    monkeypatch.setattr(runner, "say", lambda line, **_: said.append(line))
    monkeypatch.setattr(runner, "time", types.SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    monkeypatch.setattr(runner.os, "killpg", killpg)
    monkeypatch.setattr(runner.Signals, "listen", lambda _: None)
    signals = runner.Signals()
    runs = [grid.Run("td3", "Pendulum-v1", "", seed, {"total_timesteps": 5}) for seed in (11, 12, 13)]
    options = argparse.Namespace(workers=2, runs=tmp_path, track=False, progress=35)
    assert list(runner.run_here(runs, options, signals, 0)) == [(run, -9) for run in runs[:2]]
    assert sent == [(11, signal.SIGTERM), (12, signal.SIGTERM), (12, signal.SIGKILL)]
    assert [line for line in said if "after" in line] == ["11 after 40", "12 after 40", "12 after 80"]


def test_keeper_has_the_files_of_each_run_and_its_last_line(tmp_path):
    keeper = runner.Keeper(tmp_path)
    assert keeper.files("td3/Pendulum-v1/1") == {}
    keeper.keep("td3/Pendulum-v1/1", {"made_by.json": b"{}", "run/checkpoint.pt": b"1"})
    keeper.keep("td3/Pendulum-v1/12", {"log.txt": b""})
    keeper.keep("td3/Pendulum-v1/1", {"run/checkpoint.pt": b"2"})
    assert keeper.files("td3/Pendulum-v1/1") == {"made_by.json": b"{}", "run/checkpoint.pt": b"2"}
    for line in ("5 steps", "10 steps"):
        keeper.say("td3/Pendulum-v1/1", line)
    assert keeper.said() == {"td3/Pendulum-v1/1": "10 steps"}


@pytest.mark.parametrize("cancelled", [False, True])
def test_run_on_another_machine_sends_what_it_writes(tmp_path, monkeypatch, cancelled):
    """What is kept comes first; then all files with each new checkpoint, and once more at the end."""
    kept, lines, asked, looks, clock = [], [], [], itertools.count(1), itertools.count(5_000)
    name = "ppo_continuous/Pendulum-v1/3"

    class Process:
        returncode, terminate, kill = 143 if cancelled else 0, lambda self: asked.append("end"), lambda self: None

        def poll(self):
            look = next(looks)
            if look in (2, 4):
                (self.folder / "run" / "checkpoint.pt").write_text(str(look))
                os.utime(self.folder / "run" / "checkpoint.pt", (look, look))
            if look == 6 and cancelled:
                raise KeyboardInterrupt
            return 0 if look == 7 else None

        def wait(self):
            (self.folder / "run" / "checkpoint.pt").write_text("the last")

    def start(run, folder, scripts, track):
        assert (folder / "made_by.json").read_bytes() == b"{}" and scripts == Path.cwd() and track
        (folder / "run").mkdir()
        process.folder = folder
        return process

    class Keeper:
        files = types.SimpleNamespace(remote=lambda name: {"made_by.json": b"{}"})
        keep = types.SimpleNamespace(remote=lambda *what: kept.append(what))
        say = types.SimpleNamespace(remote=lambda *what: lines.append(what))

    process = Process()
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(get=lambda value: value))
    monkeypatch.setattr(runner, "start", start)
    monkeypatch.setattr(runner, "progress_line", lambda run, folder, seconds: (folder == process.folder, seconds))
    monkeypatch.setattr(runner, "time", types.SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(clock)))
    assert runner.run_there(RUN, argparse.Namespace(track=True), Keeper) == process.returncode
    sent = [files.get("run/checkpoint.pt") for _, files in kept]
    assert {of for of, _ in kept} == {name} and all(files["made_by.json"] == b"{}" for _, files in kept)
    assert [one for one in sent if one] == [b"2", b"4", b"the last" if cancelled else b"4"]
    assert lines == [(name, (True, seconds)) for seconds in range(1, 7 - cancelled)], "since it began here"
    assert asked == ["end"] * cancelled


def test_tasks_of_a_cluster(tmp_path, monkeypatch):
    """Each with its threads, its share of a GPU and its retries; how it ended, also where its machine or it failed."""
    asked, said, cancelled, clock, handlers = [], [], [], [0.0], []
    errors = {name: type(name, (Exception,), {}) for name in ("RayError", "TaskCancelledError", "RayTaskError")}
    ends = {1: 0, 2: errors["TaskCancelledError"](), 3: errors["RayTaskError"]("Traceback\n\nValueError: why\n")}
    ends |= {4: errors["RayError"]("the node died\nmore"), 5: 2}

    class Remote:
        def __init__(self, what):
            self.what = what

        def options(self, **options):
            asked.append(options)
            return self

        def remote(self, *arguments):
            if isinstance(self.what, type):
                assert self.what is runner.Keeper and arguments == (tmp_path,)
                lines = {run.name: f"line of {run.seed}" for run in runs}
                return types.SimpleNamespace(said=types.SimpleNamespace(remote=lambda: lines))
            assert self.what is runner.run_there and arguments[1] is options
            return arguments[0].seed

    def get(what):
        if not isinstance(what, int):
            return what
        if isinstance(ends[what], Exception):
            raise ends[what]
        return ends[what]

    def wait(tasks, timeout):
        """The first ends after 40 seconds, then one every 10; a signal comes at 30, another at 50."""
        clock[0] += 10
        signals.count += clock[0] in (30, 50)
        return (tasks[:1] if clock[0] >= 40 else []), tasks

    def initialise(address, runtime_env, **_):
        assert address == "auto" and Path(runtime_env["working_dir"], "copied").exists()
        handlers.append("Ray's")

    here = types.SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft))
    ray = types.ModuleType("ray")
    ray.init, ray.remote, ray.get, ray.wait = initialise, Remote, get, wait
    ray.cancel = lambda task, force: cancelled.append((task, force))
    ray.get_runtime_context = lambda: types.SimpleNamespace(get_node_id=lambda: "this machine")
    ray.exceptions = types.SimpleNamespace(**errors)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", here)
    monkeypatch.setattr(runner, "copy_scripts", lambda folder: (folder / "copied").touch())
    monkeypatch.setattr(runner, "say", lambda line, **_: said.append(line))
    monkeypatch.setattr(runner.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(runner.Signals, "listen", lambda _: handlers.append("ours"))
    signals = runner.Signals()
    runs = [grid.Run("td3", "Pendulum-v1", "", seed, {"torch_threads": 3} if seed == 2 else {}) for seed in range(1, 7)]

    def prepare(run, folder, scripts):
        assert folder == tmp_path / run.name and (scripts / "copied").exists()
        if run.seed == 6:
            raise OSError("no space left")

    monkeypatch.setattr(runner, "prepare", prepare)
    options = argparse.Namespace(ray="auto", runs=tmp_path, gpus_per_run=0.25, retries=4, track=False, progress=15)
    ended = {run.seed: status for run, status in runner.run_on_ray(runs, options, signals, 0)}
    assert ended == {
        **{1: 0, 2: runner.STOPPED, 3: "ValueError: why", 4: "the node died", 5: 2},
        6: "cannot be started: no space left",
    }
    assert handlers == ["ours", "Ray's", "ours"], "Ray puts its own handler of SIGTERM there"
    assert asked[0] == {"num_cpus": 0, "scheduling_strategy": ("this machine", False)}
    needs = {"num_gpus": 0.25, "max_retries": 4}
    assert asked[1:] == [{"num_cpus": 3 if seed == 2 else 1, **needs} for seed in range(1, 6)]
    assert cancelled == [(task, False) for task in range(1, 6)] + [(task, True) for task in range(3, 6)]
    lines = [line for line in said if "line of" in line]
    assert lines == [f"line of {n}" for n in (*range(1, 6), *range(2, 6), 4, 5)], "every 20 seconds, of those left"
    for error in (ConnectionError, ValueError):

        def none_there(error=error, **_):
            raise error("no cluster here\nmore")

        ray.init = none_there
        with pytest.raises(SystemExit, match=r"^--ray auto: no cluster here$"):
            list(runner.run_on_ray(runs, options, signals, 0))


def test_threads_of_a_run_are_those_of_its_arguments(tmp_path, monkeypatch):
    seen, asked = {}, []

    def popen(line, env, **options):
        seen.update(env)
        asked.append(options)

    monkeypatch.setattr(runner, "command", lambda *_: ["true"])
    monkeypatch.setattr(runner.subprocess, "Popen", popen)
    runner.start(grid.Run("td3", "Pendulum-v1", "few", 1, {"torch_threads": 3}), tmp_path, tmp_path, False)
    assert (seen["OMP_NUM_THREADS"], seen["WANDB_RUN_GROUP"]) == ("3", "variants/td3/Pendulum-v1__few")
    assert seen["MKL_NUM_THREADS"] == "3" and seen["PATH"] == os.environ["PATH"]
    runner.start(grid.Run("td3", "Pendulum-v1", "", 1, {}), tmp_path, tmp_path, False, (7,))
    own = {"cwd": tmp_path, "start_new_session": True}
    assert all(own.items() <= options.items() and options["stdout"] is options["stderr"] for options in asked)
    assert [options["pass_fds"] for options in asked] == [(), (7,)], "the lock, which it holds as long as it lives"
    assert (seen["OMP_NUM_THREADS"], seen["WANDB_TAGS"]) == ("1", "benchmark,td3,Pendulum-v1")
    [here] = json.loads((tmp_path / "made_on.json").read_text())  # the same machine is named once
    assert here["machine"] == f"{runner.machine()}, Python {platform.python_version()}"
    assert here["versions"].startswith(f"torch {version('torch')}, gymnasium {version('gymnasium')}, ")
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


@pytest.fixture
def main(monkeypatch, tmp_path, capsys):
    """run.py's main with these flags, whose runs end with these (seed, status, signals until then); what it said."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text(THREE)

    def call(*flags, ends=()):
        def run_here(runs, options, signals, lock):
            assert options.runs == tmp_path / "runs" and options.results == tmp_path / "results"
            by_seed = {run.seed: run for run in runs}
            for seed, status, signals.count in ends:
                yield by_seed[seed], status

        monkeypatch.setattr(runner, "run_here", run_here)
        words = ["run.py", "--experiments", "grid.toml", "--results", "results", "--runs", "runs", *flags]
        monkeypatch.setattr(sys, "argv", words)
        try:
            status = runner.main()
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_run_that_ends_well_without_a_result_has_failed(tmp_path, main):
    """Of three one is whole, one has left nothing, and one says why: its line is on stderr, and again at the end."""
    runs = tmp_path / "runs" / "td3" / "Pendulum-v1"
    finished(runs / "1", [100, 200, 300, 400, 500])
    (runs / "3").mkdir(parents=True)
    (runs / "3" / "log.txt").write_text("no such task\n")
    status, said, errors = main(ends=[(1, 0, 0), (2, 0, 0), (3, 2, 0)])
    assert status == 1 and (tmp_path / "results" / "td3" / "Pendulum-v1" / "1.csv").exists()
    assert said.startswith("3 runs, 0 finished before, 0 of them by other code or arguments\n")
    assert said.endswith("1 finished, 2 failed, 0 left\n") and "FAILED" not in said
    assert re.search(r"^failed: td3/Pendulum-v1/2: no result: .*there is no run in", errors, re.M)
    assert re.search(r"^failed: td3/Pendulum-v1/3: exit status 2: no such task \(.*/3/log.txt\)$", errors, re.M)
    assert errors.count("FAILED") == 2
    _, said, _ = main("--list")
    states = {1: "finished, but by other code or arguments", 2: "to do", 3: "begun, 0 steps"}
    assert said == "".join(f"td3/Pendulum-v1/{seed}: {state}\n" for seed, state in states.items())
    _, said, _ = main(ends=[(2, "lost", 0), (3, "lost", 0)])
    assert said.startswith("3 runs, 1 finished before, 1 of them") and said.endswith("0 finished, 2 failed, 0 left\n")


def test_run_without_any_evaluation_has_failed_and_the_others_go_on(tmp_path, main):
    runs = tmp_path / "runs" / "td3" / "Pendulum-v1"
    for seed, evaluated in ((1, []), (2, [100, 200, 300, 400, 500])):
        finished(runs / str(seed), evaluated)
    status, said, errors = main(ends=[(1, 0, 0), (2, 0, 0)])
    assert status == 1 and said.endswith("1 finished, 1 failed, 1 left\n")
    assert re.search("^failed: td3/Pendulum-v1/1: no result: ", errors, re.M)


def test_what_the_runner_does_where_nothing_else_is_asked(monkeypatch, tmp_path):
    """One run at a time here, ten tries on a cluster, a line of each in a minute, and the repository's own folders."""
    asked, before = [], {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(runner, "BENCHMARK", tmp_path)
    monkeypatch.setattr(runner, "grid", lambda path: asked.append(path) or [RUN])
    monkeypatch.setattr(runner, "run_here", lambda runs, options, *_: asked.append(options) or [])
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert runner.main() == 0
    path, options = asked
    assert path == tmp_path / "experiments.toml"
    assert (options.results, options.runs) == (tmp_path / "results", tmp_path / "runs")
    assert (options.workers, options.retries, options.progress, options.gpus_per_run) == (1, 10, 60, 0)
    assert (options.only, options.track, options.redo_changed, options.ray) == ([], False, False, None)
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(runner, "run_on_ray", lambda runs, options, *_: asked.append((runs, options)) or [])
    monkeypatch.setattr(sys, "argv", ["run.py", "--ray", "auto", "--gpus-per-run", "0.25", "--track"])
    assert runner.main() == 0
    runs, options = asked[-1]
    assert runs == [RUN] and (options.ray, options.gpus_per_run, options.track) == ("auto", 0.25, True)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_log_of_other_bytes_is_read_all_the_same(tmp_path):
    """Of a simulator that prints in Latin-1, say."""
    (tmp_path / "log.txt").write_bytes(b"from step 0 on cpu\n\xe9t\xe9\nstep 1,000: evaluation 1.0 \xb1 0\n\xe9")
    assert runner.progress(tmp_path) == (0, 1_000, ", evaluation 1.0")
    assert runner.why(2, tmp_path) == "exit status 2: \ufffd"


def test_run_that_was_stopped_has_not_failed(tmp_path, main):
    """After a signal: by it, or killed; one that fails by itself has failed. After a second one: however it ends."""
    log = tmp_path / "runs" / "td3" / "Pendulum-v1" / "1" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("go on with: python a-copy/td3.py\n")
    ends = [(1, runner.STOPPED, 1), (2, -signal.SIGKILL, 1), (3, -signal.SIGTERM, 1)]
    status, said, errors = main(ends=ends)
    assert status == 130 and errors == "" and said.endswith("0 finished, 0 failed, 3 left\n")
    assert "td3/Pendulum-v1/1: stopped\n" in said
    assert log.read_text().endswith("a-copy/td3.py\nstopped with the grid: start run.py again to go on\n")
    log.write_text("stopped by somebody else")
    status, said, _ = main(ends=[(1, runner.STOPPED, 0), (2, "no memory", 1), (3, "anything", 2)])
    assert status == 1 and said.endswith("0 finished, 2 failed, 1 left\n") and "/3: stopped\n" in said


def test_what_cannot_be_asked_of_the_runner(tmp_path, main, monkeypatch):
    """It says why, and has made nothing."""
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda _: None)
    for flags, why in (
        (["--workers", "0"], "--workers must be at least 1"),
        (["--experiments", "none.toml"], "none.toml"),
        (["--only", "Hopper"], "no run has all words of --only"),
        (["--ray", "auto"], "--ray needs benchmark/requirements.txt"),
    ):
        status, said, errors = main(*flags)
        assert (
            status == 2
            and said == ""
            and f"error: {why}" in errors.replace("[Errno 2] No such file or directory: '", "")
        )
    (tmp_path / "results" / "td3" / "Pendulum-v1").mkdir(parents=True)
    (tmp_path / "results" / "td3" / "Pendulum-v1" / "2.csv").write_text("half")
    status, _, errors = main()
    assert status == 2 and "2.csv is not a result" in errors and not (tmp_path / "runs").exists()


def test_why_a_run_failed(tmp_path):
    (tmp_path / "log.txt").write_text("Traceback\nno such environment\n\n")
    assert runner.why(2, tmp_path) == "exit status 2: no such environment"
    assert "SIGKILL, perhaps for want of memory" in runner.why(-signal.SIGKILL, tmp_path)
    assert "memory" not in runner.why(-signal.SIGSEGV, tmp_path)
    (tmp_path / "log.txt").write_text("")
    assert runner.why(1, tmp_path) == "exit status 1: no output"
    assert runner.first_line(OSError("no space left\non the device")) == "no space left"
    assert runner.first_line(OSError()) == "OSError"


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


def test_clock_of_a_script_starts_with_the_last_log_of_its_warm_up(monkeypatch):
    """Logs at 1,000 and 2,000, 250 s apart: 4 steps per second; also where there is none in between."""
    import speed
    from torch.utils.tensorboard import SummaryWriter

    def run(command, cwd, **_):
        with SummaryWriter(Path(cwd, "Hopper-v5__td3__1__1")) as writer:
            for step, wall_time in ((1_000, 1e9), (2_000, 1e9 + 250)):
                writer.add_scalar("charts/SPS", 0, step, walltime=wall_time)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(speed.subprocess, "run", run)
    assert speed.measure("td3", "PlainRL", 1, 1_000, False) == pytest.approx(4)


def asked(monkeypatch, *what) -> tuple[list[str], dict]:
    """Command and environment of a measurement, its folder named FOLDER."""
    import speed

    seen = {}

    def run(command, env, cwd, preexec_fn, **_):
        seen.update(
            command=[word.replace(str(cwd), "FOLDER") for word in command], env=env, held=preexec_fn is not None
        )
        return subprocess.CompletedProcess(command, 0, "a line\nSPS 12.5\n", "")

    monkeypatch.setattr(speed.subprocess, "run", run)
    monkeypatch.setattr(speed.os, "environ", {"HOME": "/"})
    try:
        assert speed.measure(*what) == 12.5
    except StopIteration:  # of ours there are no files to read
        assert seen["command"][1].endswith(".py")
    return seen["command"], seen["env"] | {"held": seen["held"]}


def test_what_is_measured_of_ours(monkeypatch):
    """Without evaluations and checkpoints, so many steps after the warm-up, on that device and those threads."""
    off = "--eval-interval 0 --checkpoint-interval 0"
    command, environment = asked(monkeypatch, "td3", "PlainRL", 2, 3_000, False)
    assert command[:2] == [sys.executable, str(ROOT / "td3.py")]
    said = (
        "--env-id Hopper-v5 --out-dir FOLDER --total-timesteps 4000 --no-cuda --learning-starts 500 --torch-threads 2"
    )
    assert " ".join(command[2:]) == f"{said} --log-interval 1000 {off} --no-compile"
    assert environment.pop("held") in (True, not hasattr(os, "sched_setaffinity"))
    assert environment == {"HOME": "/", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "JAX_PLATFORMS": "cpu"}
    command, environment = asked(monkeypatch, "ppo_discrete", "PlainRL compiled", 1, 2_048, True)
    said = "--env-id CartPole-v1 --out-dir FOLDER --total-timesteps 4096 --cuda --torch-threads 1 --log-interval 512"
    assert " ".join(command[2:]) == f"{said} {off} --compile"
    assert environment == {"HOME": "/", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "held": False}
    assert asked(monkeypatch, "td3", "SB3", 1, 1_000, True)[0][3:] == ["sb3", "1", "2000", "cuda"]
    command, _ = asked(monkeypatch, "dqn-atari", "PlainRL captured", 1, 4_000, True)
    said = "--env-id PongNoFrameskip-v4 --out-dir FOLDER --total-timesteps 5000 --cuda --learning-starts 500"
    said += f" --buffer-size 10000 --batch-size 32 --train-interval 4 --torch-threads 1 --log-interval 1000 {off}"
    assert command[1] == str(ROOT / "dqn.py")
    assert " ".join(command[2:]) == f"{said} --no-compile --cudagraphs --epsilon-duration 500"


@pytest.fixture
def peers(monkeypatch):
    """What SB3's and SBX's classes are made with and do, in the place of those packages; each step takes a second.

    From step 2,048 on, or 1,000 where the case is no PPO's, it takes a tenth of one.
    """
    made, clock = {}, [0.0]

    class Callback:
        num_timesteps = 0

    def class_of(library, name):
        class Algorithm:
            def __init__(self, **options):
                made.clear()
                made.update(options, by=f"{library} {name}")

            def learn(self, total, callback):
                warm_up = 2_048 if name == "PPO" else 1_000
                for step in range(1, total + 1):
                    clock[0] += 1 if step <= warm_up else 0.1
                    callback.num_timesteps = step
                    assert callback._on_step() is True
                made["total"] = total

        return Algorithm

    def called(name):
        return lambda *what, **options: (name, *what, *options.items())

    modules = {"gymnasium": {"make": called("gym")}, "stable_baselines3": {}, "sbx": {}}
    modules |= {f"stable_baselines3.common.{name}": {} for name in ("callbacks", "env_util", "noise", "vec_env")}
    for library in ("stable_baselines3", "sbx"):
        modules[library] = {name: class_of(library, name) for name in ("DQN", "DDPG", "TD3", "SAC", "PPO")}
    modules["stable_baselines3.common.callbacks"]["BaseCallback"] = Callback
    for name in ("make_atari_env", "make_vec_env"):
        modules["stable_baselines3.common.env_util"][name] = called(name)
    modules["stable_baselines3.common.noise"]["NormalActionNoise"] = lambda mean, sigma: (mean.tolist(), sigma.tolist())
    modules["stable_baselines3.common.vec_env"]["VecFrameStack"] = called("stack")
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(runner.time, "perf_counter", lambda: clock[0])
    return made


NAMES = {"sac_continuous": "SAC", "td3": "TD3", "ddpg": "DDPG", "dqn": "DQN", "ddqn": "DQN", "dqn-atari": "DQN"}
NAMES |= {"ppo_continuous": "PPO", "ppo_discrete": "PPO"}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("library", ["SB3", "SBX"])
def test_peers_have_the_sizes_of_ours_and_are_timed_after_the_warm_up(monkeypatch, capsys, peers, case, library):
    import torch

    command, _ = asked(monkeypatch, case, library, 3, 2_048, False)
    assert command[0] == sys.executable and command[1] == "-c"
    monkeypatch.setattr(sys, "argv", ["-c", *command[3:]])
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    exec(command[2], {})
    label, steps_per_second = capsys.readouterr().out.split()
    assert label == "SPS" and float(steps_per_second) == pytest.approx(10, rel=2e-3) and threads == [3]
    name = NAMES[case]
    assert peers.pop("by") == f"{'sbx' if library == 'SBX' else 'stable_baselines3'} {name}"
    assert peers.pop("device") == "cpu" and peers.pop("seed") == 0
    flags, _ = asked(monkeypatch, case, "PlainRL", 3, 2_048, False)
    ours = dict(grid.defaults(Path(flags[1]).read_text("utf-8")))
    for argument in ours.keys() - {"env_id", "out_dir"}:
        if (flag := f"--{argument}".replace("_", "-")) in flags:
            ours[argument] = int(flags[flags.index(flag) + 1])
    assert peers.pop("total") == ours["total_timesteps"]
    env_id = flags[flags.index("--env-id") + 1]
    assert env_id in str(peers["env"]), "the same environment"
    if name == "PPO":
        num_envs = dict(peers["env"][2:]).get("n_envs", 1)
        rollout = ours["num_envs"] * ours["num_steps"]
        assert num_envs == ours["num_envs"] and peers["n_steps"] == ours["num_steps"]
        assert peers["batch_size"] == rollout // ours["num_minibatches"] and peers["n_epochs"] == ours["update_epochs"]
        return
    for theirs, name_of_ours in (
        ("batch_size", "batch_size"),
        ("train_freq", "train_interval"),
        ("gradient_steps", "gradient_steps"),
        ("learning_starts", "learning_starts"),
        ("buffer_size", "buffer_size"),
        ("target_update_interval", "target_update_interval"),
        ("exploration_final_eps", "epsilon_end"),
    ):
        assert peers.get(theirs, ours.get(name_of_ours)) == ours.get(name_of_ours), theirs
    assert {"batch_size", "train_freq", "gradient_steps", "learning_starts"} <= peers.keys()
    if name == "DQN":
        assert {"buffer_size", "target_update_interval"} <= peers.keys()
        assert peers["exploration_fraction"] * ours["total_timesteps"] == pytest.approx(ours["epsilon_duration"], abs=1)
    if name in ("TD3", "DDPG"):
        assert peers["action_noise"] == ([0.0] * 3, [ours["exploration_noise"]] * 3)
    layers = {"dqn-atari": None, "dqn": [120, 84], "ddqn": [120, 84]}.get(case, [256, 256])
    assert peers.get("policy_kwargs", {}).get("net_arch") == layers
    assert peers["policy"] == ("CnnPolicy" if case == "dqn-atari" else "MlpPolicy")


def test_contestants_are_those_that_can_take_part(monkeypatch, capsys):
    """Captured on a GPU only; SBX where it is installed, on a GPU if JAX finds it, on Pong's frames only there."""
    import speed

    assert speed.contestants("td3", False, True) == ["PlainRL", "PlainRL compiled", "SB3", "SBX"]
    captured = ["PlainRL", "PlainRL compiled", "PlainRL captured", "PlainRL compiled, captured", "SB3"]
    assert speed.contestants("td3", True, False) == captured
    assert speed.contestants("dqn-atari", False, True) == ["PlainRL", "PlainRL compiled", "SB3"]
    assert speed.contestants("dqn-atari", True, True) == [*captured, "SBX"]
    for is_installed, jax_finds_it, cuda, there in (
        (False, True, False, False),
        (False, True, True, False),
        (True, False, False, True),
        (True, False, True, False),
        (True, True, True, True),
    ):
        monkeypatch.setattr(speed.importlib.util, "find_spec", lambda _, found=is_installed: found or None)
        result = subprocess.CompletedProcess([], 0 if jax_finds_it else 1)
        monkeypatch.setattr(speed.subprocess, "run", lambda *_, result=result, **__: result)
        assert speed.has_sbx(cuda) == there
        assert ("JAX finds no GPU" in capsys.readouterr().err) == (is_installed and cuda and not jax_finds_it)


@pytest.fixture
def main_of_speed(monkeypatch, capsys):
    """speed.py's main with these words: its exit status, its lines, what it measured and saved."""
    import speed

    measured, saved = [], []
    speeds = {"PlainRL": [10.0, 60.0, 30.0], "SB3": [20.0, 20.0, 100.0]}

    def measure(case, contestant, threads, steps, cuda):
        measured.append((case, contestant, threads, steps, cuda))
        done = [one for one in measured[:-1] if one == measured[-1]]
        return speeds[contestant][len(done) % 3]

    for name, value in {
        "measure": measure,
        "save": lambda *what: saved.append(what),
        "has_sbx": lambda cuda: False,
        "contestants": lambda case, cuda, sbx: ["PlainRL", "SB3"],
        "machine": lambda: "A",
        "version": lambda name: "1",
        "num_cores": lambda: 4,
    }.items():
        monkeypatch.setattr(speed, name, value)

    def call(*words, cuda=False):
        measured.clear(), saved.clear()
        monkeypatch.setattr(speed.torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(sys, "argv", ["speed.py", *words])
        try:
            status = speed.main()
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().out.splitlines(), measured, saved

    return call


def test_rounds_alternate_and_their_ratios_have_a_median(main_of_speed):
    """Rounds of 10 and 20, 60 and 20, 30 and 100: ours 30, theirs 20, their ratios 0.5, 3 and 0.3."""
    _, lines, measured, saved = main_of_speed("td3", "--rounds", "3", "--threads", "2", "--save")
    assert measured == [("td3", one, 2, 2_000, False) for one in ("PlainRL", "SB3")] * 3
    assert lines[1] == "td3: A, 2 thread(s), 3 rounds; torch 1, gymnasium 1, stable-baselines3 1"
    assert lines[4:] == ["| PlainRL | 30 (10 to 60) | 1.00 |", "| SB3 | 20 (20 to 100) | 0.50 |"]
    code = grid.code_hash((ROOT / "td3.py").read_text("utf-8"))
    about = {"machine": "A", "versions": "torch 1, gymnasium 1, stable-baselines3 1", "device": "cpu", "code": code}
    rounds = [{"PlainRL": ours, "SB3": theirs} for ours, theirs in ((10.0, 20.0), (60.0, 20.0), (30.0, 100.0))]
    assert saved == [("td3", about, 2, rounds)]
    _, _, measured, saved = main_of_speed("dqn-atari", "--rounds", "1", "--cuda", "--save", cuda=True)
    assert measured[0] == ("dqn-atari", "PlainRL", 1, 20_000, True)
    assert [(name, about["device"], threads) for name, about, threads, _ in saved] == [("dqn-atari-cuda", "cuda", 1)]
    assert len(main_of_speed("td3", "--threads", "1")[2]) == 5 * 2, "five rounds, if nothing else is asked"
    _, _, measured, saved = main_of_speed("--rounds", "1")
    assert saved == [] and {threads for _, _, threads, _, _ in measured} == {1, 4}, "one thread, and all"
    steps = {case: steps for case, _, _, steps, _ in measured}
    assert steps == {
        **{"sac_continuous": 2_000, "td3": 2_000, "ddpg": 2_000, "dqn": 20_000, "ddqn": 20_000, "dqn-atari": 2_000},
        **{"ppo_continuous": 20_480, "ppo_discrete": 81_920},
    }
    assert main_of_speed("td3", "--steps", "3000", "--rounds", "1")[2][0] == ("td3", "PlainRL", 1, 3_000, False)


def test_versions_of_a_speed_are_those_of_the_packages_that_took_part(main_of_speed, monkeypatch):
    """SBX's where it takes part, which is asked for the device."""
    import speed

    asked = []
    monkeypatch.setattr(speed, "has_sbx", lambda cuda: asked.append(cuda) or f"SBX: {cuda}")
    monkeypatch.setattr(speed, "contestants", lambda *what: asked.append(what) or ["PlainRL", "SBX"])
    monkeypatch.setattr(speed, "measure", lambda *what: 5.0)
    for words, cuda in (([], False), (["--cuda"], True)):
        _, lines, _, saved = main_of_speed("td3", "--rounds", "1", "--threads", "1", "--save", *words, cuda=True)
        versions = "torch 1, gymnasium 1, stable-baselines3 1, sbx-rl 1, jax 1"
        assert lines[1].endswith(f"; {versions}") and saved[0][1]["versions"] == versions
        assert asked == [cuda, ("td3", cuda, f"SBX: {cuda}")]
        asked.clear()


@pytest.mark.parametrize(
    "words", [["nothing"], ["td3", "--cuda"], ["td3", "--steps", "1500"], ["ppo_discrete", "--steps", "3000"]]
)
def test_what_cannot_be_measured(main_of_speed, words):
    status, _, measured, _ = main_of_speed(*words)
    assert status == 2 and measured == []


# ---- A peer's training ----
@pytest.fixture
def peer(monkeypatch):
    """peer.py, with a SAC in the place of SBX's that only takes steps: an episode ends in every 100th."""
    made = {}

    class Callback:
        def __init__(self):
            pass

    class SAC:
        def __init__(self, policy, env, **options):
            made.update(options, policy=policy, env=env)

        def learn(self, total, callback):
            callback.model = types.SimpleNamespace(predict=lambda obs, deterministic: (obs + deterministic, None))
            for callback.num_timesteps in range(1, total + 1):
                ended = callback.num_timesteps % 100 == 0
                infos = [{"episode": {"r": callback.num_timesteps / 2}}] if ended else [{}]
                callback.locals = {"infos": infos}
                assert callback._on_step() is True

    class Env:
        """Rewards an action that is one more than what was seen; ends after two steps or, cut off, three."""

        def reset(self, seed):
            self.seed, self.steps = seed, 0
            return seed, {}

        def step(self, action):
            self.steps += 1
            assert self.steps <= 3, "the episode was over"
            is_odd = self.seed % 2 == 1
            return action, float(action == self.seed + self.steps), self.steps == 2 and not is_odd, self.steps == 3, {}

    for name, content in {
        "sbx": {"SAC": SAC},
        "stable_baselines3.common.callbacks": {"BaseCallback": Callback},
        "gymnasium": {"make": lambda env_id: made.setdefault("made", []).append(env_id) or Env()},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "peer", raising=False)
    module = importlib.import_module("peer")
    yield module, made
    sys.modules.pop("peer")


def test_training_of_a_peer_is_a_result_like_ours(monkeypatch, tmp_path, peer):
    """Every episode, and in each 10,000th step the mean of ten without noise, whose seeds are 10,000 to 10,009."""
    module, made = peer
    monkeypatch.setattr(module, "BENCHMARK", tmp_path)
    monkeypatch.setattr(module, "version", lambda name: "1")
    monkeypatch.setattr(module, "machine", lambda: "A")
    monkeypatch.setattr(sys, "argv", ["peer.py", "ALE/Pong-v5", "4", "--total-timesteps", "20000"])
    module.main()
    about, rows = grid.read_result(tmp_path / "results" / "peer" / "sbx_sac" / "ALE-Pong-v5" / "4.csv")
    assert [row for row in rows if row[1] == "eval"] == [(10_000, "eval", 2.5), (20_000, "eval", 2.5)]
    assert [row for row in rows if row[1] == "train"] == [(n, "train", n / 2) for n in range(100, 20_001, 100)]
    assert about["machine"] == "A" and re.fullmatch(r"\d+ s", about["wall time"])
    assert about["versions"].startswith("sbx-rl 1, stable-baselines3 1, jax 1")
    sizes = {"learning_rate": 1e-3, "qf_learning_rate": 1e-3, "learning_starts": 5_000, "batch_size": 256}
    assert about["arguments"] == {"env_id": "ALE/Pong-v5", "seed": 4, "total_timesteps": 20_000, **sizes}
    ours = grid.defaults((ROOT / "sac_continuous.py").read_text("utf-8"))
    assert (made["learning_rate"], made["qf_learning_rate"]) == (ours["actor_lr"], ours["critic_lr"])
    assert all(made[name] == ours[name] for name in ("learning_starts", "batch_size", "buffer_size"))
    assert (
        made["seed"] == 4 and made["policy_kwargs"] == {"net_arch": [256, 256]} and made["made"] == ["ALE/Pong-v5"] * 2
    )


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
    row = row_of(monkeypatch, tmp_path, {1: 100, 2: 0, 3: 90}, changed={3})
    assert (len(row.seeds), row.num_seeds, row.mark) == (1, 3, " †")
    assert "fewer than 100 steps: td3/Pendulum-v1/2, td3/Pendulum-v1/3\n" in capsys.readouterr().err
    row = row_of(monkeypatch, tmp_path, {1: 100, 2: 100, 3: 100}, changed=set())
    assert (len(row.seeds), row.mark) == (3, "")
    assert row.curve(4)[0] == [10, 20, 50, 100] and row.curve(4)[1].tolist() == [[10, 20, 50, 100]] * 3


def cells(table: str) -> list[list[str]]:
    """Of the lines of a table under its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]


def made_row(**changes):
    """Two of three seeds: evaluations of 1,000 and 1,200 at step 50, and of twice as much at step 100."""
    import report

    row = object.__new__(report.Row)
    seeds = [[(50, "eval", value), (100, "eval", 2 * value)] for value in (1000.0, 1200.0)]
    about = {"script": "td3", "env_id": "Hopper-v5", "variant": "", "steps": 100, "mark": "", "num_seeds": 3}
    vars(row).update({**about, "seeds": seeds, **changes})
    return row


@pytest.mark.benchmark
def test_published_beside_ours_by_hand():
    """Ours 1,100 ± 141 of two seeds, theirs 1,500 ± 100 of four: -400 / sqrt(20,000 / 2 + 10,000 / 4) is -3.6."""
    import report

    theirs = {"script": "td3", "environment": "Hopper-v5", "source": "them", "on": "Hopper-v4", "metric": "eval"}
    theirs |= {"steps": 50, "mean": 1500.0, "sd": 100.0, "ddof": 1, "seeds": 4, "main": True}
    one = {name: value for name, value in theirs.items() if name not in ("sd", "main")} | {"seeds": 1}
    one |= {"steps": 100, "window": 50_000, "note": "a run", "metric": "eval"}
    others = [{"steps": 101}, {"script": "ddpg"}, {"environment": "Hopper-v4"}]
    published = {"sources": {"them": "They"}, "figures": [theirs, one, *(theirs | other for other in others)]}
    rows = [made_row(), made_row(variant="few", seeds=[])]
    first = ["`td3.py`", "Hopper-v5", "50", "1,100 ± 141 (2 of 3)", "1,500 ± 100 (4)", "They, Hopper-v4"]
    first += ["evaluation", "-3.6", "**behind**"]
    second = ["`td3.py`", "Hopper-v5", "100", "1,650 ± 212 (2 of 3)", "1,500 (1)", "They, Hopper-v4: a run"]
    second += ["evaluation, 50,000 steps", "", ""]
    assert cells(report.comparison_table(rows, published, main_only=False)) == [first, second]
    assert cells(report.comparison_table(rows, published, main_only=True)) == [first]
    better = {"sources": published["sources"], "figures": [theirs | {"mean": 1320.0}, theirs | {"mean": 880.0}]}
    ends = [line[-2:] for line in cells(report.comparison_table(rows, better, main_only=False))]
    assert ends == [["-2.0", ""], ["+2.0", ""]], "-1.97 standard errors are not behind"


@pytest.mark.benchmark
def test_table_has_rows_or_variants_and_no_interval_of_few_seeds():
    import report

    rows = [made_row(variant=variant, seeds=made_row().seeds * 3) for variant in ("", "few")]
    rows[0].seeds = [[*seed, (100, "train", 5.0)] for seed in made_row().seeds * 2]
    rows[1].seeds = [[(step, "train", 10.0 * step), *seed] for step, seed in enumerate(rows[1].seeds, 1)]
    [line] = cells(report.results_table(rows, variants=False))
    assert line == ["`td3.py`", "Hopper-v5", "100", "4 of 3", "5.0 ± 0.0", "", "2,200 ± 231", ""]
    [line] = cells(report.results_table(rows, variants=True))
    assert line[:5] == ["`td3.py`", "Hopper-v5", "few", "100", "6 of 3"] and line[5] == "35.0 ± 18.7"
    iqm, low, high = map(float, re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", line[6]).groups())
    assert iqm == 35 and 10 <= low < iqm < high <= 60


@pytest.mark.benchmark
def test_figure_has_a_panel_for_each_environment_and_a_colour_for_each_script(monkeypatch, tmp_path):
    """Curves of ours up to their end, and a cross with its deviation at what was published, in its script's colour."""
    import report

    closed = []
    monkeypatch.setattr(report.plt, "close", closed.append)
    rows = [made_row(), made_row(script="ddpg"), made_row(env_id="Walker2d-v5")]
    for row in rows[1:]:
        row.seeds = row.seeds[:1]
    theirs = {"script": "ddpg", "environment": "Hopper-v5", "steps": 50, "mean": 900.0, "sd": 100.0}
    one = {"script": "td3", "environment": "Walker2d-v5", "steps": 50, "mean": 900.0}  # of one run
    report.draw_curves(rows, [theirs, one], tmp_path / "one.png")
    [figure] = closed
    hopper, walker = figure.axes
    assert (hopper.get_title(), walker.get_title()) == ("Hopper-v5", "Walker2d-v5")
    curves = {line.get_label(): line for line in hopper.lines if not line.get_label().startswith("_")}
    assert curves.keys() == {"td3 (2 seeds)", "ddpg (1 seed)"}
    assert curves["td3 (2 seeds)"].get_xydata().tolist() == [[50, 1100], [100, 2200]]
    assert curves["ddpg (1 seed)"].get_xydata().tolist() == [[50, 1000], [100, 2000]]
    [cross] = hopper.containers
    assert cross[0].get_xydata().tolist() == [[50, 900]] and cross[0].get_color() == curves["ddpg (1 seed)"].get_color()
    assert cross[2][0].get_segments()[0].tolist() == [[50, 800], [50, 1000]]
    assert walker.containers[0][0].get_color() == walker.lines[0].get_color() == curves["td3 (2 seeds)"].get_color()
    assert [text.get_text() for text in figure.legends[0].texts] == ["td3.py", "ddpg.py", "published, ± deviation"]
    assert (tmp_path / "one.png").exists()


@pytest.mark.benchmark
def test_report_fills_the_readmes_draws_the_figures_and_runs_the_notes_that_have_data(monkeypatch, tmp_path):
    import report

    benchmark = tmp_path / "benchmark"
    (benchmark / "notes" / "data" / "kl").mkdir(parents=True)
    for name in ("kl", "toy"):
        program = f"from pathlib import Path\nPath(__file__).with_name('{name}.png').touch()\n"
        (benchmark / "notes" / f"{name}.py").write_text(program)
    readmes = [tmp_path / "README.md", tmp_path / "README.zh-CN.md", benchmark / "README.md"]
    for path in readmes:
        path.write_text("a\n<!-- table: speed -->\nold\n<!-- end -->\n<!-- table: main --><!-- end -->\nb", "utf-8")
    drawn = []
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "BENCHMARK", benchmark)
    monkeypatch.setattr(report, "tables", lambda: {"speed": "| 1 |", "main": "| 2 |"})
    monkeypatch.setattr(report, "load_rows", lambda: [made_row(), made_row(script="dqn"), made_row(variant="few")])
    theirs = {"script": "dqn", "environment": "Hopper-v5", "metric": "eval", "steps": 100}
    monkeypatch.setattr(report, "load_published", lambda: {"figures": [theirs]})
    monkeypatch.setattr(report, "draw_curves", lambda rows, *rest: drawn.append(([r.script for r in rows], *rest)))
    report.main()
    filled = "a\n<!-- table: speed -->\n\n| 1 |\n\n<!-- end -->\n<!-- table: main -->\n\n| 2 |\n\n<!-- end -->\nb"
    assert [path.read_text("utf-8") for path in readmes] == [filled] * 3
    assert drawn == [
        ([script], published, benchmark / "figures" / f"{name}.png")
        for name, script, published in (("discrete", "dqn", [theirs]), ("continuous", "td3", []))
    ]
    assert [path.name for path in (benchmark / "notes").glob("*.png")] == ["kl.png"]
    (benchmark / "notes" / "kl.py").write_text("raise SystemExit('its data are of another time')")
    with pytest.raises(subprocess.CalledProcessError):
        report.main()

    def no_result():
        raise ValueError("1.csv is not a result")

    monkeypatch.setattr(report, "tables", no_result)
    with pytest.raises(SystemExit, match=r"1\.csv is not a result"):
        report.main()


@pytest.mark.benchmark
def test_rows_without_a_result_are_no_rows(monkeypatch, tmp_path):
    """And a mark of a table that is not made is no table: nothing is written over."""
    import report

    runs = [grid.Run("td3", "Pendulum-v1", variant, 1, {"total_timesteps": 100}) for variant in ("", "few")]
    rows = [(100, "eval", 1.0)]
    grid.write_result(tmp_path / "results" / f"{runs[1].name}.csv", {"arguments": {}}, rows)
    monkeypatch.setattr(report, "BENCHMARK", tmp_path)
    monkeypatch.setattr(report, "grid", lambda path: runs)
    monkeypatch.setattr(report, "has_changed", lambda run, about: False)
    assert [(row.variant, row.seeds) for row in report.load_rows()] == [("few", [rows])]
    with pytest.raises(KeyError):
        report.fill("<!-- table: none -->what there was<!-- end -->", {"main": "| 1 |"})


@pytest.mark.benchmark
def test_speeds_on_a_gpu_and_of_many_threads(monkeypatch, tmp_path):
    """The GPU stands for its one thread, 2 threads come before 16, and code of now has no mark."""
    import report

    (tmp_path / "results" / "speed").mkdir(parents=True)
    code = grid.code_hash((ROOT / "td3.py").read_text("utf-8"))
    for device in ("cpu", "cuda"):
        rounds = {threads: [{"PlainRL": 10.0, "SB3": 4.0}] for threads in ("16", "2", "1")}
        measured = {
            "machine": "A, 16 cores, NVIDIA B",
            "versions": "v",
            "device": device,
            "code": code,
            "rounds": rounds,
        }
        (tmp_path / "results" / "speed" / f"td3{'-cuda' * (device == 'cuda')}.json").write_text(json.dumps(measured))
    monkeypatch.setattr(report, "BENCHMARK", tmp_path)
    speeds = ["10 (10 to 10)", "4 (4 to 4)", "2.50"]
    gpu = ["NVIDIA B", "NVIDIA B, 2 threads", "NVIDIA B, 16 threads"]
    table = report.speed_table()
    assert cells(table) == [["td3", where, *speeds] for where in (*gpu, "1", "2", "16")]
    assert table.endswith("\n\nA, 16 cores, NVIDIA B; v.")


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
        plot.draw_curve(panel, [1, 2, 3], values, "a", "C0")
        band = panel.collections[0].get_paths()[0].vertices[:, 1]
        assert ((band.min(), band.max()) == (values.min(), values.max())) == is_range
        assert band.min() <= np.median(values) <= band.max()
        [line] = panel.lines
        assert line.get_label() == f"a ({seeds} seeds)" and line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == [2 if seeds == 5 else 2.5] * 3, "the mean without the ends"


@pytest.mark.benchmark
def test_panels_and_their_axes():
    """At most three beside each other; what is left over is empty; a curve of two points shows them."""
    import numpy as np
    import plot

    for number, shape in ((1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 3)), (7, (3, 3))):
        figure, panels = plot.draw_panels(number)
        assert figure.axes[0].get_gridspec().get_geometry() == shape
        assert [panel.axison for panel in figure.axes] == [True] * number + [False] * (shape[0] * shape[1] - number)
        assert panels == figure.axes[:number]
    for points, marker in ((2, "o"), (3, "None")):
        plot.draw_curve(panels[0], range(points), np.ones((1, points)), "a", "C0")
        assert panels[0].lines[-1].get_marker() == marker and panels[0].lines[-1].get_label() == "a (1 seed)"
    plot.label_axes(panels[0], "Hopper-v5")
    plot.label_axes(panels[1], "Hopper-v5", hours=True)
    assert [panel.get_xlabel() for panel in panels[:2]] == ["environment steps", "hours"]
    ticks = [panel.xaxis.get_major_formatter()(2_500, 0) for panel in panels[:2]]
    assert ticks[0] == "2.5k" and "k" not in ticks[1]
    assert panels[0].get_title() == "Hopper-v5" and panels[0].get_ylabel() == "evaluation return"
    plot.plt.close("all")


@pytest.mark.benchmark
def test_numbers_from_a_thousand_on_have_no_digits_after_the_point():
    import numpy as np
    import plot

    assert [plot.number(x) for x in (999.94, 1000.0, -1234.5, 0.26)] == ["999.9", "1,000", "-1,234", "0.3"]
    assert (plot.number(3.4, 2000.0), plot.number(1500.0, 10.0), plot.number(5.6, -1000.0)) == ("3", "1500.0", "6")
    assert plot.spread(np.array([1.0, 3.0])) == "2.0 ± 1.4" and plot.spread(np.array([1.0])) == "1.0"


@pytest.mark.benchmark
def test_seeds_that_do_not_overlap_are_one_point():
    """By hours too: where the first one ends, the second has just begun."""
    import numpy as np
    import plot

    runs = []
    for x in ([10, 20], [30, 40]):
        run = object.__new__(plot.Run)
        run.script, run.env_id, run.args = "td3", "Task-v0", {}
        run.steps, run.hours, run.returns = np.array(x), np.array(x) / 100, np.array(x, float)
        runs.append(run)
    assert plot.Curve(runs, hours=False).x.tolist() == [20]
    curve = plot.Curve(runs, hours=True)
    assert curve.x.tolist() == [0.2] and curve.values.tolist() == [[20], [30]]


@pytest.mark.benchmark
def test_curves_are_named_by_what_differs_among_those_of_their_script():
    """Another script's gamma is no difference; one of an older version lacks an argument."""
    import plot

    curves = []
    for script, args in (("td3", {"gamma": 0.9}), ("td3", {"gamma": 0.9, "tau": 0.1}), ("ddpg", {"gamma": 0.5})):
        curve = object.__new__(plot.Curve)
        curve.script, curve.args = script, {"seed": len(curves), **args}
        curves.append(curve)
    assert [curve.label(curves) for curve in curves] == ["td3", "td3, tau 0.1", "ddpg"]


@pytest.mark.benchmark
def test_runs_with_the_same_mathematics_make_one_curve():
    """Whatever only shows, times or places them; and in whatever order their arguments were written."""
    import numpy as np
    import plot

    def made(seed, **changes):
        run = object.__new__(plot.Run)
        args = {"env_id": "Task-v0", "seed": seed, "gamma": 0.9, "tau": 0.1, "compile": False, **changes}
        run.script, run.env_id, run.seed, run.args = (
            "td3",
            "Task-v0",
            seed,
            dict(sorted(args.items(), reverse=seed > 1)),
        )
        run.steps = run.hours = np.array([1, 2])
        run.returns = np.array([1.0, 2.0])
        return run

    show_or_time = {"cuda", "torch_threads", "compile", "cudagraphs", "track", "wandb_project", "wandb_entity"}
    show_or_time |= {"capture_video", "log_interval", "resume", "evaluate", "out_dir"}
    for name in grid.defaults((ROOT / "td3.py").read_text("utf-8")).keys() - {"seed", "env_id"}:
        [*curves] = plot.group([made(1), made(2, **{name: "another"})], hours=False)["Task-v0"]
        assert len(curves) == (1 if name in show_or_time else 2), name


def event_file(path: Path, start: float, returns: dict[int, float]) -> None:
    """Evaluations of a process that starts at this time and makes a step in a second."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    with open(path, "wb") as out:
        events = [Event(wall_time=start, file_version="brain.Event:2")]
        for step, value in returns.items():
            events.append(Event(wall_time=start + step, step=step))
            events[-1].summary.value.add(tag="eval/episodic_return", simple_value=value)
        for event in events:
            RecordWriter(out).write(event.SerializeToString())


@pytest.mark.benchmark
@pytest.mark.parametrize("names", ["ab", "ba"])
def test_what_a_resumed_run_evaluates_again_counts_once(tmp_path, names):
    """As it was the second time, whatever the order of the files."""
    import plot

    folder = tmp_path / "Task-v0__td3__4__1"
    folder.mkdir()
    (folder / "args.json").write_text(json.dumps({"env_id": "Task-v0", "seed": 4}))
    event_file(folder / f"events.{names[0]}", 1e9, {100: 1.0, 200: 2.0})
    event_file(folder / f"events.{names[1]}", 2e9, {200: 3.0, 300: 4.0})
    run = plot.Run(folder)
    assert (run.script, run.env_id, run.seed) == ("td3", "Task-v0", 4)
    assert (run.steps.tolist(), run.returns.tolist()) == ([100, 200, 300], [1, 3, 4])


@pytest.mark.benchmark
def test_what_a_kill_has_left_past_the_checkpoint_is_not_drawn(tmp_path):
    """Evaluated at 100, 150, 151, 200 and 300, then from the checkpoint at 150 again, and at 200 so far."""
    import plot
    from torch.utils.tensorboard import SummaryWriter

    folder = tmp_path / "Task-v0__td3__4__1"
    folder.mkdir()
    (folder / "args.json").write_text(json.dumps({"env_id": "Task-v0", "seed": 4}))
    event_file(folder / "events.before", 1e9, {100: 1.0, 150: 5.0, 151: 9.0, 200: 2.0, 300: 9.0})
    with SummaryWriter(folder, purge_step=151) as writer:
        writer.add_scalar("eval/episodic_return", 3.0, 200)
        writer.add_scalar("eval/episodic_return_std", 7.0, 200)
    run = plot.Run(folder)
    assert (run.steps.tolist(), run.returns.tolist()) == ([100, 150, 200], [1, 5, 3])
    assert run.hours[0] < run.hours[1] < run.hours[2]


@pytest.mark.benchmark
@pytest.mark.parametrize(
    "flags, picture, unit, where",
    [
        ([], "plot.png: 3 curves", "steps", "5,400"),
        (["--hours", "--output", "a.png"], "a.png: 1 curve", "hours", "1.50 h"),
    ],
)
def test_table_and_picture_by_steps_or_by_hours(tmp_path, monkeypatch, capsys, flags, picture, unit, where):
    """plot.png if nothing else is asked; the table is of the last values, and says of how many steps or hours."""
    import plot

    monkeypatch.chdir(tmp_path)
    runs = [("td3", "Other-v0"), ("ddpg", "Task-v0"), ("td3", "Task-v0")][: int(picture.split()[1])]
    folders = [tmp_path / f"{env_id}__{script}__1__1" for script, env_id in runs]
    for folder in folders:
        folder.mkdir()
        (folder / "args.json").write_text(json.dumps({"env_id": folder.name.split("__")[0], "seed": 1}))
        event_file(folder / "events.1", 1e9, {1_800: 1.0, 5_400: 2.0})
    monkeypatch.setattr(sys, "argv", ["plot.py", *map(str, reversed(folders)), "--table", *flags])
    drawn, draw_panels = [], plot.draw_panels
    monkeypatch.setattr(plot, "draw_panels", lambda number: drawn.append(draw_panels(number)) or drawn[-1])
    plot.main()
    [(_, panels)] = drawn
    assert [panel.get_title() for panel in panels] == list(dict.fromkeys(env_id for _, env_id in runs))
    assert {panel.get_xlabel() for panel in panels} == {"hours" if flags else "environment steps"}
    labels = [text.get_text() for panel in panels for text in panel.get_legend().texts]
    assert labels == [f"{script} (1 seed)" for script, _ in runs], "of curves that are drawn"
    said, errors = capsys.readouterr()
    assert said.startswith(f"| runs | environment | {unit} | seeds | return |\n")
    assert cells(said) == [[*run, where, "1", "2.0"] for run in runs] and errors == f"{picture}\n"
    assert (tmp_path / picture.split(":")[0]).exists()
