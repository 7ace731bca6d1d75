"""What a user sees of a script: its command line, its files, kill and resume, evaluation, tracking.

The runs are processes, two at a time, started by the fixture `jobs`; a test waits for the ones that it reads.
"""

import ast
import dataclasses
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

ROOT = Path(__file__).parents[1]
# What is the same in all scripts is tested to the full on one of them, and on the others with `pytest -m slow`.
OTHERS = ["dqn", "ddqn", "ddpg", "td3", "ppo_discrete", "ppo_continuous"]
SCRIPTS = ["sac_continuous", *(pytest.param(script, marks=pytest.mark.slow) for script in ("ddpg", "td3"))]
# by script: an environment that fits, one whose action space does not, losses, flags of the runs and of wrong input
ENV = dict.fromkeys(["dqn", "ddqn", "ppo_discrete"], "CartPole-v1")
ENV |= dict.fromkeys(["ddpg", "td3", "sac_continuous", "ppo_continuous"], "Pendulum-v1")
WRONG_ENV = {script: "CartPole-v1" if env == "Pendulum-v1" else "Pendulum-v1" for script, env in ENV.items()}
LOSSES = {
    "dqn": {"q_loss", "q"},
    "ddqn": {"q_loss", "q"},
    "ddpg": {"critic_loss", "actor_loss", "q"},
    "td3": {"critic_loss", "actor_loss", "q"},
    "sac_continuous": {"critic_loss", "actor_loss", "alpha_loss", "entropy", "alpha", "q", "target_entropy"},
}
FLAGS = {
    "dqn": "--train-interval 1 --target-update-interval 70 --epsilon-schedule exponential --epsilon-decay 0.995",
    "ddqn": "--train-interval 1 --target-update-interval 1 --tau 0.01 --epsilon-duration 500",
    "ddpg": "--noise-process ou --exploration-noise 0.2",
    "td3": "--policy-delay 3 --actor-objective min",
    "sac_continuous": "--target-entropy 0 --target-entropy-end -1 --target-entropy-duration 300",
}
WRONG = {
    "ppo_discrete": [
        ("--num-minibatches 3", "--num-minibatches"),
        ("--ent-coef-schedule linear", "--ent-coef-end"),
        ("--ent-autotune --ent-coef 0", "--ent-autotune"),
        ("--ent-autotune --target-entropy -0.69", "--target-entropy"),  # note 001's -log n
    ],
    "ppo_continuous": [
        ("--num-envs 0", "--num-envs"),
        ("--ent-coef-schedule exponential --ent-coef-end 0.1 --ent-coef-duration 9", "--ent-coef"),
        ("--target-entropy -1", "--ent-autotune"),
        ("--std scalar", "--std"),
    ],
    "dqn": [("--epsilon-start 2", "--epsilon-start"), ("--train-interval 7", "--log-interval")],
    "ddqn": [("--target-update-interval 0", "--target-update-interval"), ("--epsilon-schedule cosine", "--epsilon")],
    "ddpg": [("--exploration-noise -1", "--exploration-noise"), ("--noise-process pink", "--noise-process")],
    "td3": [("--policy-delay 0", "--policy-delay"), ("--actor-objective q3", "--actor-objective")],
    "sac_continuous": [
        ("--target-entropy-end -1", "--target-entropy-duration"),
        ("--no-autotune --target-entropy -1", "--target-entropy"),
    ],
}
STARTS, STEPS, EPISODE = 150, 800, 200  # random steps, all steps, steps of an episode
LENGTHS = f"--total-timesteps 8e2 --learning-starts {STARTS} --batch-size 32 --log-interval 50 --no-cuda"
INTERVALS = "--eval-interval 300 --eval-episodes 2 --checkpoint-interval 200"
SHORT = "--total-timesteps 2_50 --learning-starts 100 --batch-size 8 --log-interval 50 --eval-interval 0 --no-cuda"

ENVS = '''
import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import PendulumEnv

class BadReward(PendulumEnv):
    """Pendulum whose rewards are nan from the step number `first` on, counted over all episodes."""
    def __init__(self, first, **kwargs):
        super().__init__(**kwargs)
        self.first, self.steps = first, 0

    def step(self, action):
        self.steps += 1
        obs, reward, *rest = super().step(action)
        return obs, reward if self.steps < self.first else float("nan"), *rest

class Unbounded(PendulumEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

common = dict(max_episode_steps=200, disable_env_checker=True)
gym.register("Test/Nan300-v0", BadReward, kwargs={"first": 300}, **common)
gym.register("Test/Nan400-v0", BadReward, kwargs={"first": 400}, **common)
gym.register("Unbounded-v0", Unbounded, **common)
'''
WANDB = """
import json
from pathlib import Path
calls = []

def init(**kwargs):
    {init}
    Path("init.json").write_text(json.dumps(kwargs, default=str))

def log(values, **kwargs):
    if len(calls) == {fail_after}:
        raise RuntimeError("the network\\nis gone")
    calls.append(values)
    Path("log.json").write_text(json.dumps(calls, default=float))

def finish(*args, **kwargs): pass

def define_metric(*args, **kwargs): pass
"""

