"""The benchmark: its grid, its runner with failing and interrupted runs, and the READMEs' tables from its results."""

import fcntl
import importlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import termios
import threading
import time
import types
from pathlib import Path

import pytest
from test_conventions import EQUATIONS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmark"))
import grid  # noqa: E402

GOOD = """
[[experiments]]
script = "ppo_continuous"
environments = ["Pendulum-v1"]
seeds = 2
arguments = { total_timesteps = 2_048, num_steps = 512, num_minibatches = 8, eval_episodes = 1, eval_interval = 512 }
"""
FAILING = """
[[experiments]]
script = "dqn"
environments = ["NoSuch-v0"]
seeds = 1
arguments = { total_timesteps = 20_000 }
"""
LONG = (
    GOOD.replace("2_048", "4_194_304")
    .replace("seeds = 2", "seeds = 1")
    .replace("= 8", "= 8, checkpoint_interval = 512")
)


STARTED = []


@pytest.fixture(autouse=True)
def leave_nothing_running():
    yield
    while STARTED:
        STARTED.pop().kill()  # its runs die with it


def start(folder: Path, experiments: str, *flags: str, **options) -> subprocess.Popen:
    (folder / "grid.toml").write_text(experiments)
    command = [sys.executable, str(ROOT / "benchmark" / "run.py"), "--experiments", str(folder / "grid.toml"), *flags]
    command += ["--results", str(folder / "results"), "--runs", str(folder / "runs"), "--progress", "0.5"]
    STARTED.append(
        subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options})
    )
    return STARTED[-1]


