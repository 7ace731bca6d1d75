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


def test_speeds_of_another_number_of_threads_stay_if_all_else_is_equal(tmp_path, monkeypatch):
    import speed

    monkeypatch.setattr(speed, "ROOT", tmp_path)
    path = tmp_path / "benchmark" / "results" / "speed" / "td3.json"
    speed.save("td3", {"code": "a"}, 1, [{"SB3": 1.0}])
    speed.save("td3", {"code": "a"}, 2, [{"SB3": 2.0}])
    assert json.loads(path.read_text()) == {"code": "a", "rounds": {"1": [{"SB3": 1.0}], "2": [{"SB3": 2.0}]}}
    speed.save("td3", {"code": "b"}, 1, [{"SB3": 3.0}])
    assert json.loads(path.read_text()) == {"code": "b", "rounds": {"1": [{"SB3": 3.0}]}}


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
    """With few steps: every kind of each has its values, which another kind does not have."""
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
def test_file_of_a_wall_time_run_says_what_it_was_made_by_and_is_whole(wall_time, monkeypatch):
    """Ours with its commit and code, a peer's without; of a disk that is full in the middle there is none."""
    measured = []

    def measure(line, seconds, core, folder):
        measured.append((seconds, core))
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
        wall_time.run("dqn", library, 2, cores)
        text = wall_time.path_of("dqn", library, 2).read_text("utf-8")
        rows = "seconds,step,return\n1.23,1000,-2.000\n60.00,2000,3.500\n"
        assert text == f"# versions: {versions}\n# machine: A\n{made_by}{rows}"
        assert [curve.tolist() for curve in wall_time.read("dqn", library)] == [[[1.23 / 60, -2.0], [1.0, 3.5]]]
    assert measured == [(3 * 60, 5)] * 3
    write_text = Path.write_text

    def write_half(self, text, encoding):
        write_text(self, text[: len(text) // 2], encoding)
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="no space"):
        wall_time.run("dqn", "plainrl", 1, cores)
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