Run = namedtuple("Run", "status out err dir cwd")  # dir: the run's folder, None if there is none


# ---- Helpers ----
def environment(**extra: str) -> dict[str, str]:
    """The environment of a user at a shell, with one thread, and with stdout buffered as Python does by default."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "PYTHON"))}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"} | extra


def command(script: str, flags: str) -> list[str]:
    return [sys.executable, str(ROOT / f"{script}.py"), *flags.split()]


def folders(cwd: Path) -> list[Path]:
    return sorted(Path(cwd, "runs").glob("*"), key=lambda folder: folder.stat().st_ctime_ns)


def call(script: str, flags: str, cwd: Path, **extra: str) -> Run:
    """Runs the script in the folder `cwd` to its end."""
    cwd.mkdir(parents=True, exist_ok=True)
    before = folders(cwd)
    done = subprocess.run(
        command(script, flags), cwd=cwd, env=environment(**extra), capture_output=True, timeout=120, encoding="utf-8"
    )
    new = [folder for folder in folders(cwd) if folder not in before]
    assert len(new) <= 1, f"more than one new folder: {new}"
    return Run(done.returncode, done.stdout, done.stderr, new[0] if new else None, cwd)


def start(script: str, flags: str, cwd: Path, **extra: str) -> subprocess.Popen:
    cwd.mkdir(parents=True, exist_ok=True)
    with open(cwd / "stdout", "ab") as out, open(cwd / "stderr", "ab") as err:
        return subprocess.Popen(command(script, flags), cwd=cwd, env=environment(**extra), stdout=out, stderr=err)


def wait_for(condition, process: subprocess.Popen) -> bool:
    """Waits for the condition; False if the process ended without it."""
    deadline = time.monotonic() + 60
    while not condition():
        if process.poll() is not None:
            return bool(condition())
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("a run got stuck")
        time.sleep(0.002)
    return True


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """tag -> {step: value written last}, without the speed, which differs in each run."""
    events = []
    for file in folder.glob("events.*"):
        events += [event for event in LegacyEventFileLoader(str(file)).Load() if event.HasField("summary")]
    table = {}
    for event in sorted(events, key=lambda event: event.wall_time):
        for value in event.summary.value:
            table.setdefault(value.tag, {})[event.step] = value.simple_value
    table.pop("charts/SPS", None)
    return table


def tensors(state, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors and numbers in nested dicts and lists, by path."""
    if isinstance(state, dict):
        state = list(state.items())
    elif isinstance(state, (list, tuple)):
        state = list(enumerate(state))
    elif isinstance(state, torch.Tensor):
        return {name: state}
    elif isinstance(state, (int, float)):
        return {name: torch.tensor(state, dtype=torch.float64)}  # also of integers with more than 64 bits
    else:
        return {}
    return {path: value for key, part in state for path, value in tensors(part, f"{name}/{key}").items()}


def load(folder: Path, file: str) -> dict[str, torch.Tensor]:
    return tensors(torch.load(folder / file, weights_only=True))


def assert_same_agent(one: Path, other: Path) -> None:
    """Parameters, targets, temperature and optimizers are equal bit for bit."""
    one, other = (tensors(torch.load(folder / "agent.pt", weights_only=True)["agent"]) for folder in (one, other))
    assert len(one) > 10 and one.keys() == other.keys()
    assert [path for path in one if not torch.equal(one[path], other[path])] == []


def assert_finite(folder: Path, file: str) -> None:
    values = load(folder, file)
    assert len(values) > 10
    assert [path for path, value in values.items() if value.is_floating_point() and not value.isfinite().all()] == []


def assert_complete(run: Run, script: str) -> None:
    """A SHORT run ended well, with all of its scalars, and one line of warning."""
    assert run.status == 0 and "Traceback" not in run.err
    assert len(lines(run.err)) == 1 and "warning" in run.err.lower()
    found = {tag: sorted(steps) for tag, steps in scalars(run.dir).items()}
    expected = {f"charts/episodic_{name}": [EPISODE] for name in ("return", "length")}
    assert found == expected | {f"losses/{name}": [150, 200, 250] for name in LOSSES[script]}
    assert (run.dir / "agent.pt").exists()


# ---- Jobs: what is run in processes ----
def stub(cwd: Path, name: str, text: str) -> dict[str, str]:
    """A package in the place of `name`, and the variable that makes Python find it."""
    folder = cwd / "stubs" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(text)
    return {"PYTHONPATH": str(cwd / "stubs")}


def wandb_folders(cwd: Path) -> dict[str, str]:
    """Variables that keep wandb out of the home of whoever runs the tests."""
    places = {
        name: str(cwd.parent / "wandb_home") for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR")
    }
    return places | {"WANDB_MODE": "offline"}


def job_reference(script: str, cwd: Path) -> tuple[Run, Run]:
    """A run, and the same again in the same place, sent to wandb offline and with videos."""
    flags = f"--env-id {ENV[script]} {LENGTHS} {INTERVALS} {FLAGS[script]}"
    first = call(script, flags, cwd)
    return first, call(script, f"{flags} --track --capture-video", cwd, **wandb_folders(cwd))