def wait_for(what, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.benchmark
def test_finished_runs_are_kept_and_skipped_and_a_failed_one_is_named(tmp_path):
    process = start(tmp_path, GOOD + FAILING, "--workers", "2")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(
        r"^failed: dqn/NoSuch-v0/1: exit status 2: dqn.py: --env-id NoSuch-v0 cannot be made", output, re.M
    )
    assert "2 finished, 1 failed, 0 left" in output
    for seed in (1, 2):
        about, rows = grid.read_result(tmp_path / "results" / "ppo_continuous" / "Pendulum-v1" / f"{seed}.csv")
        assert about["arguments"]["seed"] == seed and about["arguments"]["total_timesteps"] == 2_048
        assert about["code"] == grid.code_hash((ROOT / "ppo_continuous.py").read_text("utf-8"))
        assert [step for step, kind, _ in rows if kind == "eval"] == [512, 1024, 1536, 2048]
        assert [step for step, kind, _ in rows if kind == "train"] == list(range(200, 2001, 200))
    process = start(tmp_path, GOOD, "--only", "Pendulum", "/2/")
    assert "1 runs, 1 finished before" in process.communicate(timeout=60)[0] and process.returncode == 0


@pytest.mark.benchmark
def test_a_stopped_grid_goes_on_where_it_was_and_anew_if_its_arguments_changed(tmp_path):
    log = tmp_path / "runs" / "ppo_continuous" / "Pendulum-v1" / "1" / "log.txt"
    for number in range(2):
        process = start(tmp_path, LONG)
        wait_for(lambda n=number: log.exists() and log.read_text().rpartition("from step")[0].count("from step") == n)
        wait_for(lambda: "evaluation" in log.read_text().rpartition("from step")[2])
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGINT and "0 finished, 0 failed, 1 left" in output, output
    first, second = re.findall(r"from step ([\d,]+)", log.read_text())
    assert first == "0" and int(second.replace(",", "")) > 0
    process = start(tmp_path, LONG, "--list")
    assert re.search(r"Pendulum-v1/1: begun, [1-9][\d,]* steps", process.communicate(timeout=60)[0])
    process = start(tmp_path, LONG.replace("4_194_304", "1_024"))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "have changed: it starts anew" in output
    assert len(list(log.parents[1].glob("1.old-*/*/checkpoint.pt"))) == 1, "what there was is kept"
    assert re.findall(r"from step ([\d,]+)", log.read_text()) == ["0"]


@pytest.mark.skipif(not os.path.exists("/usr/bin/setpriv"), reason="needs setpriv, which ties a process to its parent")
def test_a_killed_runner_leaves_no_runs_behind(tmp_path):
    log = tmp_path / "runs" / "ppo_continuous" / "Pendulum-v1" / "1" / "log.txt"
    process = start(tmp_path, LONG)
    wait_for(lambda: log.exists() and "evaluation" in log.read_text())
    process.kill()
    process.wait()
    time.sleep(1)
    size = log.stat().st_size
    time.sleep(1)
    assert log.stat().st_size == size


@pytest.mark.benchmark
def test_a_run_that_is_killed_is_named_and_resumed_later(tmp_path):
    log = tmp_path / "runs" / "ppo_continuous" / "Pendulum-v1" / "1" / "log.txt"
    process = start(tmp_path, LONG)
    wait_for(lambda: list(log.parent.glob("*/checkpoint.pt")))
    (run,) = (pid for pid in Path("/proc").glob("[0-9]*") if is_run_in(log.parent, pid))
    os.kill(int(run.name), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"^failed: ppo_continuous/Pendulum-v1/1: killed by SIGKILL", output, re.M), output
    process = start(tmp_path, LONG)
    wait_for(lambda: log.read_text().count("from step") == 2)
    process.terminate()
    process.communicate(timeout=60)
    assert re.findall(r"from step ([\d,]+)", log.read_text())[1] != "0"


def is_run_in(folder: Path, process: Path) -> bool:
    try:
        return (process / "cwd").resolve() == folder and "ppo_continuous.py" in (process / "cmdline").read_text()
    except OSError:
        return False


@pytest.mark.benchmark
def test_a_closed_terminal_stops_the_grid_with_checkpoints(tmp_path):
    """Nothing can be printed any more, and SIGHUP comes."""
    folder = tmp_path / "runs" / "ppo_continuous" / "Pendulum-v1" / "1"
    controller, terminal = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests were started by

    own = {"start_new_session": True, "preexec_fn": take_terminal}
    process = start(tmp_path, LONG, stdin=terminal, stdout=terminal, stderr=terminal, **own)
    os.close(terminal)
    wait_for(lambda: list(folder.glob("*/checkpoint.pt")))
    closed = time.time()
    os.close(controller)
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    (checkpoint,) = folder.glob("*/checkpoint.pt")
    assert checkpoint.stat().st_mtime > closed


@pytest.mark.benchmark
def test_nohup_holds(tmp_path):
    log = tmp_path / "runs" / "ppo_continuous" / "Pendulum-v1" / "1" / "log.txt"
    process = start(tmp_path, LONG, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for(lambda: log.exists() and "evaluation" in log.read_text())
    process.send_signal(signal.SIGHUP)
    evaluations = log.read_text().count("evaluation")
    wait_for(lambda: log.read_text().count("evaluation") > evaluations + 5)
    assert process.poll() is None
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert output.count("stopping") == 1 and "0 failed, 1 left" in output


@pytest.mark.benchmark
def test_tracked_runs_have_the_group_of_their_row_and_tags(tmp_path):
    """With a package of wandb's name that notes the environment of the process."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "wandb.py").write_text(
        "import os, pathlib\n"
        "def __getattr__(name):\n"
        "    text = '\\n'.join(os.environ[f'WANDB_{what}'] for what in ('RUN_GROUP', 'TAGS'))\n"
        "    pathlib.Path(__file__).with_name('noted').write_text(text)\n"
        "    raise AttributeError(name)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "stub")}
    process = start(tmp_path, GOOD.replace("seeds = 2", "seeds = 1"), "--track", env=environment)
    assert "1 finished" in process.communicate(timeout=60)[0]
    group, tags = (tmp_path / "stub" / "noted").read_text().splitlines()
    assert group == "ppo_continuous/Pendulum-v1" and tags == "benchmark,ppo_continuous,Pendulum-v1"


def test_a_second_runner_is_refused_while_the_first_works(tmp_path):
    log = tmp_path / "runs" / "ppo_continuous" / "Pendulum-v1" / "1" / "log.txt"
    first = start(tmp_path, LONG)
    wait_for(log.exists)
    second = start(tmp_path, LONG)
    assert "is at work in" in second.communicate(timeout=60)[0] and second.returncode == 2
    first.send_signal(signal.SIGTERM)
    assert "1 left" in first.communicate(timeout=60)[0]


@pytest.mark.benchmark
def test_a_result_of_other_code_is_named_and_made_anew_on_demand(tmp_path):
    short = GOOD.replace("seeds = 2", "seeds = 1")
    start(tmp_path, short).communicate(timeout=60)
    path = tmp_path / "results" / "ppo_continuous" / "Pendulum-v1" / "1.csv"
    text = path.read_text()
    path.write_text(re.sub("# code: .*", "# code: 000000000000", text))
    assert "finished, but by other code" in start(tmp_path, short, "--list").communicate(timeout=60)[0]
    assert "1 finished before, 1 of them by other code" in start(tmp_path, short).communicate(timeout=60)[0]
    assert "# code: 000000000000" in path.read_text()
    start(tmp_path, short, "--redo-changed").communicate(timeout=60)
    assert "000000000000" not in path.read_text()
    assert path.read_text().partition("step,kind")[2] == text.partition("step,kind")[2]


@pytest.mark.parametrize(
    "experiments, message",
    [
        (GOOD.replace("seeds", "sedes"), "sedes is none of"),
        (GOOD.replace("seeds = 2", ""), "seeds is missing"),
        (GOOD.replace('["Pendulum-v1"]', '"Pendulum-v1"'), "environments is a list"),
        (GOOD.replace("total_timesteps", "gamma"), "total_timesteps is missing"),
        (GOOD + GOOD, "more than once: ppo_continuous/Pendulum-v1/1, ppo_continuous/Pendulum-v1/2"),
        (GOOD.replace("ppo_continuous", "nothing"), "no script nothing"),
        (GOOD.replace("num_steps", "steps"), "ppo_continuous.py has no steps"),
        (GOOD.replace("2_048", '"2k"'), "total_timesteps = '2k' is not of the type of its default"),
        (GOOD.replace("2_048", "1e6"), "total_timesteps = 1000000.0 is not of the type"),
        (GOOD.replace("= 8", "= 8, gamma = true"), "gamma = True is not of the type"),
        (GOOD.replace("= 8", "= 8, seed = 3"), "seed is set by run.py"),
        (GOOD.replace("interval = 512", "interval = 0"), "a result needs evaluations"),
        (GOOD.replace("seeds = 2", 'seeds = ["a"]'), "seeds is their number, or a list"),
        (GOOD.replace("seeds = 2", "seeds = 0"), "seeds is their number, or a list"),
        (
            GOOD + GOOD.replace("seeds = 2", "seeds = [3]").replace("= 8", "= 4"),
            "Pendulum-v1 has two sets of arguments",
        ),
        (GOOD.replace("[[experiments]]", "[experiments]"), "no list of [[experiments]]"),
        ("[[experiments", "grid.toml"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused(tmp_path, experiments, message):
    process = start(tmp_path, experiments)
    assert message in process.communicate(timeout=60)[0] and process.returncode == 2
    assert not (tmp_path / "runs").exists()


def test_the_grid_of_the_repository_has_scripts_and_known_arguments():
    for run in grid.grid(ROOT / "benchmark" / "experiments.toml"):
        known = grid.defaults((ROOT / f"{run.script}.py").read_text("utf-8"))
        assert run.arguments.keys() <= known.keys() and "total_timesteps" in run.arguments
        same = {name for name, value in run.arguments.items() if known[name] == value} - {"total_timesteps", "compile"}
        assert not same, f"{run.row}: {same} are the defaults"
        assert "compile" in run.arguments or not known["compile"], f"{run.row} hangs on the default of compile"


SMALL = '''"""A header."""

import math
@dataclass
class Args:
    gamma: float = 0.99
# ---- Equations ----
def f(x):
    return -x
# ======== Part 2: what every run needs ========
# ---- Speed ----
def speed_up(f):
    return f
# ---- Run ----
class Run: ...
'''


def test_code_hash_is_of_what_determines_a_result():
    assert grid.code_hash(SMALL) == "2f79525d58b5", "another one makes every result look changed"
    source = (ROOT / "td3.py").read_text("utf-8")
    code = grid.code_hash(source)
    for old, new in (
        ("(1 - terminated)", "(1-terminated)"),
        ("\n    return ", "\n    # why\n    return "),
        ("import copy\n", "import copy\nimport csv\n"),
        ("gamma: float = 0.99", "gamma: float = 0.9"),  # compared on its own, with the other arguments
        ('"""Twin Delayed', '"""The'),
        ('"""The last `capacity`', '"""The latest `capacity`'),
        ("# Matrix products", "# The matrix products"),
        ('"""Adam (arXiv:1412.6980', '"""The optimizer (arXiv:1412.6980'),
        ("print(text", "print(text.upper()"),
    ):
        assert source.count(old) and grid.code_hash(source.replace(old, new)) == code, old
    for old, new in (
        ("* (1 - terminated)", ""),
        ("torch.minimum", "torch.maximum"),
        ("num_inputs, 256", "num_inputs, 64"),
        ("self.num_added += 1", "self.num_added += 2"),
        ("self.num_updates += 1", "self.num_updates += 2"),
        ("buffer.num_added >= args.learning_starts", "buffer.num_added > args.learning_starts"),
        ('"beta2": 0.999', '"beta2": 0.99'),
    ):
        assert source.count(old) and grid.code_hash(source.replace(old, new)) != code, old


def test_every_result_says_what_it_was_made_by():
    for path in (ROOT / "benchmark" / "results").glob("*/*/*.csv"):
        about, rows = grid.read_result(path)
        fields = "commit", "code", "arguments", "versions", "machine", "device", "wall time"
        assert tuple(about) == fields and all(about.values()) and rows, path
        assert str(about["arguments"]["seed"]) == path.stem, path


def test_the_peers_play_against_arguments_that_the_scripts_have():
    import speed

    for case in speed.CASES.values():
        known = grid.defaults((ROOT / f"{case['script']}.py").read_text("utf-8"))
        flags = {flag.removeprefix("--").replace("-", "_") for flag in case["ours"] if flag.startswith("--")}
        assert flags <= known.keys() and {"eval_interval", "checkpoint_interval", "torch_threads"} <= known.keys()
    assert {case["script"] for case in speed.CASES.values()} == EQUATIONS.keys()


def test_the_speed_of_a_script_is_measured_as_its_name_says(monkeypatch):
    """With --compile or without, whatever the default; a script that went on without it has no speed with it."""
    import speed

    commands, status = [], 1

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, status, "going on without --compile, which failed: why", "")

    monkeypatch.setattr(speed.subprocess, "run", run)
    expected = {
        "PlainRL": ["--no-compile"],
        "PlainRL compiled": ["--compile"],
        "PlainRL captured": ["--no-compile", "--cudagraphs"],
        "PlainRL compiled, captured": ["--compile", "--cudagraphs"],
    }
    for name, flags in expected.items():
        for case in ("td3", "dqn"):
            with pytest.raises(SystemExit, match="failed"):
                speed.measure(case, name, 1, 1_000, "captured" in name)
            assert [flag for flag in commands[-1] if flag in ("--compile", "--no-compile", "--cudagraphs")] == flags
    assert "going on without --compile" in (ROOT / "td3.py").read_text("utf-8")
    status = 0
    with pytest.raises(SystemExit, match="going on without"):
        speed.measure("td3", "PlainRL compiled", 1, 1_000, False)
    fails = subprocess.CompletedProcess([], 1, "", "no memory")
    monkeypatch.setattr(speed.subprocess, "run", lambda *_, **__: fails)
    with pytest.raises(SystemExit, match="SB3 failed:\nno memory"):
        speed.measure("td3", "SB3", 1, 1_000, False)


def test_speeds_of_another_number_of_threads_stay_if_all_else_is_equal(tmp_path, monkeypatch):
    import speed

    monkeypatch.setattr(speed, "ROOT", tmp_path)
    path = tmp_path / "benchmark" / "results" / "speed" / "td3.json"
    speed.save("td3", {"code": "a"}, 1, [{"SB3": 1.0}])
    speed.save("td3", {"code": "a"}, 2, [{"SB3": 2.0}])
    assert json.loads(path.read_text()) == {"code": "a", "rounds": {"1": [{"SB3": 1.0}], "2": [{"SB3": 2.0}]}}
    speed.save("td3", {"code": "a"}, 1, [{"SB3": 4.0}])
    assert json.loads(path.read_text())["rounds"] == {"1": [{"SB3": 4.0}], "2": [{"SB3": 2.0}]}, "measured again"
    speed.save("td3", {"code": "b"}, 1, [{"SB3": 3.0}])
    assert json.loads(path.read_text()) == {"code": "b", "rounds": {"1": [{"SB3": 3.0}]}}
    about = {"machine": "A", "versions": "v", "device": "cpu", "code": "b"}
    for name in about:
        speed.save("td3", about, 1, [{"SB3": 1.0}])
        speed.save("td3", about | {name: "another"}, 2, [{"SB3": 2.0}])
        assert json.loads(path.read_text())["rounds"] == {"2": [{"SB3": 2.0}]}, name


def test_results_are_read_as_they_were_written(tmp_path):
    about = {
        "commit": "abc",
        "code": "def",
        "arguments": {"env_id": "A-v0", "seed": 1, "alpha": None},
        "wall time": "3 s",
    }
    rows = [(10, "train", 1.5), (10, "eval", -2.0)]
    grid.write_result(tmp_path / "1.csv", about, rows)
    assert grid.read_result(tmp_path / "1.csv") == (about, sorted(rows))
    (tmp_path / "2.csv").write_text("step,kind,return\n10,train,1.5\n")
    with pytest.raises(ValueError, match=r"2\.csv is not a result"):
        grid.read_result(tmp_path / "2.csv")


@pytest.mark.benchmark
def test_tables_and_figures_are_those_of_the_results():
    import report

    made = report.tables()
    for path in (ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "benchmark" / "README.md"):
        text = path.read_text("utf-8")
        assert re.search("<!-- table: ", text)
        assert report.fill(text, made) == text, f"{path.name} is not up to date: run benchmark/report.py"
    from PIL import Image

    for name in report.FIGURES:
        drawn = Image.open(ROOT / "benchmark" / "figures" / f"{name}.png").text["Data"]
        rows = report.rows_of(name, report.load_rows())
        now = report.digest(rows, report.figures_of(rows, report.load_published()))
        assert drawn == now, f"{name}.png is not up to date"


@pytest.mark.parametrize("script", sorted(EQUATIONS))
def test_headers_state_the_results(script):
    """Each "environment mean ± deviation" of a header's Results, their number of steps and of seeds."""
    text = " ".join(re.search(r"^Results .*?\n\n", (ROOT / f"{script}.py").read_text("utf-8"), re.S | re.M)[0].split())
    (steps,) = (int(steps.replace(",", "")) for steps in re.findall(r"([\d,]+) steps", text))
    (kind,) = re.findall("last 100 training episodes|evaluation", text)
    seeds_of_all = re.search(r"± (?:standard )?deviation of (\d+) seeds", text)
    stated = re.findall(r"(\S+-v\d) (-?[\d.]+) ± ([\d.]+)(?: \((\d+) seeds\))?", text)
    for env_id, mean, deviation, seeds in stated:
        values = []
        for path in (ROOT / "benchmark" / "results" / script / env_id).glob("*.csv"):
            _, rows = grid.read_result(path)
            returns = [value for _, of, value in rows if of == ("eval" if kind == "evaluation" else "train")]
            assert steps <= rows[-1][0] < steps * 1.01, f"{path} has another number of steps"
            values.append(returns[-1] if kind == "evaluation" else statistics.mean(returns[-100:]))
        digits = len(mean.partition(".")[2])
        ours = f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"
        assert ours == f"{mean} ± {deviation}" and len(values) == int(seeds or seeds_of_all[1])
    assert stated


@pytest.mark.parametrize(
    "row, last, stated",
    [
        ("variants/ppo_continuous/HalfCheetah-v5__envs-64", 1, "{mean:.0f} ± {deviation:.0f} in the last evaluation"),
        ("ppo_continuous/HalfCheetah-v5", 1, "not {mean:.0f} ± {deviation:.0f}: the variant `envs-64`"),
        ("sac_continuous/Hopper-v5", 10, "{mean:.0f} ± {deviation:.0f} over the last 100,000 steps"),
        ("variants/sac_continuous/Hopper-v5__tianshou", 1, "{mean:.0f} ± {deviation:.0f} at the end"),
        ("variants/sac_continuous/Hopper-v5__tianshou", 10, "{mean:.0f} ± {deviation:.0f} over those steps"),
        ("peer/sbx_sac/Hopper-v5", 10, "SBX's SAC has {mean:.0f} ± {deviation:.0f}"),
    ],
)
def test_the_causes_of_rows_that_are_behind_are_those_of_the_results(row, last, stated):
    """benchmark/README.md on the mean of each seed's last so many evaluations."""
    values = []
    for path in (ROOT / "benchmark" / "results" / row).glob("*.csv"):
        returns = [value for _, of, value in grid.read_result(path)[1] if of == "eval"]
        values.append(statistics.mean(returns[-last:]))
    text = stated.format(mean=statistics.mean(values), deviation=statistics.stdev(values))
    assert text in re.sub(r"\s+", " ", (ROOT / "benchmark" / "README.md").read_text("utf-8"))


EXPERIMENTS = {  # how many kinds of training each has
    **{"entropy": 12, "gradient_steps": 3, "heads": 3, "overestimation": 4, "premature": 4, "saturation": 3},
    **{"reward_scale": 16, "robustness": 10, "stages": 4, "td3_parts": 4, "temperature": 4, "time_limits": 2},
}


@pytest.mark.benchmark
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiments_about_the_notes_train(monkeypatch, name):
    """With few steps: every kind of each has its values, which another kind does not have, named as in its data."""
    monkeypatch.syspath_prepend(ROOT / "benchmark" / "notes")
    experiment, written = importlib.import_module(name), {}
    train = experiment.train

    def train_briefly(script, arguments, *rest):
        brief = {
            "total_timesteps": 512,
            "eval_interval": 256,
            "eval_episodes": 1,
            "log_interval": 128,
            "compile": False,
        }
        ppo, off_policy = {"num_steps": 64, "num_minibatches": 4}, {"learning_starts": 384, "batch_size": 32}
        return train(script, {**arguments, **brief, **(ppo if script.startswith("ppo") else off_policy)}, *rest)

    monkeypatch.setattr(experiment, "train", train_briefly)
    monkeypatch.setattr(experiment, "NUM_EPISODES", 1, raising=False)
    if name == "reward_scale":  # changes them in the middle
        monkeypatch.setattr(experiment, "STEPS", dict.fromkeys(experiment.STEPS, 512))
    monkeypatch.setattr(experiment, "write", lambda _, kind, seed, rows: written.update({kind: rows}))
    experiment.run(1, *["td3-InvertedDoublePendulum"] * (name == "saturation"))  # one of its tasks
    assert len(written) == EXPERIMENTS[name]
    names = {kind: {name for _, name, _ in rows} for kind, rows in written.items()}
    kinds_of_names = 4 if name == "robustness" else 1  # two tasks; TD3's policy is not sampled
    assert all(names.values()) and len(set(map(frozenset, names.values()))) == kinds_of_names, names
    assert len({tuple(rows) for rows in written.values()}) == len(written), "two kinds have the same values"
    for kind, of_kind in names.items():
        lines = importlib.import_module("common").path_of(name, kind, 1).read_text("utf-8").splitlines()[1:]
        assert of_kind == {line.split(",")[1] for line in lines}, kind


@pytest.mark.benchmark
def test_data_of_the_notes_have_six_digits_of_small_and_of_large_values(monkeypatch, tmp_path):
    """A KL of 0.0001 is not 0; a seed that is run again has the new values only; curves end with the shortest."""
    monkeypatch.syspath_prepend(ROOT / "benchmark" / "notes")
    common = importlib.import_module("common")
    monkeypatch.setattr(common, "NOTES", tmp_path)
    common.write("kl", "plain", 1, [(128, "kl", 5.0)])
    common.write("kl", "plain", 1, [(128, "kl", 0.000123456), (128, "other", 1.0), (256, "kl", 12345.6)])
    common.write("kl", "plain", 2, [(128, "kl", -2e-9)])
    steps, values = common.read("kl", "plain", "kl", seeds=(1,))
    assert steps.tolist() == [128, 256] and values.tolist() == [[0.000123456, 12345.6]]
    steps, values = common.read("kl", "plain", "kl", seeds=(1, 2))
    assert steps.tolist() == [128] and values.tolist() == [[0.000123456], [-2e-9]]


@pytest.fixture
def common(monkeypatch, tmp_path):
    """What the experiments about the notes share, with data in the folder of the test."""
    monkeypatch.syspath_prepend(ROOT / "benchmark" / "notes")
    module = importlib.import_module("common")
    monkeypatch.setattr(module, "NOTES", tmp_path)
    return module


@pytest.mark.benchmark
def test_training_of_an_experiment_is_that_of_the_script_with_its_changes(common, monkeypatch):
    """Not compiled and without a checkpoint, which would cut an episode; afterwards the script is as it was."""
    import torch

    script, seen = importlib.import_module("td3"), []
    log, loss = script.Run.log, script.actor_loss

    def train(args):
        seen.append((args, script.actor_loss(torch.ones(2)).item()))
        assert Path(args.out_dir).is_dir()
        for step, values in ((5, {"losses/q": 1.0, "losses/actor_loss": 2.0}), (9, {"eval/episodic_return": 3.0})):
            script.Run.log(types.SimpleNamespace(step=step), values, None)

    monkeypatch.setattr(script, "train", train)
    rows = common.train(
        "td3",
        {"gamma": 0.7, "log_interval": 5},
        4,
        ["losses/q", "eval/episodic_return"],
        {"actor_loss": lambda true: lambda *what: 2 * true(*what)},
        {"ten steps more": lambda run: run.step + 10},
    )
    assert rows == [(5, "losses/q", 1.0), (9, "eval/episodic_return", 3.0), (9, "ten steps more", 19)]
    [(args, doubled)] = seen
    assert doubled == -2 and script.Run.log is log and script.actor_loss is loss
    own = {"gamma": 0.7, "log_interval": 5, "seed": 4, "compile": False, "checkpoint_interval": 0}
    assert args == script.Args(**own, out_dir=args.out_dir) and not Path(args.out_dir).exists()
    common.train("td3", {"checkpoint_interval": 7, "compile": True}, 4, [])
    assert (seen[1][0].checkpoint_interval, seen[1][0].compile) == (7, True), "where an experiment says so"


@pytest.mark.benchmark
def test_band_of_an_experiment_is_the_mean_and_the_range_of_its_seeds(common):
    """At 5: 1, 2 and 6, of which the mean is 3. A seed that is missing is named."""
    from matplotlib import pyplot as plt

    for seed, value in ((1, 1.0), (2, 2.0), (3, 6.0)):
        common.write("kl", "plain", seed, [(5, "kl", value), (6, "kl", value), (6, "other", 9.0)])
    panel = plt.figure().subplots()
    common.band(panel, "kl", "plain", "kl", "C1", "a label", style="--")
    [line], [filled] = panel.lines, panel.collections
    assert line.get_xydata().tolist() == [[5, 3], [6, 3]] and line.get_label() == "a label"
    heights = filled.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max(), line.get_linestyle()) == (1, 6, "--")
    plt.close("all")
    with pytest.raises(SystemExit, match=r"plain__4\.csv is missing: run seed 4"):
        common.read("kl", "plain", "kl", seeds=(1, 4))


@pytest.mark.benchmark
def test_band_is_of_the_seeds_that_are_asked_for(common):
    """Seeds 2 and 5, of 2 and 8: their mean is 5. Seed 1 is not among them, and seed 3 does not even exist."""
    from matplotlib import pyplot as plt

    for seed, value in ((1, 90.0), (2, 2.0), (5, 8.0)):
        common.write("kl", "plain", seed, [(5, "kl", value)])
    panel = plt.figure().subplots()
    common.band(panel, "kl", "plain", "kl", "C1", "a label", (2, 5))
    [line], [filled] = panel.lines, panel.collections
    assert line.get_xydata().tolist() == [[5, 5]]
    heights = filled.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (2, 8)
    plt.close("all")


@pytest.mark.benchmark
def test_experiment_draws_unless_it_is_told_to_run(common, monkeypatch):
    done = []
    for words in ([], ["draw"], ["run"], ["run", "3"]):
        monkeypatch.setattr(sys, "argv", ["kl.py", *words])
        common.main("A title.", lambda seed: done.append(seed), lambda: done.append("drawn"))
    assert done == ["drawn", "drawn", 1, 3]


@pytest.mark.benchmark
def test_seconds_of_gradient_steps_are_those_of_training_alone(monkeypatch):
    """Training of 3 and 4 seconds, each before an evaluation of 10: the evaluations see 3 and 7."""
    monkeypatch.syspath_prepend(ROOT / "benchmark" / "notes")
    experiment, now, seen = importlib.import_module("gradient_steps"), [5.0], []
    monkeypatch.setattr(experiment, "time", types.SimpleNamespace(process_time=lambda: now[0]))
    clock = experiment.Clock()

    class Run:
        def evaluate_if_due(self):
            seen.append(clock.total)
            now[0] += 10

    run = clock.pausing(Run)()
    for seconds in (3, 4):
        now[0] += seconds
        run.evaluate_if_due()
    assert seen == [3, 7]


@pytest.mark.benchmark
def test_the_task_on_which_ddpg_stops_learning(monkeypatch, tmp_path):
    """Leaving to the left is worth 1 and ends an episode; a run ends when its policy went left four times in a row."""
    monkeypatch.syspath_prepend(ROOT / "benchmark" / "notes")
    import toy

    env = toy.gym.make("Toy-v0")
    env.reset(seed=0)
    steps = [env.step([action])[:4] for action in (0.1, -0.0625, -0.1)]
    assert [(round(float(obs[0]), 4), *rest) for obs, *rest in steps] == [
        (0.1, 0, False, False),
        (0.0375, 0, False, False),
        (0, 1, True, False),
    ]
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(toy, "NOTES", tmp_path)
    monkeypatch.setitem(toy.KINDS, "ddpg", ("ddpg.py", "ddpg", 2, {}))
    monkeypatch.setattr(toy, "INTERVAL", 100)
    toy.run("ddpg")
    runs = toy.read("ddpg")
    assert list(runs) == [1, 2]
    for run in runs.values():
        assert set(run) == set(toy.NAMES) and (run["action"][-4:] < 0).all()
        assert len(run["action"]) < toy.STEPS / 100 and sorted(run["num_rewards"]) == run["num_rewards"].tolist()


@pytest.mark.benchmark
def test_a_run_of_that_task_ends_after_four_evaluations_to_the_left_in_a_row(monkeypatch):
    """Left three times, right once, then left: the fourth in a row is the eighth evaluation, 8 · 250 = 2,000 steps."""
    monkeypatch.syspath_prepend(ROOT / "benchmark" / "notes")
    import toy

    class Run:
        def steps(self):
            yield from range(1, 5_001)

    actions = iter([-0.5, -0.5, -0.5, 0.5] + [-0.5] * 16)
    monkeypatch.setattr(toy, "action_at_start", lambda run: next(actions))
    assert list(toy.until_solved(Run)().steps()) == list(range(1, 2_001))


@pytest.fixture
def experiment(monkeypatch):
    """Gives a file of benchmark/notes by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmark" / "notes")
    return importlib.import_module


@pytest.mark.benchmark
def test_what_an_experiment_puts_in_the_place_of_an_equation(experiment):
    """One critic, twice: 1 + 0.5 * 5. Entropy 3 and target -1 of log α = 2: -4. A bonus that is added. `done` twice."""
    import torch

    td_target = experiment("td3_parts").one_critic(importlib.import_module("td3").td_target)
    one, five, three = torch.ones(1), torch.tensor([5.0]), torch.tensor([3.0])
    assert [td_target(one, 0 * one, *q, 0.5).item() for q in ((five, three), (three, five))] == [3.5, 2.5]
    log_alpha = torch.tensor(2.0, requires_grad=True)
    loss = experiment("temperature").note_001(None)(log_alpha, torch.tensor([-2.0, -4.0]), -1.0)
    loss.backward()
    assert (loss.item(), log_alpha.grad.item()) == (-4, -2)
    assert experiment("entropy").add(lambda *parts: parts)(1, 2, 3, 4, 5) == (1, 2, -3, 4, 5)
    gae = experiment("time_limits").limits_are_ends(lambda *parts: parts)
    assert gae("r", "v", "v'", "terminated", "done", 0.9, 0.8) == ("r", "v", "v'", "done", "done", 0.9, 0.8)


@pytest.mark.benchmark
def test_target_entropy_of_an_experiment_jumps_once_after_the_middle_of_each_run(experiment, monkeypatch):
    """Of 16 steps, four at a time: in the 12th. Along a line it arrives at the end, counted from the first update."""
    stages, jumps = experiment("stages"), []

    class Run:
        def __init__(self):
            self.agent = types.SimpleNamespace(set_target_entropy=lambda value: jumps.append((self.step, value)))

        def steps(self):
            for self.step in (4, 8, 12, 16):
                yield self.step

    for _ in range(2):
        assert list(stages.with_jump(16)(Run)().steps()) == [4, 8, 12, 16]
    assert jumps == [(12, -1.0)] * 2
    asked = {}
    monkeypatch.setattr(stages, "train", lambda *what: what)
    monkeypatch.setattr(stages, "with_jump", lambda steps: f"after half of {steps}")
    monkeypatch.setattr(stages, "write", lambda _, kind, seed, what: asked.update({(kind, seed): what}))
    stages.run(2)
    for script, steps, duration in (("sac_continuous", 15_000, 14_000), ("ppo_continuous", 100_000, 100_000)):
        jump, line = asked.pop((f"{script}-jump", 2)), asked.pop((f"{script}-line", 2))
        assert jump[4] == {"Run": f"after half of {steps}"} and line[4:] == () and jump[1]["target_entropy"] == 0.5
        assert line[1] == jump[1] | {"target_entropy_end": -1.0, "target_entropy_duration": duration}
    assert asked == {}


@pytest.mark.benchmark
def test_rewards_of_an_experiment_grow_after_the_middle_and_returns_stay_in_their_unit(experiment, monkeypatch):
    """Of 8 steps the last four are scaled by 10, and the next run begins at 1; α goes along a line to a thousandth."""
    import torch

    scaled = experiment("reward_scale")
    monkeypatch.setattr(scaled.Scaled, "scale", 1.0)

    class Run:
        args = types.SimpleNamespace(alpha=0.5)

        def __init__(self):
            self.agent = types.SimpleNamespace(log_alpha=torch.zeros(()))

        def steps(self):
            yield from range(1, 9)

    for falling, alphas in ((False, [1.0] * 8), (True, [0.4375, 0.375, 0.3125, 0.25, 0.1875, 0.125, 0.0625, 0.0005])):
        run = scaled.with_scale(8, 10, falling)(Run)()
        seen = [(scaled.Scaled.scale, run.agent.log_alpha.exp().item()) for _ in run.steps()]
        assert [scale for scale, _ in seen] == [1, 1, 1, 1, 10, 10, 10, 10]
        assert [alpha for _, alpha in seen] == pytest.approx(alphas)
    envs = [scaled.gym.make(env_id) for env_id in ("ScaledPendulum-v0", "Pendulum-v1")]
    ours, true = [env.reset(seed=1) and env.step([0.5])[1] for env in envs]
    assert ours == pytest.approx(10 * true)
    rows = [
        (4_000, "eval/episodic_return", -5.0),
        (4_500, "eval/episodic_return", -50.0),
        (4_500, "losses/entropy", 2.0),
    ]
    written, asked = {}, []
    monkeypatch.setattr(scaled, "train", lambda script, task, *rest: rows)
    monkeypatch.setattr(scaled, "with_scale", lambda *_, falling: asked.append(falling))
    monkeypatch.setattr(scaled, "write", lambda _, kind, seed, what: written.update({kind: what}))
    scaled.run(1)
    assert written["sac_continuous-fixed-1"] == rows
    assert written["sac_continuous-fixed-10"] == [rows[0], (4_500, "eval/episodic_return", -5.0), rows[2]]
    assert [kind for kind, falling in zip(written, asked, strict=True) if falling] == [
        "sac_continuous-line-1",
        "sac_continuous-line-10",
    ]


@pytest.mark.benchmark
def test_the_opponent_of_the_three_heads_guesses_what_was_done_lately(experiment):
    """It remembers over episodes, and the later of two choices weighs more; the side is the one that was shown."""
    env = experiment("heads").Duel()
    obs, _ = env.reset(seed=0)
    rewards, sides = [], []
    for fire, choose, miss in ((0, 0, 0), (1, 3, 0), (1, 3, 1), (0, 3, 0), (1, 2, 0)):
        sides.append(int(obs.argmax()))
        obs, reward, terminated, truncated, _ = env.step([(sides[-1] + miss) % 3, fire, choose])
        rewards.append(reward)
        assert not terminated and not truncated and obs.sum() == 1
    assert rewards == [-1, 1, -2, 0, 1]  # a guess of 0 and 0, then 0 and 0, 1 and 3, 1 and 3, 0 and 3: 1.9 for 1.539
    for _ in range(19):
        assert env.step([0, 0, 2])[2:4] == (False, False)
    assert env.step([0, 0, 2])[2:4] == (False, True), "cut after 25 steps"
    obs, _ = env.reset()
    assert env.step([int(obs.argmax()), 0, 2])[1] == -1, "it remembers"
    seen = [int(env.step([0, 0, 0])[0].argmax()) for _ in range(24)]
    assert set(seen) == {0, 1, 2}


@pytest.mark.benchmark
def test_returns_of_the_heads_are_means_of_bins_and_entropies_shares_of_the_largest(experiment):
    """Of 2,048 steps each; the largest entropies are log 3, log 2 and log 4."""
    rows = [(25, "charts/episodic_return", 1.0), (2_025, "charts/episodic_return", 4.0)]
    rows += [(2_048, "losses/entropy_0", 1.0986), (2_048, "losses/entropy_1", 0.34657)]
    rows += [(2_075, "charts/episodic_return", 6.0), (4_096, "losses/entropy_2", 1.3863)]
    thinned = experiment("heads").thin(rows)
    assert [row for row in thinned if row[1] == "return"] == [(2_048, "return", 2.5), (4_096, "return", 6.0)]
    shares = [(2_048, "share_0"), (2_048, "share_1"), (4_096, "share_2")]
    assert [row[:2] for row in thinned if row[1] != "return"] == shares
    assert [row[2] for row in thinned if row[1] != "return"] == pytest.approx([1, 0.5, 1], abs=1e-4)


@pytest.mark.benchmark
@pytest.mark.parametrize(
    "actions, reward, positions",
    [
        ([0], 0.2, [0]),
        ([2], 0.0, [0]),
        ([1, 0], 0.0, [1, 1]),
        ([1, 1], 0.0, [1, 1]),
        ([1, 2, 1, 1], 0.0, [1, 2, 3, 3]),
        ([1, 2, 1, 2], 1.0, [1, 2, 3, 3]),
    ],
)
def test_the_lock_pays_a_little_at_once_or_much_at_its_end(experiment, actions, reward, positions):
    """An episode ends with its reward, or with the first wrong action; before that nothing is paid."""
    env = experiment("premature").gym.make("Lock-v0")
    env.reset(seed=0)
    steps = [env.step(action) for action in actions]
    assert [step[1] for step in steps] == [0] * (len(steps) - 1) + [reward]
    assert [step[2:4] for step in steps] == [(False, False)] * (len(steps) - 1) + [(True, False)]
    assert [int(step[0].argmax()) for step in steps] == positions


@pytest.mark.benchmark
def test_ddpg_and_td3_explore_that_task_by_the_policy_and_uniform_actions(experiment):
    """A tenth of the steps, anywhere between the bounds; there is no other noise, and none where it is played."""
    import torch

    class Agent:
        def act(self, obs, explore):
            assert explore is False, "the policy without its noise"
            return 7.0

    torch.manual_seed(0)
    agent = experiment("toy").with_uniform_actions(Agent)()
    assert [agent.act(None, explore=False) for _ in range(100)] == [7.0] * 100
    actions = [agent.act(None, explore=True) for _ in range(2_000)]
    uniform = [action.item() for action in actions if not isinstance(action, float)]
    assert 150 < len(uniform) < 250 and -1 <= min(uniform) < -0.9 and 0.9 < max(uniform) <= 1


@pytest.mark.benchmark
def test_what_is_measured_of_that_task(experiment, monkeypatch):
    """At 0: the action 0.5; Q = -2 a² of it falls by 2; tanh lets 0.75 through. Two of three rewards are 1."""
    import numpy as np
    import torch

    toy = experiment("toy")
    buffer = importlib.import_module("ddpg").ReplayBuffer(1, 1, 10, torch.device("cpu"))
    for action, reward in ((0.3, 0.0), (-0.1, 1.0), (-0.2, 1.0)):
        buffer.add(np.ones(1), np.array([action]), reward, np.ones(1), reward > 0)
    buffer.rows[3:] = 1.0  # what torch.empty has left there

    def act(obs, explore):
        assert obs.tolist() == [0] and explore is False
        return np.array([0.5], np.float32)

    def critic(obs, action):
        return (obs - 2 * action**2).squeeze(-1)

    for critics in ({"critic": critic}, {"critics": [critic, None]}):
        run = types.SimpleNamespace(agent=types.SimpleNamespace(act=act, **critics), buffer=buffer)
        measured = {name: measure(run) for name, measure in toy.MEASURES.items()}
        assert measured == {"action": 0.5, "slope": 0.75, "dq_da": -2, "num_rewards": 2}
    runs = {1: [0.5, 0.0, -1.0, -1.0], 2: [0.5, -1.0], 3: [-1.0, 0.5, 1.0, 1.0]}
    monkeypatch.setattr(toy, "read", lambda kind: {seed: {"action": np.array(a)} for seed, a in runs.items()})
    assert (3 * toy.share_not_left("ddpg")).round(6).tolist() == [2, 2, 1, 1], "a run that ended stays to the left"


@pytest.mark.benchmark
def test_runs_of_that_task_are_of_their_kind(experiment, monkeypatch, tmp_path):
    """Only those of DDPG and TD3 explore uniformly and end early; every seed from 1 on is in one file."""
    toy, asked = experiment("toy"), []
    monkeypatch.setattr(toy, "NOTES", tmp_path)
    monkeypatch.setattr(toy, "train", lambda *what: asked.append(what) or [(250, "action", 0.125)])
    for kind, script, seeds, steps in (("td3", "td3", 100, 5_000), ("sac-0.01", "sac_continuous", 30, 2_000)):
        toy.run(kind)
        assert [what[2] for what in asked] == list(range(1, seeds + 1)) and {what[0] for what in asked} == {script}
        assert asked[0][1]["total_timesteps"] == steps and asked[0][1]["learning_starts"] == 1
        changes = {"Run": toy.until_solved, "Agent": toy.with_uniform_actions} if kind == "td3" else {}
        assert all(what[4:] == (changes, toy.MEASURES) for what in asked)
        assert {seed: run["action"].tolist() for seed, run in toy.read(kind).items()} == {
            seed: [0.125] for seed in range(1, seeds + 1)
        }
        asked.clear()


@pytest.mark.benchmark
def test_share_of_saturated_actions_leaves_training_its_random_numbers(experiment):
    """Of components beyond 0.99: half. The last layer alone begins small, and differently in each entry."""
    import torch

    saturation = experiment("saturation")
    obs = torch.tensor([[0.995, -1.0], [0.98, -0.5]]).repeat(500, 1)

    def sample(number):
        assert number == 1_000
        return types.SimpleNamespace(obs=obs + 0 * torch.rand(1))

    torch.manual_seed(0)
    before = torch.get_rng_state()
    run = types.SimpleNamespace(agent=lambda obs: obs, buffer=types.SimpleNamespace(sample=sample))
    assert saturation.share_of_saturated(run) == 0.5
    assert torch.equal(torch.get_rng_state(), before)
    layers = list(saturation.small_last_layer(importlib.import_module("td3").Actor)(3, 2).net.children())
    assert 2e-3 < layers[-1].weight.abs().max() <= 3e-3 and layers[-1].bias.abs().max() <= 3e-3
    assert layers[-1].weight.std() > 1e-3 and layers[0].weight.abs().max() > 0.1


@pytest.mark.benchmark
def test_runs_about_saturation_are_those_that_are_asked_for(experiment, monkeypatch):
    """The runners have three seeds, the pendulum ten and fewer steps; each change is of its kind."""
    saturation, asked = experiment("saturation"), {}
    monkeypatch.setattr(saturation, "train", lambda *what: what)
    monkeypatch.setattr(saturation, "write", lambda _, kind, seed, what: asked.update({kind: what}))
    saturation.run(3)
    assert asked.keys() == saturation.KINDS.keys() and len(asked) == 2 * 4 * 3
    for kind, (script, arguments, _, _, changes, _) in asked.items():
        assert kind.startswith(f"{script}-{arguments['env_id']}")
        assert arguments["total_timesteps"] == (50_000 if "Pendulum" in kind else 100_000)
        assert changes == ({"Actor": saturation.small_last_layer} if kind.endswith("small") else {})
        rates = [arguments.get(name) for name in ("actor_lr", "critic_lr")]
        assert rates == ([3e-4] * 2 if kind.endswith("slow") else [None] * 2)
    asked.clear()
    saturation.run(10)
    assert len(asked) == 6 and all("Pendulum" in kind for kind in asked)
    asked.clear()
    saturation.run(1, "td3-Hopper")
    assert [*asked] == [f"td3-Hopper-v5{change}" for change in ("", "-small", "-slow")]


@pytest.mark.benchmark
@pytest.mark.parametrize("script, end", [("td3", None), ("ddpg", 15), ("ddqn", None)])
def test_value_and_the_return_that_followed_by_hand(experiment, monkeypatch, script, end):
    """A reward of 1 in each step, γ = 0.5, seen: the step's number, which is also its value, or half of it.

    States 0 and 10 of the 20 before the limit, whose returns go on beyond it: 2 and 2, or with an end 2 and 1.9375.
    """
    import gymnasium as gym
    import numpy as np
    import torch

    over, seeds = experiment("overestimation"), []
    importlib.import_module(script)
    monkeypatch.setattr(over, "HORIZON", 30)

    class Ones(gym.Env):
        observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
        action_space = gym.spaces.Discrete(2) if script == "ddqn" else gym.spaces.Box(-1, 1, (1,), np.float32)

        def __init__(self, render_mode=None, first=9):
            assert first == 0, "arguments of the environment are kept"

        def reset(self, *, seed=None, options=None):
            seeds.append(seed)
            self.time = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.time += 1
            return np.full(1, self.time, np.float32), 1.0, self.time == end, False, {}

    env_id = f"Ones{script}{end}-v0"
    gym.register(env_id, Ones, max_episode_steps=20, disable_env_checker=True, kwargs={"first": 0})

    def act(obs, explore):
        assert explore is False
        return np.int64(1) if script == "ddqn" else np.array([0.5], np.float32)

    def value(states, actions):
        assert (actions == 0.5).all()
        return states.squeeze(-1)

    def other(states, actions):
        return states.squeeze(-1) + 100

    agent = types.SimpleNamespace(act=act, device=torch.device("cpu"))
    agent.critic, agent.critics = value, [value, other]
    agent.q_network = lambda states: torch.cat([states + 100, states], dim=-1)
    q, followed = over.q_and_return(script, agent, env_id, 0.5)
    assert q == 5 and followed == pytest.approx(1.96875 if end else 2, abs=1e-4) and seeds == [10_000, 10_001, 10_002]
    gym.registry.pop(env_id), gym.registry.pop(f"Long{env_id}")


@pytest.mark.benchmark
def test_overestimation_is_measured_at_each_evaluation_of_the_seeds_of_a_case(experiment, monkeypatch):
    """Before it, with the script's own evaluation left as it is; DDPG and TD3 have no fourth seed."""
    over, written, numbers = experiment("overestimation"), {}, iter(range(100))

    def train(script, task, seed, names, changes):
        play = changes["play"](lambda *what: what)
        args = types.SimpleNamespace(gamma=0.9, eval_interval=task["eval_interval"])
        for _ in range(2):
            assert play("agent", args, None, []) == ("agent", args, None, [])

    def q_and_return(script, agent, env_id, gamma):
        assert (agent, gamma) == ("agent", 0.9)
        return next(numbers), f"{script} on {env_id}"

    monkeypatch.setattr(over, "train", train)
    monkeypatch.setattr(over, "q_and_return", q_and_return)
    monkeypatch.setattr(over, "write", lambda _, script, seed, rows: written.update({script: rows}))
    over.run(4)
    assert [*written] == ["dqn", "ddqn"]
    followed = "dqn on LunarLander-v3"
    first, second = [(5_000, "q", 0), (5_000, "return", followed)], [(10_000, "q", 1), (10_000, "return", followed)]
    assert written["dqn"] == first + second
    over.run(3)
    assert [*written] == ["dqn", "ddqn", "ddpg", "td3"] and written["td3"][1][2] == "td3 on Hopper-v5"


@pytest.fixture
def played(experiment, monkeypatch):
    """Plays a script's agent under a disturbance: the measure, and what the environment and the agent saw of it."""
    import numpy as np

    robustness = experiment("robustness")
    script = types.ModuleType("script_of_this_test")
    monkeypatch.setitem(sys.modules, script.__name__, script)

    def call(disturbance, level, sampled=False, batched=False, action=0.9):
        seen = types.SimpleNamespace(seeds=[], obs=[], actions=[], velocities=[])

        class Env:
            spec, state = types.SimpleNamespace(id="Pendulum-v1"), np.zeros(2)
            m = 2.0

            @property
            def unwrapped(self):
                return self

            def reset(self, seed):
                seen.seeds.append(seed)
                self.time, self.state[:] = 0, 0
                return np.zeros(3, np.float32), {}

            def step(self, action):
                self.time += 1
                assert self.time <= 100, "the episode was over"
                seen.actions.append(action.copy())
                seen.velocities.append(self.state[1])
                self.state[:] = 0
                done = self.time == 100
                ends = seen.seeds[-1] % 2 == 0
                info = {"episode": {"r": np.float32(10 * seen.seeds[-1])}} if done else {}
                return np.zeros(3, np.float32), 0.0, done and ends, done and not ends, info

        class Agent:
            def act(self, obs, explore):
                assert explore is sampled and obs.shape == ((1, 3) if batched else (3,))
                seen.obs.append(obs)
                return np.full((1, 1) if batched else 1, action, np.float32)

        env = Env()
        script.make_env = lambda env_id: env if env_id == "Pendulum-v1" else None
        run_class = type("Run", (), {"__module__": script.__name__})
        run = run_class()
        run.agent, run.args = Agent(), types.SimpleNamespace(env_id="Pendulum-v1", **{"num_envs": 1} if batched else {})
        seen.mean, seen.mass = robustness.played(disturbance, level, sampled)(run), env.m
        return seen

    return call


@pytest.mark.benchmark
@pytest.mark.parametrize("sampled, batched", [(False, False), (True, False), (True, True)])
def test_agents_of_the_test_of_robustness_are_played_on_five_seeds(played, sampled, batched):
    """0 to 4, whose returns are 0 to 40; the policy is the one that is asked for, and nothing disturbs it."""
    import numpy as np

    seen = played("none", 0, sampled, batched)
    assert seen.mean == 20 and seen.seeds == [0, 1, 2, 3, 4] and seen.mass == 2
    assert all((obs == 0).all() for obs in seen.obs) and not any(seen.velocities)
    assert np.unique(seen.actions).tolist() == [np.float32(0.9)] and seen.actions[0].shape == (1,)


@pytest.mark.benchmark
def test_disturbances_have_their_sizes(played):
    """Noise of deviation 0.3 on all that is seen and on actions, which stay in their bounds; half of the mass in all
    episodes; a push of deviation 4 in a twentieth of 500 steps, the same ones for every agent."""
    import numpy as np

    seen = played("obs", 0.3)
    noise = np.array(seen.obs)
    assert noise.std() == pytest.approx(0.3, rel=0.1) and abs(noise.mean()) < 0.05
    assert np.unique(noise).size == noise.size and np.unique(seen.actions).size == 1
    actions = np.array(played("action", 0.3, action=0.0).actions)
    assert actions.std() == pytest.approx(0.3, rel=0.1) and actions.dtype == np.float32
    actions = np.array(played("action", 0.3, action=0.9).actions)
    assert actions.max() == 1 and actions.min() > -0.5 and 0.25 < (actions == 1).mean() < 0.5
    assert played("mass", 0.5).mass == 1
    pushes = np.array(played("push", 4.0).velocities)
    assert 12 <= (pushes != 0).sum() <= 40 and 2.5 < pushes[pushes != 0].std() < 5.5
    assert played("push", 4.0, action=-0.1).velocities == pushes.tolist()


@pytest.mark.benchmark
def test_disturbances_of_the_pendulum_on_a_cart(experiment):
    """The pole's mass and inertia, not the cart's; a push is one of both velocities."""
    import numpy as np

    robustness = experiment("robustness")
    env = robustness.gym.make("InvertedPendulum-v5")
    env.reset(seed=0)
    model, data = env.unwrapped.model, env.unwrapped.data
    mass, inertia = model.body_mass.copy(), model.body_inertia.copy()
    robustness.scale_mass(env, 2.0)
    pole = model.body("pole").id
    changed = model.body_mass / np.where(mass > 0, mass, 1)
    assert changed[pole] == 2 and np.delete(model.body_mass, pole).tolist() == np.delete(mass, pole).tolist()
    assert np.allclose(model.body_inertia[pole], 2 * inertia[pole])
    before = data.qvel.copy()
    robustness.push(env, 100.0, np.random.default_rng(0))
    assert (np.abs(data.qvel - before) > 1).all() and np.unique(data.qvel - before).size == 2
    env.close()


@pytest.mark.benchmark
def test_agents_are_tested_for_robustness_once_at_the_end_and_as_the_names_say(experiment, monkeypatch):
    """By the policy's mean and by sampled actions, which TD3 has not; the level is that of the name."""
    robustness, asked = experiment("robustness"), {}
    monkeypatch.setattr(robustness, "train", lambda *what: what)
    monkeypatch.setattr(robustness, "played", lambda *what: what)
    monkeypatch.setattr(robustness, "write", lambda _, kind, seed, what: asked.update({(kind, seed): what}))
    robustness.run(4)
    for (kind, number), (script, arguments, seed, names, changes, measures) in asked.items():
        assert number == seed == 4 and names == [] and not changes
        assert arguments["eval_interval"] == arguments["total_timesteps"]
        assert len(measures) == 9 * (1 if script == "td3" else 2) and arguments["env_id"] in kind
        for name, (disturbance, level, sampled) in measures.items():
            assert name == f"{disturbance} {level} {'sampled' if sampled else 'deterministic'}"
        assert ("none 0 sampled" in measures) == (script != "td3") and "none 0 deterministic" in measures
    bounds = robustness.interval(robustness.np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert bounds == pytest.approx((1.8, 4.2)), "bounds of 90 % are 2 and 4"


@pytest.mark.benchmark
def test_kinds_of_the_experiment_about_the_bonus(experiment, monkeypatch):
    """From 0.05 to a hundredth of it at the end of training, or learned towards 0.9 and 1 nats of the two scripts."""
    entropy, asked = experiment("entropy"), {}
    monkeypatch.setattr(entropy, "train", lambda script, task, seed, names, changes: (task, changes))
    monkeypatch.setattr(entropy, "write", lambda _, kind, seed, what: asked.update({kind: what}))
    entropy.run(1)
    for script, target in (("ppo_discrete", 0.9), ("ppo_continuous", 1.0)):
        of = {kind: asked[f"{script}__{kind}"] for kind in entropy.KINDS}
        task = {name: of["none"][0][name] for name in ("env_id", "total_timesteps", "eval_interval")}
        assert of["none"] == (task | {"ent_coef": 0.0}, {}) and task["eval_interval"] == 0
        assert of["subtracted"] == (task | {"ent_coef": 0.05}, {})
        assert of["added"] == (task | {"ent_coef": 0.05}, {"total_loss": entropy.add})
        for kind in ("linear", "exponential"):
            moves = {"ent_coef_schedule": kind, "ent_coef_end": 0.0005, "ent_coef_duration": task["total_timesteps"]}
            assert of[kind] == (task | {"ent_coef": 0.05} | moves, {})
        assert of["learned"] == (task | {"ent_coef": 0.05, "ent_autotune": True, "target_entropy": target}, {})


@pytest.mark.benchmark
def test_divergences_by_hand(experiment, monkeypatch):
    """N(0, 2) from N(8, 2): 64 / 8; from N(3, 1): 13 / 2 - 1/2 - log 2. The density with two humps has mean -0.6 and
    deviation 3.08: the nearest Gaussian that covers it has them, the other direction's is its larger hump."""
    import math

    import numpy as np

    kl, written = experiment("kl"), []
    monkeypatch.setattr(kl, "GRID", np.linspace(-30, 30, 601))
    two = kl.log_normal(kl.GRID, 0, 2)
    assert kl.divergence(two, kl.log_normal(kl.GRID, 8, 2)) == pytest.approx(8, abs=1e-6)
    assert kl.divergence(two, kl.log_normal(kl.GRID, 3, 1)) == pytest.approx(6 - math.log(2), abs=1e-6)
    monkeypatch.setattr(kl, "write", lambda *what: written.append(what))
    kl.run(3)
    [(figure, kind, seed, rows)] = written
    assert (figure, kind, seed) == ("kl", "all", 3)
    of = {name: {round(x, 1): value for x, one, value in rows if one == name} for name in {row[1] for row in rows}}
    assert [*of["mean"]] == [500, 1000, 2000, 3000, 4000, 5000]
    assert all(abs(mean - 8) < 1 and of["sum"][n] == pytest.approx(n * mean) for n, mean in of["mean"].items())
    assert of["exact by std"][2.0] == pytest.approx(9 / 8, abs=1e-6) and [*of["exact by std"]][-1] == 20
    assert all(abs(of["estimate by std"][std] - exact) < 0.4 for std, exact in of["exact by std"].items() if std > 1)
    assert of["two humps"][-3.0] == pytest.approx(0.6 / 2.5066, abs=1e-3)
    peaks = {name: max(of[name], key=of[name].get) for name in ("forward", "reverse")}
    assert peaks == {"forward": -0.6, "reverse": -3.0}
    assert of["forward"][-0.6] == pytest.approx(1 / 3.1 / 2.5066, abs=1e-3)
    assert of["reverse"][-3.0] == pytest.approx(1 / 1.0 / 2.5066, rel=0.05)


DRAWN = {  # by file and panel: what benchmark/notes/README.md says of the last values of some lines, rounded like that
    "time_limits": {0: {"V of the state at the limit counts": "-150", "the limit taken for an end": "-1019"}},
    "td3_parts": {1: {"TD3": "111", "without twins": "236", "without delay": "139", "without smoothing": "136"}},
    "reward_scale": {
        1: {
            "fixed": "0.56",
            "fixed, rewards as they are": "0.74",
            "line": "0.24",
            "learned, rewards as they are": "0.57",
        }
    },
    "temperature": {1: {"learned by note 001's loss": "-3.5"}, 2: {"α = 0.2": "0.2"}},
    "stages": {0: {"entropy, jump": "-0.5", "entropy, line": "-0.6"}},
    "premature": {
        0: {"c = 0.0": "0.20", "c = 0.1": "0.36", "c = 0.3": "0.84", "c = 0.5": "1.00"}
    },  # k of five: 0.2 + 0.8 k / 5
    "heads": {0: {"learned c, target 0.5 for all": "0.5"}, 3: {"learned c, target 0.5 for all": "2.6"}},
    "kl": {0: {"their mean": "8"}},
    "gradient_steps": {1: {"1 update in a step": "-132", "4 updates in a step": "-130"}},
    "entropy": {},
    "overestimation": {},
    "robustness": {},
    "saturation": {},
    "toy": {},
}
PRINTED = {  # and of what the file prints
    "overestimation": [
        "ddpg on Hopper-v5, second half: Q 425.0, measured 117.7\n",  # more than three times as much
        "td3 on Hopper-v5, second half: Q 104.4, measured 110.8\n",
        "dqn on LunarLander-v3, second half: Q 36.6, measured 3.1\n",  # 33
        "    Q - measured, seed by seed: 35.9, 10.7, 45.9, 33.0, 41.8\n",
        "ddqn on LunarLander-v3, second half: Q 19.7, measured 0.3\n",  # 19, and the second seed's is the larger one
        "    Q - measured, seed by seed: 7.8, 23.1, 26.5, 19.4, 19.9\n",
    ],
    "robustness": [" -329 .* -223 .*", " -240 .* -435 .*", " 664 .*", " 279 .*", r" 26 .*", r" 40 .*"],
    "toy": ["ddpg.py: 5 of 100 do not go left", "td3.py: 2 of 100 do not go left"],
    "entropy": ["ppo_discrete, learned: entropy at the end 0.624, 0.595, 0.608\n"],
}


@pytest.mark.benchmark
@pytest.mark.parametrize("name", DRAWN)
def test_figures_about_the_notes_show_what_is_said_of_them(experiment, monkeypatch, tmp_path, capsys, name):
    from matplotlib import pyplot as plt

    module = experiment(name)
    monkeypatch.setattr(module, "FIGURES", tmp_path)
    plt.close("all")
    module.draw()
    names = {path.name for path in (ROOT / "benchmark" / "figures").glob(f"{name}*.png")}
    assert names and {path.name for path in tmp_path.iterdir()} == names
    panels = plt.gcf().axes
    for number, lines in DRAWN[name].items():
        drawn = {line.get_label(): line.get_ydata()[-1] for line in panels[number].lines}
        for label, said in lines.items():
            assert f"{drawn[label]:.{len(said.partition('.')[2])}f}" == said, label
    printed = capsys.readouterr().out
    for pattern in PRINTED.get(name, []):
        assert re.search(pattern, printed), pattern
    plt.close("all")


@pytest.mark.benchmark
def test_what_is_said_of_that_task_is_in_its_data(monkeypatch):
    """benchmark/notes/README.md and R004-13: how many seeds do not go left in the end, with how many rewards."""
    monkeypatch.syspath_prepend(ROOT / "benchmark" / "notes")
    import numpy as np
    import toy

    rewards = []
    for script, num_failed in (("ddpg", 5), ("td3", 2)):
        runs = toy.read(script)
        failed = [run for run in runs.values() if run["action"][-1] >= 0]
        assert list(runs) == list(range(1, 101)) and len(failed) == num_failed
        rewards += [int(run["num_rewards"][-1]) for run in failed]
        assert all(abs(run["dq_da"][-1]) < 0.05 for run in failed)
    assert (min(rewards), max(rewards)) == (1, 8)
    learned, small = (np.array([run["action"] for run in toy.read(kind).values()]) for kind in ("sac", "sac-0.01"))
    assert (learned.shape, small.shape) == ((100, 8), (30, 8)), "an evaluation every 250 steps"
    assert (learned[:, :2] < 0).all() and (learned[:, 5:] >= 0).all() and (small[:, -1] < 0).all()
    assert min(run["num_rewards"][-1] for run in toy.read("sac").values()) > 300


@pytest.mark.benchmark
def test_what_is_said_of_gradient_steps_is_in_their_data_and_their_figure(experiment, monkeypatch, tmp_path):
    """benchmark/notes/README.md and R003-53: after how many steps and seconds a seed holds the pendulum up for good."""
    import numpy as np
    from matplotlib import pyplot as plt

    steps_of = experiment("gradient_steps")
    monkeypatch.setattr(steps_of, "FIGURES", tmp_path)
    plt.close("all")
    steps_of.draw()
    by_steps, by_seconds = plt.gcf().axes
    found = []
    for number, line, other in zip((1, 2, 4), by_steps.lines, by_seconds.lines, strict=True):
        steps, returns = steps_of.read("gradient_steps", str(number), "eval/episodic_return")
        _, seconds = steps_of.read("gradient_steps", str(number), "seconds")
        first = [np.flatnonzero(of_seed < -200)[-1] + 1 for of_seed in returns]
        found.append((round(steps[first].mean()), round(seconds[[0, 1, 2], first].mean())))
        assert line.get_xdata().tolist() == steps.tolist() and line.get_label().startswith(f"{number} update")
        assert other.get_xdata()[-1] == pytest.approx(sum(seconds[:, -1]) / 3), "the mean of the seeds"
    assert found == [(6_000, 79), (3_750, 89), (2_667, 115)]
    plt.close("all")


@pytest.mark.benchmark
def test_what_is_said_of_saturated_actors_is_in_their_data(monkeypatch):
    """benchmark/notes/README.md: which seeds stand still in the end, and how many were at the bounds before."""
    monkeypatch.syspath_prepend(ROOT / "benchmark" / "notes")
    import saturation
    from scipy.stats import fisher_exact

    stand, returned = {}, 0
    for script in ("ddpg", "td3"):
        for change in saturation.CHANGES:
            of = "saturation", f"{script}-{saturation.PENDULUM}{change}"
            steps, returns = saturation.read(*of, "eval/episodic_return", saturation.SEEDS[saturation.PENDULUM])
            _, share = saturation.read(*of, "saturated", saturation.SEEDS[saturation.PENDULUM])
            assert returns.shape == share.shape == (10, 20)
            still = returns[:, -1] < 9_200
            assert (returns[still, -1].round() <= 22).all() and (returns[still, -1].round() >= 21).all()
            assert (share[still, -1] == 1).all() and (share[~still, -1] < 0.5).all()
            bound = (share == 1).any(1)
            assert (share[bound][:, steps == 27_500] == 1).all() and not share[:, steps <= 25_000].any()
            stand[script + change], returned = still.sum(), returned + (bound & ~still).sum()
    assert stand == {"ddpg": 3, "ddpg-small": 0, "ddpg-slow": 1, "td3": 1, "td3-small": 1, "td3-slow": 0}
    assert returned == 4
    assert fisher_exact([[3, 7], [0, 10]]).pvalue == pytest.approx(0.21, abs=0.005)
    last = {}  # mean and deviation, over seeds, of the last four evaluations
    for task in ("HalfCheetah", "Hopper", "Walker2d"):
        for change in ("-small", ""):
            steps, returns = saturation.read("saturation", f"ddpg-{task}-v5{change}", "eval/episodic_return", (1, 2, 3))
            assert returns.shape == (3, 40) and steps[-1] == 100_000
            of_seeds = returns[:, -4:].mean(1)
            last[task + change] = f"{of_seeds.mean():,.0f} ± {of_seeds.std(ddof=1):,.0f}"
    text = " ".join((ROOT / "benchmark" / "notes" / "README.md").read_text("utf-8").split())
    with_it = "{HalfCheetah-small} on HalfCheetah, {Hopper-small} on Hopper and {Walker2d-small} on Walker2d"
    without = "without it {HalfCheetah}, {Hopper} and {Walker2d}. That is less"
    assert with_it.format(**last) in text and without.format(**last) in text


@pytest.mark.benchmark
def test_difference_in_standard_errors_by_hand():
    """Ours 8, 10, 12: variance 4 / 3 of the mean; theirs 7 ± 2 (ddof 0, 5 seeds): 1; (10 - 7) / sqrt(7 / 3)."""
    import numpy as np
    import report

    class Row:
        def returns(self, kind, steps, window):
            assert (kind, steps, window) == ("eval", 100, None)
            return np.array([8.0, 10.0, 12.0])

    figure = {"metric": "eval", "steps": 100, "mean": 7.0, "sd": 2.0, "ddof": 0, "seeds": 5}
    assert report.compare(Row(), figure)[1] == pytest.approx(3 / (7 / 3) ** 0.5)
    figure = {**figure, "sd": 2.0 * (5 / 4) ** 0.5, "ddof": 1}
    assert report.compare(Row(), figure)[1] == pytest.approx(3 / (7 / 3) ** 0.5)


@pytest.mark.benchmark
def test_returns_are_of_the_steps_that_the_published_figure_is_of():
    """The last evaluation until `steps`, or all of a window; training: the last 100 episodes, or all of a window."""
    import report

    row = object.__new__(report.Row)
    row.seeds = [
        [(10, "eval", 1.0), (20, "eval", 3.0), (30, "eval", 8.0), (40, "eval", 50.0)],
        [(step, "train", float(step)) for step in range(1, 201)],
    ]
    row.seeds[1] += [(10, "eval", 2.0), (20, "eval", 2.0), (30, "eval", 6.0), (45, "eval", 70.0)]
    assert row.returns("eval", 30).tolist() == [8, 6]
    assert row.returns("eval", 35).tolist() == [8, 6]
    assert row.returns("eval", 30, 20).tolist() == [5.5, 4]  # those at 20 and 30
    row.seeds = row.seeds[1:]
    assert row.returns("train", 150).tolist() == [100.5]  # 51 to 150
    assert row.returns("train", 150, 4).tolist() == [148.5]  # 147 to 150
    assert report.compare(row, {"metric": "train", "steps": 150, "window": 4})[0].tolist() == [148.5]


def test_list_into_a_pipe_that_closes_and_a_grid_that_is_finished():
    run = f"{sys.executable} {ROOT / 'benchmark' / 'run.py'}"
    result = subprocess.run(["bash", "-c", f"{run} --list | head -n 1"], capture_output=True, text=True)
    assert result.stderr == "" and len(result.stdout.splitlines()) == 1
    result = subprocess.run([*run.split(), "--only", "/td3/Pendulum-v1/"], capture_output=True, text=True)
    assert result.returncode == 0 and "all are finished" in result.stdout


# ---- Curves of one's own runs ----
def fake_run(folder: Path, script: str, seed: int, returns: dict[int, float], **changes) -> Path:
    from torch.utils.tensorboard import SummaryWriter

    path = folder / f"Task-v0__{script}__{seed}__{len(list(folder.iterdir()))}"
    path.mkdir()
    args = {"env_id": "Task-v0", "seed": seed, "gamma": 0.99, "torch_threads": seed, "compile": False}
    (path / "args.json").write_text(json.dumps(args | changes))
    with SummaryWriter(path) as writer:
        for step, value in returns.items():
            writer.add_scalar("eval/episodic_return", value, step, walltime=1e9 + 36 * step)
            writer.add_scalar("charts/episodic_return", -99, step)
    return path


def plotted(tmp_path, *flags: str) -> list[list[str]]:
    command = [sys.executable, str(ROOT / "benchmark" / "plot.py"), *map(str, flags), "--table"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()[2:]]


@pytest.mark.benchmark
def test_plot_groups_runs_by_what_they_learn_with(tmp_path):
    """Seeds make one curve, whatever their threads; arguments and scripts make others, named by what differs."""
    from PIL import Image

    runs = tmp_path / "runs"
    runs.mkdir()
    for seed in (1, 2, 3):
        fake_run(runs, "td3", seed, {100: 0.0, 200: 10.0 * seed})
        fake_run(runs, "td3", seed, {100: 0.0, 200: 7.0}, gamma=0.9)
    fake_run(runs, "ddpg", 1, {100: 5.0, 200: 6.0, 300: 8.0})
    fake_run(runs, "td3", 2, {100: -50.0})  # of a seed that was run to its end as well
    (runs / "something else").mkdir()
    fake_run(runs, "ddpg", 5, {})
    lines = plotted(tmp_path, *sorted(runs.iterdir()), "--output", tmp_path / "mine.png")
    assert sorted(lines) == [
        ["ddpg", "Task-v0", "300", "1", "8.0"],
        ["td3, gamma 0.9", "Task-v0", "200", "3", "7.0 ± 0.0"],
        ["td3, gamma 0.99", "Task-v0", "200", "3", "20.0 ± 10.0"],
    ]
    width, height = Image.open(tmp_path / "mine.png").size
    assert width >= 400 and height >= 300


@pytest.mark.benchmark
def test_plot_by_hours_leaves_out_pauses(tmp_path):
    """A run of two hours that was resumed after two years, for two more: four hours."""
    import plot
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    (tmp_path / "runs").mkdir()
    path = fake_run(tmp_path / "runs", "td3", 1, {})
    for file in path.glob("events.*"):
        file.unlink()
    for start, step in ((1_000_000_000, 100), (1_070_000_000, 200)):
        evaluation = Event(wall_time=start + 7200, step=step)
        evaluation.summary.value.add(tag="eval/episodic_return", simple_value=4.0)
        with open(path / f"events.out.tfevents.{start}", "wb") as out:
            for event in (Event(wall_time=start, file_version="brain.Event:2"), evaluation):
                RecordWriter(out).write(event.SerializeToString())
    assert plot.Run(path).hours.tolist() == [2, 4] and plot.Run(path).steps.tolist() == [100, 200]


@pytest.mark.benchmark
def test_plot_of_nothing(tmp_path):
    command = [sys.executable, str(ROOT / "benchmark" / "plot.py"), str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr and "none of these" in result.stderr


@pytest.mark.benchmark
def test_return_by_wall_time_of_a_script_and_its_peers(monkeypatch, tmp_path, capsys):
    """Evaluations at the same steps, seconds since the process began. SB3 runs as SBX does."""
    monkeypatch.syspath_prepend(ROOT / "benchmark")
    import wall_time

    monkeypatch.setattr(wall_time, "BENCHMARK", tmp_path)
    monkeypatch.setattr(wall_time, "CASES", {"ppo_discrete": ("PPO", "CartPole-v1", 3_000, 1_000, 5)})
    monkeypatch.setattr(wall_time, "LIBRARIES", {"plainrl": "PlainRL", "sbx": "SBX"})
    monkeypatch.setattr(sys, "argv", ["wall_time.py", "run", "--seeds", "1"])
    begun = time.monotonic()
    wall_time.main()
    took = time.monotonic() - begun
    for library in wall_time.LIBRARIES:
        lines = wall_time.path_of("ppo_discrete", library, 1).read_text("utf-8").splitlines()
        rows = [line.split(",") for line in lines[lines.index("seconds,step,return") + 1 :]]
        assert [int(step) // 1_000 for _, step, _ in rows][:3] == [1, 2, 3], "an evaluation every 1,000 steps"
        seconds = [float(second) for second, *_ in rows]
        assert 0.5 < seconds[0] < seconds[1] < seconds[2] < took, "a process that imports PyTorch takes a while"
        assert all(9 <= float(value) <= 500 for *_, value in rows)
        assert {line.split(":")[0] for line in lines if line.startswith("#")} >= {"# versions", "# machine"}
    begun = time.monotonic()
    wall_time.main()
    assert time.monotonic() - begun < 1, "what has a result is not run again"
    (tmp_path / "figures").mkdir()
    monkeypatch.setattr(sys, "argv", ["wall_time.py"])
    wall_time.main()
    assert (tmp_path / "figures" / "wall_time.png").stat().st_size > 10_000
    assert "| `ppo_discrete.py` | CartPole-v1 |" in capsys.readouterr().out


@pytest.mark.benchmark
def test_minutes_to_a_return_by_hand(monkeypatch, tmp_path):
    """Two libraries: half of A's seeds reach 310, half of B's 128, so 120 it is; a seed that does not never does."""
    monkeypatch.syspath_prepend(ROOT / "benchmark")
    import wall_time

    monkeypatch.setattr(wall_time, "BENCHMARK", tmp_path)
    monkeypatch.setattr(wall_time, "CASES", {"dqn": ("DQN", "CartPole-v1", 9, 9, 9)})
    curves = {
        "plainrl": [[(60, 100), (90, 310), (120, 5)], [(30, 119), (150, 120)], [(30, 500)]],
        "sbx": [[(60, 9)], [(60, 128)], [(60, 20), (600, 140)]],
    }
    for library, seeds in curves.items():
        for seed, rows in enumerate(seeds, 1):
            path = wall_time.path_of("dqn", library, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{seconds},{step},{value}" for step, (seconds, value) in enumerate(rows)]
            path.write_text("\n".join(["# machine: none", "seconds,step,return", *lines]), "utf-8")
    last = wall_time.wall_time_table().splitlines()[-1]
    assert last == "| `dqn.py` | CartPole-v1 | 120 | 1.5 (0.5, 1.5, 2.5) |  | 10.0 (1.0, 10.0, never) |"


@pytest.mark.benchmark
def test_a_wall_time_run_ends_after_its_minutes_and_one_that_fails_says_why(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmark")
    import wall_time

    program = "import time; print('step 1,500: evaluation -2.50 ± 1', flush=True); time.sleep(60)"
    begun = time.monotonic()
    ((seconds, step, value),) = wall_time.measure([sys.executable, "-c", program], 2, None, tmp_path)
    assert 0 < seconds < 2 and (step, value) == (1_500, -2.5) and time.monotonic() - begun < 20
    with pytest.raises(RuntimeError, match="no such algorithm"):
        wall_time.measure([sys.executable, "-c", "raise SystemExit('no such algorithm')"], 20, None, tmp_path)


@pytest.mark.benchmark
def test_a_wall_time_run_that_fails_after_an_evaluation_is_no_result(monkeypatch, tmp_path):
    """Its curve would end early, as if there had been no more to learn."""
    monkeypatch.syspath_prepend(ROOT / "benchmark")
    import wall_time

    program = "print('step 1,500: evaluation -2.50 ± 1', flush=True); raise SystemExit('no memory')"
    with pytest.raises(RuntimeError, match="no memory"):
        wall_time.measure([sys.executable, "-c", program], 20, None, tmp_path)


@pytest.mark.benchmark
def test_a_wall_time_run_that_fails_gives_its_core_back(monkeypatch):
    """Or the next one would wait for it for ever."""
    monkeypatch.syspath_prepend(ROOT / "benchmark")
    import wall_time

    def fail(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(wall_time, "measure", fail)
    cores = wall_time.queue.Queue()
    cores.put(3)
    with pytest.raises(RuntimeError, match="no memory"):
        wall_time.run("td3", "plainrl", 1, cores)
    assert cores.qsize() == 1 and cores.get() == 3


@pytest.fixture
def wall_time(monkeypatch, tmp_path):
    """The program, with two libraries and results in the folder of the test."""
    monkeypatch.syspath_prepend(ROOT / "benchmark")
    program = importlib.import_module("wall_time")
    monkeypatch.setattr(program, "BENCHMARK", tmp_path)
    monkeypatch.setattr(program, "LIBRARIES", {"plainrl": "PlainRL", "sb3": "SB3"})
    return program


@pytest.mark.benchmark
def test_a_wall_time_run_has_one_core_and_one_thread(wall_time, tmp_path):
    """In the folder that it is given; and no timer is left that would hold the program up for its minutes."""
    core = max(os.sched_getaffinity(0))
    program = "import os; [core] = os.sched_getaffinity(0); names = 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'\n"
    program += "assert os.environ['JAX_PLATFORMS'] == 'cpu' and os.getcwd() == os.environ['PLACE']\n"
    program += "print(f'step {core:,}: evaluation {sum(int(os.environ[name]) for name in names)}.00')"
    timers = []

    class Timer(threading.Timer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.daemon = True  # or these tests would wait for one that is left
            timers.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wall_time.threading, "Timer", Timer)
        patch.setenv("PLACE", str(tmp_path))
        ((_, step, value),) = wall_time.measure([sys.executable, "-c", program], 600, core, tmp_path)
    assert (step, value) == (core, 2)
    assert [timer.finished.is_set() for timer in timers] == [True], "cancelled"


@pytest.mark.benchmark
def test_an_evaluation_after_the_minutes_of_a_wall_time_run_does_not_count(wall_time, tmp_path):
    """One that was under way when it was told to end, say."""
    program = "import signal, sys, time\n"
    program += "def say(step, *_): print(f'step {step}: evaluation 1.0', flush=True)\n"
    program += "signal.signal(signal.SIGTERM, lambda *_: (say(2), sys.exit(0)))\nsay(1); time.sleep(60)"
    rows = wall_time.measure([sys.executable, "-c", program], 1, None, tmp_path)
    assert [step for _, step, _ in rows] == [1]


@pytest.mark.benchmark
def test_commands_of_wall_time_runs(wall_time):
    """Steps and the interval of evaluations are the same for all; nothing else is set."""
    ours = wall_time.command("ppo_continuous", "plainrl", 2, "FOLDER")
    assert ours[:2] == [sys.executable, str(ROOT / "ppo_continuous.py")]
    flags = "--env-id Hopper-v5 --seed 2 --total-timesteps 1000000 --eval-interval 10000 --out-dir FOLDER"
    assert " ".join(ours[2:]) == flags
    for library, module in (("sb3", "stable_baselines3"), ("sbx", "sbx")):
        theirs = wall_time.command("ppo_continuous", library, 2, "FOLDER")
        assert theirs[:2] == [sys.executable, "-c"]
        assert theirs[3:] == [module, "PPO", "Hopper-v5", "2", "1000000", "10000"]


@pytest.mark.benchmark
@pytest.mark.parametrize("library", ["sb3", "sbx"])
def test_peers_of_wall_time_runs_are_as_they_come_and_are_played_without_noise(wall_time, monkeypatch, capsys, library):
    """Ten episodes on seeds 10,000 to 10,009, in an environment that is not the one of training, at the first step from
    every tenth on; the peer takes four steps at a time. Half of the episodes return 2 and half, which are cut, 3."""
    made, envs = [], []

    class Env:
        """Rewards an action that is one more than what was seen; ends after two steps or, cut off, three."""

        def reset(self, seed):
            self.seed, self.steps = seed, 0
            self.seeds.append(seed)
            return seed, {}

        def step(self, action):
            self.steps += 1
            is_odd = self.seed % 2 == 1
            return action, float(action == self.seed + self.steps), self.steps == 2 and not is_odd, self.steps == 3, {}

    def make(env_id):
        envs.append(Env())
        envs[-1].id, envs[-1].seeds = env_id, []
        return envs[-1]

    class PPO:
        def __init__(self, policy, env, **options):
            self.env = env
            made.append((policy, env.id, options))

        def predict(self, obs, deterministic=False):
            return obs + deterministic, None

        def learn(self, total, callback):
            callback.model = self
            for callback.num_timesteps in range(4, total + 1, 4):
                assert callback._on_step() is True
            assert self.env.seeds == [], "the environment of training is left alone"

    modules = {"gymnasium": {"make": make}, "stable_baselines3.common.callbacks": {"BaseCallback": object}}
    modules |= {"stable_baselines3.common": {}, "stable_baselines3": {}, "sbx": {}}
    modules[{"sb3": "stable_baselines3", "sbx": "sbx"}[library]]["PPO"] = PPO
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(wall_time, "CASES", {"ppo_continuous": ("PPO", "Task-v0", 4_000, 10, 1)})
    line = wall_time.command("ppo_continuous", library, 7, "FOLDER")
    monkeypatch.setattr(sys, "argv", ["-c", *line[3:]])
    exec(line[2], {})
    assert made == [("MlpPolicy", "Task-v0", {"seed": 7})]
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [f"step {step}: evaluation 2.50" for step in (12, 20, 32)]
    assert said[-1] == "step 4,000: evaluation 2.50" and len(said) == 400
    assert [env.seeds[:12] for env in envs if env.seeds] == [[*range(10_000, 10_010), 10_000, 10_001]]


@pytest.mark.benchmark
@pytest.mark.parametrize("program, why", [("print('no task')", "no task"), ("", "no evaluation")])
def test_a_wall_time_run_that_ends_well_without_an_evaluation_is_no_result(wall_time, tmp_path, program, why):
    with pytest.raises(RuntimeError, match=why):
        wall_time.measure([sys.executable, "-c", program], 20, None, tmp_path)


@pytest.mark.benchmark
def test_bytes_of_another_encoding_do_not_end_a_wall_time_run(wall_time, tmp_path):
    """Of a simulator that prints in Latin-1, say."""
    program = "import sys; sys.stdout.buffer.write(b'caf\\xe9\\nstep 5: evaluation 2.0\\n')"
    ((_, step, value),) = wall_time.measure([sys.executable, "-c", program], 20, None, tmp_path)
    assert (step, value) == (5, 2)


@pytest.mark.benchmark
@pytest.mark.parametrize("best, common", [([128.9], 120), ([3512.0], 3500), ([95.4], 95), ([-123.0], -130)])
def test_return_that_all_libraries_reach_has_two_digits(wall_time, best, common):
    """Rounded down, so that it is reached; below 0 too. Of three seeds the one in the middle counts, at its best."""
    import numpy as np

    curves = [np.array([[1, value - 1], [2, value], [3, value - 9]]) for value in (*best, 9_999, -9_999)]
    assert wall_time.common_return({"sb3": curves, "sbx": [curves[1]]}) == pytest.approx(common)


@pytest.mark.benchmark
def test_file_of_a_wall_time_run_says_what_it_was_made_by_and_is_whole(wall_time, monkeypatch):
    """Ours with its commit and code, a peer's without; of a disk that is full in the middle there is none."""
    measured, seed = [], 2

    def measure(line, seconds, core, folder):
        measured.append((seconds, core))
        assert line == wall_time.command("dqn", library, seed, folder) and Path(folder).is_dir()
        return [(1.234, 1_000, -2.0), (60.0, 2_000, 3.5)]

    monkeypatch.setattr(wall_time, "measure", measure)
    monkeypatch.setattr(wall_time, "version", lambda name: "1")
    monkeypatch.setattr(wall_time, "machine", lambda: "A")
    monkeypatch.setattr(wall_time, "commit_of", lambda script: f"commit of {script}")
    cores = wall_time.queue.Queue()
    cores.put(5)
    code = grid.code_hash((ROOT / "dqn.py").read_text("utf-8"))
    ours = [f"# commit: commit of dqn\n# code: {code}\n", "torch 1, gymnasium 1, mujoco 1"]
    for library, (made_by, versions) in {
        "plainrl": ours,
        "sb3": ["", "stable-baselines3 1, torch 1, gymnasium 1, mujoco 1"],
        "sbx": ["", "sbx-rl 1, jax 1, gymnasium 1, mujoco 1"],
    }.items():
        wall_time.LIBRARIES.setdefault(library, library)
        wall_time.run("dqn", library, seed, cores)
        text = wall_time.path_of("dqn", library, seed).read_text("utf-8")
        rows = "seconds,step,return\n1.23,1000,-2.000\n60.00,2000,3.500\n"
        assert text == f"# versions: {versions}\n# machine: A\n{made_by}{rows}"
        assert [curve.tolist() for curve in wall_time.read("dqn", library)] == [[[1.23 / 60, -2.0], [1.0, 3.5]]]
    assert measured == [(3 * 60, 5)] * 3
    write_text = Path.write_text

    def write_half(self, text, encoding):
        write_text(self, text[: len(text) // 2], encoding)
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", write_half)
    library, seed = "plainrl", 1
    with pytest.raises(OSError, match="no space"):
        wall_time.run("dqn", library, seed, cores)
    assert len(wall_time.read("dqn", "plainrl")) == 1


@pytest.mark.benchmark
def test_wall_time_runs_that_are_left_are_made_side_by_side_and_failures_are_named(wall_time, monkeypatch, capsys):
    """Seed by seed, the libraries beside each other, by three workers on the two cores that there are."""
    made, seen = [], set()
    everyone = threading.Barrier(3, timeout=10)

    def run(script, library, seed, cores):
        core = cores.get(timeout=10)
        made.append((script, library, seed))
        if len(seen) < 3:
            seen.add(core)
            everyone.wait()
        cores.put(core)
        if (library, seed) == ("sb3", 2):
            raise RuntimeError("no memory")

    done = wall_time.path_of("td3", "plainrl", 1)
    done.parent.mkdir(parents=True)
    done.touch()
    monkeypatch.setattr(wall_time, "run", run)
    monkeypatch.setattr(wall_time.os, "sched_getaffinity", lambda _: {7, 4}, raising=False)
    monkeypatch.setattr(sys, "argv", ["wall_time.py", "run", "td3", "--seeds", "1", "2", "--workers", "3"])
    with pytest.raises(SystemExit) as stop:
        wall_time.main()
    assert stop.value.code == "td3 sb3 2: no memory"
    assert sorted(made) == [("td3", "plainrl", 2), ("td3", "sb3", 1), ("td3", "sb3", 2)] and seen == {4, 7, None}
    made.clear()
    monkeypatch.setattr(sys, "argv", ["wall_time.py", "run", "--seeds", "2", "3"])
    everyone.abort()
    seen.update({1, 2, 3})
    with pytest.raises(SystemExit):
        wall_time.main()
    libraries = [(script, library) for script in wall_time.CASES for library in ("plainrl", "sb3")]
    assert made == [(*one, seed) for seed in (2, 3) for one in libraries], "one by one, seed by seed"
    monkeypatch.setattr(sys, "argv", ["wall_time.py", "run", "nothing"])
    with pytest.raises(SystemExit) as stop:
        wall_time.main()
    assert stop.value.code == 2 and "no case nothing; there are ddpg, td3" in capsys.readouterr().err


@pytest.mark.benchmark
def test_figure_of_wall_times_has_a_line_for_each_seed(wall_time, monkeypatch, tmp_path, capsys):
    """In the colour of its library, by minutes, in panels of the cases that have results; without any it says so."""
    monkeypatch.setattr(sys, "argv", ["wall_time.py"])
    with pytest.raises(SystemExit, match="run makes them"):
        wall_time.main()
    for library, seeds in {"plainrl": (1, 3), "sb3": (2,)}.items():
        for seed in seeds:
            path = wall_time.path_of("dqn", library, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# machine: A\nseconds,step,return\n60.00,1000,{seed}.0\n150.00,2000,{seed}0.0\n")
    (tmp_path / "figures").mkdir()
    closed = []
    monkeypatch.setattr(wall_time.plt, "close", closed.append)
    wall_time.main()
    [figure] = closed
    [panel] = figure.axes
    assert (panel.get_title(), panel.get_xlabel()) == ("dqn.py, CartPole-v1", "minutes")
    assert [line.get_xydata().tolist() for line in panel.lines] == [[[1, n], [2.5, 10 * n]] for n in (1, 3, 2)]
    colors = [line.get_color() for line in panel.lines]
    assert colors[0] == colors[1] != colors[2]
    assert [text.get_text() for text in figure.legends[0].texts] == ["PlainRL", "SB3"]
    assert (tmp_path / "figures" / "wall_time.png").exists()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "| `dqn.py` | CartPole-v1 | 20 | 2.5 (2.5, never) | 2.5 (2.5) |", "half of two seeds is one"