def job_no_evaluation(script: str, cwd: Path) -> Run:
    """The reference without evaluations, its standard error a terminal."""
    import pty
    import termios

    cwd.mkdir()
    flags = f"--env-id {ENV[script]} {LENGTHS} --eval-interval 0 --checkpoint-interval 200 {FLAGS[script]}"
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    process = subprocess.Popen(
        command(script, flags), cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = []

    def read():
        try:
            while part := os.read(ours, 4096):
                shown.append(part)
        except OSError:  # what Linux says when the other side has closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    status = process.wait(120)
    reader.join(10)
    os.close(ours)
    return Run(status, "", b"".join(shown).decode(), folders(cwd)[0], cwd)


def job_kill(script: str, cwd: Path) -> Run:
    """The reference killed by SIGKILL at three moments, and resumed each time."""
    flags = f"--env-id {ENV[script]} {LENGTHS} {INTERVALS} {FLAGS[script]}"
    for attempt in range(4):
        place, resume, seen, kills = cwd / str(attempt), "", 0, 0
        for fraction in (0, 0.1, 0.25):
            process = start(script, resume or flags, place)

            def written():
                return max((file.stat().st_mtime_ns for file in place.glob("runs/*/checkpoint.pt")), default=0)  # noqa: B023

            if wait_for(lambda: written() > seen, process):  # noqa: B023
                time.sleep(fraction * (3 - attempt) / 3)
                process.kill()
            kills += process.wait(60) == -signal.SIGKILL
            if process.returncode not in (0, -signal.SIGKILL):
                pytest.fail((place / "stderr").read_text("utf-8"))
            seen, resume = written(), f"--resume {folders(place)[0]}"
        if kills == 3:  # else it was over before one of them came: again, with earlier ones
            out = (place / "stdout").read_text("utf-8")
            last = call(script, resume, place)
            return last._replace(dir=folders(place)[0], out=out)
    pytest.fail("no run was slow enough to be killed three times")


def job_signals(script: str, cwd: Path) -> dict:
    """A run with no periodic checkpoints that gets SIGTERM, is resumed, gets SIGINT, and is resumed to its end."""
    flags = f"--env-id {ENV[script]} {LENGTHS} --eval-interval 100 --eval-episodes 1 --checkpoint-interval 0"
    for attempt in range(4):
        place, resume, facts = cwd / str(attempt), "", {"status": [], "step": []}
        for number in (signal.SIGTERM, signal.SIGINT):
            out = place / "stdout"
            seen = out.read_text("utf-8").count("evaluation") if out.exists() else 0
            process = start(script, resume or flags + " " + FLAGS[script], place, PYTHONUNBUFFERED="1")
            if wait_for(lambda: out.exists() and out.read_text("utf-8").count("evaluation") > seen, process):  # noqa: B023
                process.send_signal(number)
            facts["status"].append(process.wait(60))
            [folder] = folders(place)
            state = (
                torch.load(folder / "checkpoint.pt", weights_only=True) if (folder / "checkpoint.pt").exists() else {}
            )
            facts["step"].append(state.get("step"))
            resume = f"--resume {folder}"
        if 0 not in facts["status"]:  # else it was over before the signal came
            return facts | {
                "err": (place / "stderr").read_text("utf-8"),
                "end": call(script, resume, place),
                "dir": folder,
            }
    pytest.fail("no run was slow enough to be stopped twice")


def job_not_finite(script: str, cwd: Path, number: int) -> dict:
    """A run whose rewards are nan from step `number` on; the last checkpoint; and what resuming that gives."""
    cwd.mkdir()
    (cwd / "bad_envs.py").write_text(ENVS)
    flags = f"--env-id bad_envs:Test/Nan{number}-v0 {LENGTHS} --eval-interval 0 --checkpoint-interval 200"
    run = call(script, flags.replace("8e2", "480"), cwd, PYTHONPATH=str(cwd))
    kept = Path(shutil.copytree(run.dir, cwd / "kept"))
    return {"run": run, "kept": kept, "end": call(script, f"--resume {run.dir}", cwd, PYTHONPATH=str(cwd))}


def job_wandb(script: str, cwd: Path, text: str) -> Run:
    cwd.mkdir()
    return call(script, f"--env-id {ENV[script]} {SHORT} --track", cwd, **stub(cwd, "wandb", text))


def job_no_moviepy(script: str, cwd: Path) -> Run:
    cwd.mkdir()
    missing = stub(cwd, "moviepy", "raise ImportError('no moviepy here')")
    return call(script, f"--env-id {ENV[script]} {SHORT} --capture-video", cwd, **missing)


def job_evaluate(script: str, cwd: Path, reference) -> tuple[Run, Run]:
    """The reference's agent, played from its folder, and from a folder that has only agent.pt, recorded."""
    run, _ = reference.result()
    (cwd / "copy").mkdir(parents=True)
    shutil.copy(run.dir / "agent.pt", cwd / "copy")
    first = call(script, f"--evaluate {run.dir} --eval-episodes 2 --no-cuda", cwd)
    return first, call(script, "--evaluate copy --eval-episodes 2 --capture-video --no-cuda", cwd)


@pytest.fixture(scope="module", params=SCRIPTS)
def script(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def jobs(script, tmp_path_factory):
    """jobs(name) waits for a job of that name and gives its result; all are started here, the long ones first."""
    tmp = tmp_path_factory.mktemp(script)
    work = {
        "reference": job_reference,
        "kill": job_kill,
        "signals": job_signals,
        "no_evaluation": job_no_evaluation,
        "nan300": partial(job_not_finite, number=300),
        "nan400": partial(job_not_finite, number=400),
        "wandb_missing": partial(job_wandb, text="raise ImportError('no wandb here')"),
        "wandb_init": partial(job_wandb, text=WANDB.format(init="raise RuntimeError('no key')", fail_after=-1)),
        "wandb_log": partial(job_wandb, text=WANDB.format(init="pass", fail_after=3)),
        "no_moviepy": job_no_moviepy,
        "help": lambda script, cwd: call(script, "--help", cwd, COLUMNS="200"),
        "unknown_flag": lambda script, cwd: call(script, "--bogus 3", cwd),
        "old_version": lambda script, cwd: call(
            script, "--env-id Pendulum-v0", cwd
        ),  # of which gymnasium warns as well
        "wrong_space": lambda script, cwd: call(script, f"--env-id {WRONG_ENV[script]}", cwd),
    }
    with ThreadPoolExecutor(2) as pool:
        results = {name: pool.submit(job, script, tmp / name) for name, job in work.items()}
        results["evaluate"] = pool.submit(job_evaluate, script, tmp / "evaluate", results["reference"])
        yield lambda name: results[name].result()
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def module(script):
    """The script as a module."""
    return importlib.import_module(script)


@pytest.fixture
def main_of(tmp_path, monkeypatch, capsys):
    """main_of(script, flags) runs its last block in this process, in an empty folder: exit status, standard error."""

    def run(script: str, flags: str) -> tuple[int, str]:
        module = importlib.import_module(script)
        last = ast.parse(Path(module.__file__).read_text("utf-8")).body[-1]
        assert isinstance(last, ast.If) and "__main__" in ast.unparse(last.test)
        block = compile(ast.Module([last], []), module.__file__, "exec")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *flags.split()])
        capsys.readouterr()
        status = 0
        try:
            exec(block, vars(module) | {"__name__": "__main__"})
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def main(script, main_of):
    return partial(main_of, script)


# ---- Command line ----
def assert_refused(status: int, err: str, *words: str) -> None:
    assert status == 2
    assert len(lines(err)) == 1, err
    assert "Traceback" not in err
    assert [word for word in words if word not in err] == [], err


def test_help(script, jobs, module):
    """--help names every argument, says what each is, and warns of nothing."""
    run = jobs("help")
    assert (run.status, run.err) == (0, "")
    flags = set(re.findall(r"--[a-z][a-z-]*", run.out))
    assert {"--" + field.name.replace("_", "-") for field in dataclasses.fields(module.Args)} - flags == set()
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", run.out).split())
    fields = re.findall(r"^    \w+: .* = .*?  # (.+)$", (ROOT / f"{script}.py").read_text("utf-8"), re.MULTILINE)
    assert len(fields) >= len(dataclasses.fields(module.Args))
    assert [comment for comment in fields[: len(dataclasses.fields(module.Args))] if comment not in text] == []


@pytest.mark.parametrize(
    "name, word",
    [("unknown_flag", "--bogus"), ("wrong_space", "--env-id"), ("old_version", "--env-id"), ("no_moviepy", "moviepy")],
)
def test_refused_by_the_process(jobs, name, word):
    """Wrong input ends a process with status 2, one line on standard error and no files."""
    run = jobs(name)
    assert_refused(run.status, run.err, word)
    assert [path.name for path in run.cwd.iterdir() if path.name != "stubs"] == []


@pytest.mark.parametrize(
    "flags, word",
    [
        ("--env-id NoSuchThing-v0", "NoSuchThing-v0"),
        ("--env-id nosuchmodule:Thing-v0", "nosuchmodule"),
        ("--seed x", "--seed"),
        ("--seed 1.5", "--seed"),
        (f"--seed 1.5e0 --env-id Pendulum-v1 {SHORT}", "--seed"),
        ("--seed -1", "--seed"),
        ("--seed 100000000000000000000", "--seed"),  # more than 64 bits
        ("--seed", "--seed"),
        ("stray", "stray"),
        ("--total-timestep 1000", "--total-timestep"),
        ("--total-timesteps 0", "--total-timesteps"),
        ("--batch-size 0", "--batch-size"),
        ("--buffer-size 0", "--buffer-size"),
        ("--log-interval 0", "--log-interval"),
        ("--eval-interval -1", "--eval-interval"),
        ("--eval-episodes 0", "--eval-episodes"),
        ("--checkpoint-interval -5", "--checkpoint-interval"),
        ("--gamma 2", "--gamma"),
        ("--gamma nan", "--gamma"),
        ("--tau 0", "--tau"),
        ("--total-timesteps 500 --learning-starts 500", "--learning-starts"),
        ("--buffer-size 1e12 --total-timesteps 1e13", "--buffer-size"),
        ("--resume nowhere", "nowhere"),
        ("--evaluate nowhere", "nowhere"),
        ("--resume nowhere --seed 3", "--resume"),
        ("--resume nowhere --evaluate nowhere", "--resume"),
        pytest.param(
            "--cudagraphs", "--cudagraphs", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
        ),
    ],
)
def test_refused(script, main, tmp_path, flags, word):
    """Wrong input is refused with status 2 and one line that names it, and nothing is created."""
    env = "" if "--env-id" in flags or "--resume" in flags or "--evaluate" in flags else f"--env-id {ENV[script]} "
    status, err = main(env + flags)
    assert_refused(status, err, word)
    assert list(tmp_path.iterdir()) == []


def test_refused_by_the_algorithm(script, main, tmp_path):
    """So are the contradictions among the algorithm's own arguments."""
    for flags, word in WRONG[script]:
        assert_refused(*main(f"--env-id {ENV[script]} {flags}"), word)
    assert list(tmp_path.iterdir()) == []


def test_refused_unbounded(main, tmp_path, monkeypatch):
    """An action space without bounds is refused."""
    (tmp_path / "bad_envs.py").write_text(ENVS)
    monkeypatch.syspath_prepend(tmp_path)
    assert_refused(*main("--env-id bad_envs:Unbounded-v0"), "bad_envs:Unbounded-v0", "unbounded")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".py" and path.name != "__pycache__"] == []


def test_refused_out_dir(script, main, tmp_path):
    """An out_dir in which no folder can be made is refused."""
    (tmp_path / "file").write_text("")
    assert_refused(*main(f"--env-id {ENV[script]} {SHORT} --out-dir file"), "file")
    assert (tmp_path / "file").read_text() == ""


def test_refused_evaluation(script, jobs, main, tmp_path, monkeypatch):
    """--evaluate checks its arguments too: the number of episodes, and that videos can be written."""
    folder = jobs("reference")[0].dir
    assert_refused(*main(f"--evaluate {folder} --eval-episodes 0"), "--eval-episodes")
    monkeypatch.setitem(sys.modules, "moviepy", None)  # makes `import moviepy` an ImportError
    assert_refused(*main(f"--evaluate {folder} --eval-episodes 1 --capture-video"), "--capture-video")
    assert list(tmp_path.iterdir()) == [] and not (folder / "videos").exists()


@pytest.mark.parametrize("damage", ["half", "garbage", "empty", "other"])
def test_refused_damaged(script, jobs, main, tmp_path, damage):
    """A damaged checkpoint.pt, or a file of another kind, is refused, and stays as it is."""
    whole = (jobs("reference")[0].dir / "checkpoint.pt").read_bytes()
    path = tmp_path / "damaged" / "checkpoint.pt"
    path.parent.mkdir()
    path.write_bytes({"half": whole[: len(whole) // 2], "garbage": bytes(range(256)) * 40}.get(damage, b""))
    if damage == "other":
        torch.save({"weights": torch.zeros(3)}, path)
    before = path.read_bytes()
    assert_refused(*main("--resume damaged"), "checkpoint.pt")
    assert [file.name for file in tmp_path.rglob("*")] == ["damaged", "checkpoint.pt"] and path.read_bytes() == before


@pytest.mark.parametrize(
    "flags, name, value",
    [
        (["--total-timesteps", "1e3"], "total_timesteps", 1000),
        (["--total-timesteps", "1_000"], "total_timesteps", 1000),
        (["--total-timesteps", "2.5e4"], "total_timesteps", 25_000),
        (["--total-timesteps=1e3"], "total_timesteps", 1000),
        (["--total_timesteps", "1e3"], "total_timesteps", 1000),
        (["--out-dir", "1e3"], "out_dir", "1e3"),  # text stays what it is
        (["--out-dir=lr=1e3"], "out_dir", "lr=1e3"),
        (["--gamma", "9.9e-1"], "gamma", 0.99),
        (["--tau", "1.5e0"], "tau", 1.5),  # a number, though not a good one: no digit gets lost
    ],
)
def test_numbers(module, monkeypatch, flags, name, value):
    """Integers may be written 1e3 and 1_000, and the fractions of other numbers stay."""
    monkeypatch.setattr(sys, "argv", ["script", *flags])
    assert getattr(module.parse_args(), name) == value


# ---- Files of a run ----
def test_files(script, jobs):
    """A run writes one folder: args.json, agent.pt, checkpoint.pt, events; tracked and recorded, wandb and videos."""
    run, again = jobs("reference")
    assert (run.status, again.status) == (0, 0), run.err + again.err
    assert os.listdir(run.cwd) == ["runs"]
    assert set(run.dir.parent.iterdir()) == {run.dir, again.dir}
    for folder in (run.dir, again.dir):
        assert re.fullmatch(rf"{ENV[script]}__{script}__1__\d+", folder.name)
    names = [re.sub(r"^events\..*", "events", path.name) for path in run.dir.iterdir()]
    assert sorted(names) == ["agent.pt", "args.json", "checkpoint.pt", "events"]
    names = [re.sub(r"^events\..*", "events", path.name) for path in again.dir.iterdir()]
    assert sorted(names) == ["agent.pt", "args.json", "checkpoint.pt", "events", "videos", "wandb"]


def test_args_json(script, jobs, module):
    """args.json and agent.pt hold the arguments, all of them, also those left at their defaults."""
    run, again = jobs("reference")
    given = {
        "env_id": ENV[script], "total_timesteps": 800, "learning_starts": STARTS, "batch_size": 32, "cuda": False,
        "log_interval": 50, "eval_interval": 300, "eval_episodes": 2, "checkpoint_interval": 200,
    }  # fmt: skip
    flags = FLAGS[script].split()
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        given[flag[2:].replace("-", "_")] = value if value.isalpha() else float(value)
    expected = dataclasses.asdict(module.Args(**given))
    assert json.loads((run.dir / "args.json").read_text()) == expected
    assert torch.load(run.dir / "agent.pt", weights_only=True)["args"] == expected
    expected |= {"track": True, "capture_video": True}
    assert json.loads((again.dir / "args.json").read_text()) == expected


def test_saved_states(jobs):
    """agent.pt and checkpoint.pt load with weights_only and hold finite numbers; the agent is the same in both."""
    run, _ = jobs("reference")
    for file in ("agent.pt", "checkpoint.pt"):
        assert_finite(run.dir, file)
    agent, state = load(run.dir, "agent.pt"), load(run.dir, "checkpoint.pt")
    assert [path for path in agent if not torch.equal(agent[path], state[path])] == []


def test_scalars(script, jobs):
    """Every scalar of the contract is there, at its steps, and none besides."""
    run, _ = jobs("reference")
    events = EventAccumulator(str(run.dir)).Reload()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    logs = list(range(STARTS + 50, STEPS + 1, 50))
    ends = list(range(EPISODE, STEPS + 1, EPISODE))
    expected = {f"losses/{name}": logs for name in LOSSES[script]}
    expected |= {"charts/SPS": logs, "charts/episodic_return": ends, "charts/episodic_length": ends}
    assert steps == expected | {"eval/episodic_return": [300, 600, 800]}
    values = scalars(run.dir)
    assert set(values["charts/episodic_length"].values()) == {EPISODE}
    assert all(-16.3 * EPISODE < value < 0 for value in values["charts/episodic_return"].values())  # Pendulum's bounds
    assert all(0 < event.value < 1e5 for event in events.Scalars("charts/SPS"))


def test_same_seed(jobs):
    """The same seed gives the same scalars and the same agent, also with tracking and videos."""
    run, again = jobs("reference")
    assert scalars(run.dir) == scalars(again.dir)
    assert_same_agent(run.dir, again.dir)


def test_evaluation_is_apart(jobs):
    """Training is the same, bit for bit, with evaluations and without."""
    run, without = jobs("reference")[0], jobs("no_evaluation")
    expected = scalars(run.dir)
    assert len(expected.pop("eval/episodic_return")) == 3
    assert without.status == 0 and scalars(without.dir) == expected
    assert_same_agent(run.dir, without.dir)


def test_pipe(jobs):
    """In a pipe there is no progress bar, only lines."""
    run, _ = jobs("reference")
    assert run.err == ""
    assert "\r" not in run.out and str(run.dir.relative_to(run.cwd)) in run.out
    assert len([line for line in lines(run.out) if "evaluation" in line]) == 3


def test_terminal(jobs):
    """On a terminal a bar shows step, time left, steps per second and the recent return."""
    shown = jobs("no_evaluation").err
    bars = re.findall(r"(\d+)/800 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+k?step/s, return=-\d+", shown)
    assert any(0 < int(step) < 800 for step in bars), shown[-400:]


def test_folder_name(script, jobs):
    """Path separators and colons of env_id are not in the folder's name."""
    folder = jobs("nan300")["run"].dir
    assert folder.parent.name == "runs"
    assert re.fullmatch(rf"bad.envs.Test.Nan300-v0__{script}__1__\d+", folder.name)
    assert not set(folder.name) & set("/\\:")


# ---- Not finite ----
def test_not_finite(script, jobs):
    """A loss that is not finite ends the run with status 1 and one line that names the step and the value."""
    run = jobs("nan300")["run"]
    assert run.status == 1 and len(lines(run.err)) == 1, run.err
    assert 300 <= int(re.search(r"step ([\d,_]+)", run.err)[1]) <= 350
    assert any(re.search(rf"\b{name}\b", run.err) for name in LOSSES[script]), run.err


@pytest.mark.parametrize("name", ["nan300", "nan400"])
def test_last_good_checkpoint(jobs, name):
    """The last checkpoint is finite, replay buffer included, and can be gone on with; step 400 ends an episode."""
    job = jobs(name)
    assert job["run"].status == 1
    for file in ("agent.pt", "checkpoint.pt"):
        assert_finite(job["kept"], file)
    assert job["end"].status == 0, job["end"].err  # its environment counts from 0 again and stays below `number`
    assert_finite(job["run"].dir, "checkpoint.pt")


# ---- Resume ----
def test_killed(script, jobs):
    """Killed three times and resumed, a run ends with the scalars and the agent of one that was never stopped."""
    whole, killed = jobs("reference")[0], jobs("kill")
    assert killed.status == 0, killed.err
    assert len(folders(killed.cwd)) == 1
    expected, found = scalars(whole.dir), scalars(killed.dir)
    assert found.keys() == expected.keys()
    assert {tag: found[tag] for tag in found if found[tag] != expected[tag]} == {}
    assert_same_agent(whole.dir, killed.dir)
    assert list(killed.dir.glob("*.tmp")) == []


def test_killed_curves(jobs):
    """TensorBoard shows one curve of a run that was killed, with each step once."""
    whole, killed = (EventAccumulator(str(run.dir)).Reload() for run in (jobs("reference")[0], jobs("kill")))
    for tag in whole.Tags()["scalars"]:
        assert [event.step for event in killed.Scalars(tag)] == [event.step for event in whole.Scalars(tag)], tag


def test_killed_output(jobs):
    """What a run printed into a pipe is there at once, not when it ends."""
    assert "from step 0" in jobs("kill").out


def test_target_entropy(script, jobs):
    """A target entropy that moves goes on from where it was."""
    if "target_entropy" not in LOSSES[script]:
        pytest.skip("has no target entropy")
    for run in (jobs("reference")[0], jobs("kill")):
        for step, value in scalars(run.dir)["losses/target_entropy"].items():
            assert value == pytest.approx(-min((step - STARTS) / 300, 1), abs=1.01 / 300)  # first or last of the update


def test_signals(script, jobs):
    """SIGTERM ends with 143, SIGINT with 130; each leaves a checkpoint, from which the run goes on to its end."""
    job = jobs("signals")
    assert job["status"] == [143, 130], job["err"]
    first, second = job["step"]
    assert 100 <= first < second < STEPS
    assert "Traceback" not in job["err"]
    assert job["end"].status == 0, job["end"].err
    assert torch.load(job["dir"] / "checkpoint.pt", weights_only=True)["step"] == STEPS
    values = scalars(job["dir"])
    for name in LOSSES[script]:
        assert sorted(values[f"losses/{name}"]) == list(range(STARTS + 50, STEPS + 1, 50)), name
    assert sorted(values["eval/episodic_return"]) == list(range(100, STEPS + 1, 100))


def test_resume_of_a_finished_run(jobs, main, tmp_path):
    """Resuming a finished run changes neither its scalars nor its agent."""
    run, _ = jobs("reference")
    shutil.copytree(run.dir, tmp_path / "copy")
    assert main("--resume copy") == (0, "")
    assert scalars(tmp_path / "copy") == scalars(run.dir)
    assert_same_agent(tmp_path / "copy", run.dir)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


# ---- Evaluation ----
def test_evaluate_takes_the_rest_from_the_run(script, jobs, main):
    assert_refused(*main(f"--evaluate {jobs('reference')[0].dir} --seed 3"), "--evaluate")


def test_evaluate(jobs):
    """--evaluate prints the returns of the saved agent, the same ones as training, from agent.pt alone."""
    run, (first, second) = jobs("reference")[0], jobs("evaluate")
    assert (first.status, second.status, first.err) == (0, 0, ""), second.err
    assert first.out == second.out
    *each, mean = lines(first.out)
    returns = [float(re.search(r"-?\d+\.\d+$", line)[0]) for line in each]
    found_mean, found_std = map(float, re.search(r"(-?[\d.]+) ± ([\d.]+)$", mean).groups())
    assert len(returns) == 2 and found_mean == pytest.approx(sum(returns) / 2, abs=0.011)
    assert found_std == pytest.approx(abs(returns[0] - returns[1]) / 2, abs=0.011)
    assert found_mean == pytest.approx(scalars(run.dir)["eval/episodic_return"][STEPS], abs=0.006)
    assert [path.name for path in first.cwd.iterdir()] == ["copy"]
    assert {path.name for path in run.dir.iterdir() if path.suffix} >= {"agent.pt"} and not (
        run.dir / "videos"
    ).exists()


def frames(file: Path) -> int:
    import imageio

    with imageio.get_reader(file) as reader:
        return sum(1 for _ in reader)


def test_videos(jobs):
    """--capture-video records each episode with --evaluate, and the first of each evaluation in training."""
    again, (_, evaluated) = jobs("reference")[1], jobs("evaluate")
    files = list((evaluated.cwd / "copy" / "videos").iterdir())
    assert len(files) == 2 and {file.suffix for file in files} == {".mp4"}
    assert frames(files[0]) >= EPISODE
    files = list((again.dir / "videos").iterdir())
    assert sorted(int(re.search(r"step-(\d+)", file.name)[1]) for file in files) == [300, 600, 800]
    assert frames(files[0]) >= EPISODE


# ---- Tracking ----
def test_wandb_offline(jobs):
    """WANDB_MODE=offline leaves a run, with its videos, inside of the run's folder."""
    _, again = jobs("reference")
    assert again.status == 0
    [folder] = (again.dir / "wandb").glob("offline-run-*")
    assert [path.stat().st_size > 1000 for path in folder.glob("*.wandb")] == [True]
    assert len(list(folder.rglob("*.mp4"))) == 3


@pytest.mark.parametrize("name", ["wandb_missing", "wandb_init", "wandb_log"])
def test_wandb_fails(script, jobs, name):
    """A wandb that is missing or that fails costs one line of warning, and no scalar."""
    assert_complete(jobs(name), script)


def test_wandb_content(jobs):
    """wandb gets the arguments, and the scalars of TensorBoard with their steps."""
    run = jobs("wandb_log")
    assert json.loads((run.cwd / "init.json").read_text())["config"] == json.loads((run.dir / "args.json").read_text())
    calls, written = json.loads((run.cwd / "log.json").read_text()), scalars(run.dir)
    sent = {(tag, call.get("global_step")): value for call in calls for tag, value in call.items()}
    sent = {key: value for key, value in sent.items() if key[0] not in ("global_step", "charts/SPS")}
    assert len(calls) == 3 and ("charts/episodic_return", EPISODE) in sent
    for (tag, step), value in sent.items():
        assert value == pytest.approx(written[tag][step], rel=1e-6), tag


# ---- The other scripts, in brief ----
@pytest.mark.parametrize(
    "script", ["dqn", "td3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddqn", "ddpg"))]
)
def test_others_end_the_same_when_killed(script, tmp_path):
    """A run, its help, and the same run killed three times; two processes at a time."""
    flags = f"--env-id {ENV[script]} {LENGTHS} {INTERVALS} {FLAGS[script]}"
    with ThreadPoolExecutor(2) as pool:
        killed = pool.submit(job_kill, script, tmp_path / "kill")
        whole, shown = call(script, flags, tmp_path / "whole"), call(script, "--help", tmp_path / "help", COLUMNS="200")
        killed = killed.result()
    assert (shown.status, shown.err) == (0, "") and "--total-timesteps" in shown.out
    assert (whole.status, killed.status, whole.err, killed.err) == (0, 0, "", "")
    expected = scalars(whole.dir)
    assert {f"losses/{name}" for name in LOSSES[script]} < expected.keys()
    assert scalars(killed.dir) == expected
    assert_same_agent(whole.dir, killed.dir)


@pytest.mark.parametrize("script", OTHERS)
def test_others_refuse(script, main_of, tmp_path):
    for flags, word in [(f"--env-id {WRONG_ENV[script]}", "--env-id"), *WRONG[script]]:
        assert_refused(*main_of(script, flags), word)
    assert list(tmp_path.iterdir()) == []


# ---- PPO ----
@pytest.mark.parametrize("script", ["ppo_discrete", "ppo_continuous"])
def test_ppo_goes_on_after_a_kill(script, tmp_path):
    """With the agent of the last checkpoint and new episodes: twice the same from one checkpoint, to the last step."""
    flags = "--num-envs 2 --num-steps 64 --num-minibatches 4 --total-timesteps 8_000 --log-interval 1 --no-cuda"
    flags += f" --env-id {ENV[script]} --eval-interval 4_000 --eval-episodes 2 --checkpoint-interval 1_000"
    process = start(script, flags, tmp_path)
    wait_for(lambda: any(tmp_path.glob("runs/*/checkpoint.pt")), process)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    [folder] = folders(tmp_path)
    step = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
    assert 1_000 <= step < 8_000
    copies = [shutil.copytree(folder, tmp_path / f"copy{i}" / folder.name) for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda copied: call(script, f"--resume {copied}", copied.parent), copies))
    for run in runs:
        assert (run.status, run.err) == (0, "") and f"from step {step:,}" in run.out and "new episodes" in run.out
    tables = [scalars(copied) for copied in copies]
    assert tables[0] == tables[1] and max(tables[0]["losses/entropy"]) == 8_064
    assert_same_agent(*copies)
    assert sorted(tables[0]["losses/total_loss"]) == list(range(128, 8_065, 128))  # none lost, none twice
    shown = [call(script, f"--evaluate {copies[0]} --eval-episodes 2 --no-cuda", copies[0].parent) for _ in range(2)]
    assert shown[0].status == 0 and shown[0].out == shown[1].out
    mean = float(re.search(r": (-?[\d.]+) ±", shown[0].out)[1])
    assert mean == pytest.approx(tables[0]["eval/episodic_return"][8_064], abs=0.006)


@pytest.mark.parametrize("script", ["ppo_discrete", "ppo_continuous"])
def test_ppo_stops_on_a_signal_after_the_last_whole_rollout(script, tmp_path):
    flags = f"--env-id {ENV[script]} --num-envs 2 --num-steps 64 --num-minibatches 4 --total-timesteps 1e6 --no-cuda"
    process = start(script, flags + " --eval-interval 1024 --eval-episodes 1", tmp_path, PYTHONUNBUFFERED="1")
    wait_for(lambda: "evaluation" in (tmp_path / "stdout").read_text("utf-8"), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and (tmp_path / "stderr").read_text("utf-8") == ""
    step = torch.load(folders(tmp_path)[0] / "checkpoint.pt", weights_only=True)["step"]
    assert step >= 1024 and step % 128 == 0
    assert f"stopped at step {step:,}" in (tmp_path / "stdout").read_text("utf-8")
