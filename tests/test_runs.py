"""What a user sees of a script: its help, its files, kill and resume, evaluation, tracking.

Runs that are killed or stopped are processes, two at a time, started by the fixtures `jobs` and `brief`; a test waits
for the ones that it reads. What needs no process of its own is run in this one, by the fixture `main_of`.
"""

import ast
import contextlib
import dataclasses
import importlib
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import odd_envs
import pytest
import torch
from forked import Forked
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch.utils.tensorboard import SummaryWriter

ROOT = Path(__file__).parents[1]
# What is the same in all scripts is tested to the full on one of them, and on the others in brief or `pytest -m slow`.
ALL = ["sac_continuous", "td3", "ddpg", "dqn", "ddqn", "ppo_discrete", "ppo_continuous"]
OTHERS = ALL[1:]
SCRIPTS = ["sac_continuous", *(pytest.param(script, marks=pytest.mark.slow) for script in ("ddpg", "td3"))]
PPO = ["ppo_discrete", "ppo_continuous"]
# by script: an environment that fits, one whose action space does not, losses, flags of the runs and of wrong input
ENV = dict.fromkeys(["dqn", "ddqn", "ppo_discrete"], "CartPole-v1")
ENV |= dict.fromkeys(["ddpg", "td3", "sac_continuous", "ppo_continuous"], "Pendulum-v1")
WRONG_ENV = {script: "CartPole-v1" if env == "Pendulum-v1" else "Pendulum-v1" for script, env in ENV.items()}
ODD_ENV = {s: "odd_envs:Odd/Box-v0" if env == "Pendulum-v1" else "odd_envs:Odd/Discrete-v0" for s, env in ENV.items()}
PPO_LOSSES = {"policy_loss", "value_loss", "total_loss", "entropy", "ent_coef", "approx_kl", "clip_fraction"}
PPO_LOSSES |= {"explained_variance"}
LOSSES = {
    "dqn": {"q_loss", "q"},
    "ddqn": {"q_loss", "q"},
    "ddpg": {"critic_loss", "actor_loss", "q"},
    "td3": {"critic_loss", "actor_loss", "q"},
    "sac_continuous": {"critic_loss", "actor_loss", "alpha_loss", "entropy", "alpha", "q", "target_entropy"},
    "ppo_discrete": PPO_LOSSES | {"ent_coef_loss", "target_entropy"},
    "ppo_continuous": PPO_LOSSES,
}
CHARTS = {"dqn": {"epsilon"}, "ddqn": {"epsilon"}} | {script: {"learning_rate"} for script in PPO}
EVAL = {"eval/episodic_return", "eval/episodic_return_std", "eval/episodic_length"}
FLAGS = {
    "dqn": "--train-interval 1 --target-update-interval 70 --epsilon-schedule exponential --epsilon-decay 0.995",
    "ddqn": "--train-interval 2 --gradient-steps 2 --target-update-interval 1 --tau 0.01 --epsilon-duration 500",
    "ddpg": "--noise-process ou --exploration-noise 0.2 --train-interval 5",
    "td3": "--policy-delay 3 --actor-objective min --train-interval 5",
    "sac_continuous": "--target-entropy 0 --target-entropy-end -1 --target-entropy-duration 150 --train-interval 2",
    "ppo_discrete": "--ent-autotune --ent-coef 0.01 --target-kl 0.05",
    "ppo_continuous": "--std head --ent-coef 0.01 --ent-coef-schedule linear --ent-coef-end 0 --ent-coef-duration 2000",
}
WRONG = {
    "ppo_discrete": [
        ("--num-minibatches 3", "--num-minibatches"),
        ("--ent-coef-schedule linear", "--ent-coef-end"),
        ("--ent-autotune --ent-coef 0", "--ent-autotune"),
        ("--ent-autotune --target-entropy -0.69", "--target-entropy"),  # note 001's -log n
        ("--ent-autotune --ent-coef 0.1 --target-entropy-duration 5", "--target-entropy-end"),
        ("--ent-autotune --ent-coef 0.1 --target-entropy-end 0.2", "--target-entropy-duration"),
    ],
    "ppo_continuous": [
        ("--num-envs 0", "--num-envs"),
        ("--ent-coef-schedule exponential --ent-coef-end 0.1 --ent-coef-duration 9", "--ent-coef"),
        ("--target-entropy -1", "--ent-autotune"),
        ("--ent-autotune --ent-coef 0.1 --target-entropy-duration 5", "--target-entropy-end"),
        ("--ent-autotune --ent-coef 0.1 --target-entropy-end -2", "--target-entropy-duration"),
        ("--std scalar", "--std"),
    ],
    "dqn": [("--epsilon-start 2", "--epsilon-start"), ("--train-interval 7", "--log-interval")],
    "ddqn": [("--target-update-interval 0", "--target-update-interval"), ("--epsilon-schedule cosine", "--epsilon")],
    "ddpg": [("--exploration-noise -1", "--exploration-noise"), ("--noise-process pink", "--noise-process")],
    "td3": [("--policy-delay 0", "--policy-delay"), ("--actor-objective q3", "--actor-objective")],
    "sac_continuous": [
        ("--target-entropy-end -1", "--target-entropy-duration"),
        ("--target-entropy-duration 5", "--target-entropy-end"),
        ("--no-autotune --target-entropy -1", "--target-entropy"),
        ("--train-interval 0", "--train-interval"),
        ("--gradient-steps 0", "--gradient-steps"),
    ],
}
STARTS, STEPS, EPISODE = 150, 800, 200  # random steps, all steps, steps of an episode
LENGTHS = f"--total-timesteps 8e2 --learning-starts {STARTS} --batch-size 32 --log-interval 50 --no-cuda --no-compile"
INTERVALS = "--eval-interval 300 --eval-episodes 2 --checkpoint-interval 200"
SHORT = "--total-timesteps 2_50 --learning-starts 100 --batch-size 8 --log-interval 50 --eval-interval 0"
SHORT += " --no-cuda --no-compile"
ROLLOUTS = "--num-envs 3 --num-steps 32 --num-minibatches 4 --update-epochs 4 --total-timesteps 3_072 --log-interval 50"
ROLLOUTS += " --eval-interval 800 --eval-episodes 2 --checkpoint-interval 700 --no-cuda"
# a script, an environment, and flags of a run that takes longer
LONG = [
    ("sac_continuous", "BipedalWalker-v3", "--total-timesteps 4_000 --eval-interval 1_500 --checkpoint-interval 500"),
    ("sac_continuous", "Hopper-v5", "--total-timesteps 3_000 --eval-interval 1_000 --checkpoint-interval 500"),
    (
        "sac_continuous",
        "Pendulum-v1",
        "--total-timesteps 4_000 --eval-interval 800 --checkpoint-interval 400 --compile",
    ),
    ("dqn", "BreakoutNoFrameskip-v4", "--total-timesteps 3_000 --eval-interval 2_000 --checkpoint-interval 400"),
    ("dqn", "ALE/Pong-v5", "--total-timesteps 4_500 --eval-interval 4_000 --checkpoint-interval 900"),
    ("ppo_discrete", "BreakoutNoFrameskip-v4", ROLLOUTS.replace("--update-epochs 4", "--update-epochs 1")),
    ("ppo_continuous", "Hopper-v5", ROLLOUTS),
]
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

def finish(*args, **kwargs):
    {finish}

def define_metric(*args, **kwargs): pass
"""
WANDB = partial(WANDB.format, init="pass", fail_after=-1, finish="pass")

Run = namedtuple("Run", "status out err dir cwd")  # dir: the run's folder, None if there is none
Outcome = namedtuple("Outcome", "status err out")


# ---- Helpers ----
def environment(**extra: str) -> dict[str, str]:
    """The environment of a user at a shell, with one thread, and with stdout buffered as Python does by default."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "PYTHON", "CXX"))}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"} | extra


def folders(cwd: Path) -> list[Path]:
    return sorted(Path(cwd, "runs").glob("*"), key=lambda folder: folder.stat().st_ctime_ns)


def output(cwd: Path) -> tuple[Path, Path]:
    """The files that get what processes in `cwd` print: beside it."""
    return cwd.with_name(cwd.name + ".out"), cwd.with_name(cwd.name + ".err")


def printed(cwd: Path) -> list[str]:
    return [file.read_text("utf-8") if file.exists() else "" for file in output(cwd)]


def start(script: str, flags: str, cwd: Path, **extra: str) -> Forked:
    """The script in the folder `cwd`; what it prints comes after what others have printed there."""
    cwd.mkdir(parents=True, exist_ok=True)
    return Forked(ROOT / f"{script}.py", shlex.split(flags), cwd, environment(**extra), *output(cwd))


def call(script: str, flags: str, cwd: Path, **extra: str) -> Run:
    """Runs the script in the folder `cwd` to its end."""
    before = folders(cwd)
    for file in output(cwd):
        file.unlink(missing_ok=True)
    status = start(script, flags, cwd, **extra).wait(500)
    return Run(status, *printed(cwd), new_folder(cwd, before), cwd)


def new_folder(cwd: Path, before: list[Path]) -> Path | None:
    new = [folder for folder in folders(cwd) if folder not in before]
    assert len(new) <= 1, f"more than one new folder: {new}"
    return new[0] if new else None


def call_python(script: str, flags: str, cwd: Path, **extra: str) -> Run:
    """The same with an interpreter of its own."""
    return shell(f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / script))}.py {flags}", cwd, **extra)


def shell(command: str, cwd: Path, **extra: str) -> Run:
    """What a user types, or copies from what a run has printed."""
    cwd.mkdir(parents=True, exist_ok=True)
    before = folders(cwd)
    done = subprocess.run(
        command, cwd=cwd, env=environment(**extra), capture_output=True, timeout=240, encoding="utf-8", shell=True
    )
    return Run(done.returncode, done.stdout, done.stderr, new_folder(cwd, before), cwd)


def wait_for(condition: Callable[[], bool], process: Forked, timeout: float = 60) -> bool:
    """Waits for the condition; False if the process ended without it."""
    deadline = time.monotonic() + timeout
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


def command_in(text: str, before: str) -> str:
    """The command that ends the last line of the text."""
    return lines(text)[-1].partition(f"{before}: ")[2]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """tag -> {step: value written last}, without the speed, which differs in each run."""
    events = []
    for file in folder.glob("events.*"):
        events += [event for event in LegacyEventFileLoader(str(file)).Load() if event.HasField("summary")]
    table = {}
    for event in sorted(events, key=lambda event: event.wall_time):
        for value in event.summary.value:
            if value.HasField("simple_value"):  # not the arguments, which are text
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


def assert_same_state(one: Path, other: Path, file: str) -> None:
    """Of two runs, perhaps with different arguments: what is saved besides is equal bit for bit."""
    one, other = (torch.load(folder / file, weights_only=True) for folder in (one, other))
    del one["args"], other["args"]
    one, other = tensors(one), tensors(other)
    assert len(one) > 10 and one.keys() == other.keys()
    assert [path for path in one if not torch.equal(one[path], other[path])] == []


def assert_same_run(one: Path, other: Path) -> None:
    """Scalars, agent and checkpoint are equal bit for bit."""
    expected, found = scalars(one), scalars(other)
    assert found.keys() == expected.keys()
    assert {tag: found[tag] for tag in found if found[tag] != expected[tag]} == {}
    for file in ("agent.pt", "checkpoint.pt"):
        assert_same_state(one, other, file)


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


def classic(script: str) -> str:
    """The flags of a run with some checkpoints on a classic task."""
    return f"--env-id {ENV[script]} {ROLLOUTS if script in PPO else f'{LENGTHS} {INTERVALS}'} {FLAGS[script]}"


def job_reference(script: str, cwd: Path) -> tuple[Run, Run]:
    """A run, and the same again in the same place, sent to wandb offline and with videos."""
    flags = classic(script)
    first = call_python(script, flags, cwd)
    return first, call_python(script, f"{flags} --track --capture-video", cwd, **wandb_folders(cwd))


class Terminal:
    """Of 120 columns; `shown` is what has been printed on it, at `path`."""

    def __init__(self):
        import pty
        import termios

        self.ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 120))
        self.path, self.shown = Path(os.ttyname(self.theirs)), ""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        with contextlib.suppress(OSError):  # what Linux says when the other side, or this one, has closed
            while select.select([self.ours], [], [], 0.1)[0] or self.theirs is not None:
                if select.select([self.ours], [], [], 0)[0]:
                    self.shown += os.read(self.ours, 4096).decode(errors="replace")

    def close(self) -> None:
        os.close(self.theirs)
        self.theirs = None
        self.reader.join(10)
        os.close(self.ours)


def job_no_evaluation(script: str, cwd: Path) -> Run:
    """The reference without evaluations, its standard error a terminal."""
    cwd.mkdir()
    flags = f"--env-id {ENV[script]} {LENGTHS} --eval-interval 0 --checkpoint-interval 200 {FLAGS[script]}"
    terminal = Terminal()
    process = Forked(ROOT / f"{script}.py", shlex.split(flags), cwd, environment(), Path(os.devnull), err=terminal.path)
    status = process.wait(120)
    terminal.close()
    return Run(status, "", terminal.shown, folders(cwd)[0], cwd)


def job_kill(script: str, cwd: Path, flags: str | None = None, timeout: float = 60) -> Run:
    """A run, the reference or another, killed by SIGKILL at three moments, and resumed each time."""
    for attempt in range(4):
        place, resume, seen, kills = cwd / str(attempt), "", 0, 0
        for fraction in (0, 0.1, 0.25):
            process = start(script, resume or flags or classic(script), place)

            def written():
                return max((file.stat().st_mtime_ns for file in place.glob("runs/*/checkpoint.pt")), default=0)  # noqa: B023

            if wait_for(lambda: written() > seen, process, timeout):  # noqa: B023
                time.sleep(fraction * (3 - attempt) / 3)
                process.kill()
            kills += process.wait(60) == -signal.SIGKILL
            if process.returncode not in (0, -signal.SIGKILL):
                pytest.fail(printed(place)[1])
            seen, resume = written(), f"--resume {folders(place)[0]}"
        if kills == 3:  # else it was over before one of them came: again, with earlier ones
            out = printed(place)[0]
            last = call(script, resume, place)
            return last._replace(dir=folders(place)[0], out=out)
    pytest.fail("no run was slow enough to be killed three times")


def job_signals(script: str, cwd: Path) -> dict:
    """A run with no periodic checkpoints that gets SIGTERM, is resumed, gets SIGINT, and is resumed to its end.

    Each time by the command that it printed.
    """
    flags = f"--env-id {ENV[script]} {LENGTHS} --eval-interval 100 --eval-episodes 1 --checkpoint-interval 0"
    for attempt in range(4):
        place, resume, facts = cwd / str(attempt), "", {"status": [], "step": []}
        for number in (signal.SIGTERM, signal.SIGINT):
            seen = printed(place)[0].count("evaluation")
            process = start(script, resume or flags + " " + FLAGS[script], place)
            if wait_for(lambda: printed(place)[0].count("evaluation") > seen, process):  # noqa: B023
                process.send_signal(number)
            facts["status"].append(process.wait(60))
            [folder] = folders(place)
            file = folder / "checkpoint.pt"
            facts["step"].append(torch.load(file, weights_only=True)["step"] if file.exists() else None)
            resume = f"--resume {folder}"
        if 0 not in facts["status"]:  # else it was over before the signal came
            out, err = printed(place)
            return facts | {"out": out, "err": err, "end": shell(command_in(out, "go on with"), place), "dir": folder}
    pytest.fail("no run was slow enough to be stopped twice")


def job_hang(script: str, cwd: Path) -> dict:
    """A run whose environment hangs, and gets SIGTERM twice."""
    flags = f"--env-id odd_envs:Odd/Box-v0 {SHORT}"
    process = start(script, flags, cwd, PYTHONPATH=str(ROOT / "tests"), ODD="hang 130")
    facts = {}
    for word in ("hanging", "SIGTERM: "):
        wait_for(lambda: word in printed(cwd)[0], process)  # noqa: B023
        facts[word] = process.poll()
        process.send_signal(signal.SIGTERM)
    return facts | {"end": process.wait(60)}


def job_hangup(script: str, cwd: Path) -> dict:
    """A run whose terminal is closed, so that it cannot print any more; then SIGHUP comes."""
    cwd.mkdir()
    flags = f"--env-id {ENV[script]} {LENGTHS.replace('8e2', '1e5')} --eval-interval 0"
    terminal = Terminal()
    command, out = [sys.executable, str(ROOT / f"{script}.py"), *shlex.split(flags)], terminal.theirs
    process = subprocess.Popen(command, cwd=cwd, env=environment(), stdout=out, stderr=out)
    wait_for(lambda: "steps/s" in terminal.shown, process)
    terminal.close()
    time.sleep(1)  # in which the bar would have moved
    alive = process.poll() is None
    process.send_signal(signal.SIGHUP)
    return {"alive": alive, "status": process.wait(60), "dir": folders(cwd)[0]}


def job_not_finite(script: str, cwd: Path, event: str) -> dict:
    """A run in which something is nan from a certain step on; its last checkpoint; and what resuming that gives."""
    flags = f"--env-id odd_envs:Odd/Box-v0 {LENGTHS} --eval-interval 0 --checkpoint-interval 200"
    variables = {"PYTHONPATH": str(ROOT / "tests"), "ODD": event, "ODD_LENGTH": str(EPISODE)}
    run = call(script, flags.replace("8e2", "480"), cwd, **variables)
    kept = Path(shutil.copytree(run.dir, cwd / "kept"))
    return {"run": run, "kept": kept, "end": call(script, f"--resume {run.dir}", cwd, **variables)}


def job_wandb(script: str, cwd: Path, text: str) -> Run:
    cwd.mkdir()
    return call(script, f"--env-id {ENV[script]} {SHORT} --track", cwd, **stub(cwd, "wandb", text))


def job_no_moviepy(script: str, cwd: Path) -> Run:
    cwd.mkdir()
    missing = stub(cwd, "moviepy", "raise ImportError('no moviepy here')")
    return call(script, f"--env-id {ENV[script]} {SHORT} --capture-video", cwd, **missing)


def job_no_compiler(script: str, cwd: Path) -> dict[str, Run]:
    """A plain run, and runs that are to be compiled where there is no compiler, nor what one has compiled before.

    And where there is no place for what is compiled.
    """
    flags = f"--env-id {ENV[script]} {SHORT}"
    nothing = {"CXX": "no-such-compiler", "PATH": str(cwd), "TORCHINDUCTOR_CACHE_DIR": str(cwd / "cache")}
    return {
        "plain": call(script, flags, cwd),
        "no compiler": call_python(script, f"{flags} --compile", cwd, **nothing),
        "no place": call(script, f"{flags} --compile", cwd, TORCHINDUCTOR_CACHE_DIR=f"{__file__}/cache"),
    }


def job_evaluate(script: str, cwd: Path, reference: Future) -> tuple[Run, Run]:
    """The reference's agent, played by the command that was printed, and from a folder with only agent.pt, recorded.

    In that folder lie modules with the names of others.
    """
    run, _ = reference.result()
    (cwd / "copy").mkdir(parents=True)
    shutil.copy(run.dir / "agent.pt", cwd / "copy")
    for name in ("moviepy", "wandb", "tyro", "numpy", "ale_py", "sitecustomize"):
        (cwd / "copy" / f"{name}.py").write_text("open('imported', 'w'); raise ImportError")
    first = shell(f"{command_in(run.out, 'play it with')} --eval-episodes 2 --no-cuda", run.cwd)
    return first, call_python(script, "--evaluate . --eval-episodes 2 --capture-video --no-cuda", cwd / "copy")


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module", params=SCRIPTS)
def script(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def jobs(script, pool, tmp_path_factory):
    """jobs(name) waits for a job of that name and gives its result; all are started here, the long ones first."""
    tmp = tmp_path_factory.mktemp(script)
    work = {
        "reference": job_reference,
        "kill": job_kill,
        "signals": job_signals,
        "no_compiler": job_no_compiler,
        "no_evaluation": job_no_evaluation,
        "reward300": partial(job_not_finite, event="reward 300"),
        "reward400": partial(job_not_finite, event="reward 400"),
        "obs300": partial(job_not_finite, event="obs 300"),
        "wandb_missing": partial(job_wandb, text="raise ImportError('no wandb here')"),
        "wandb_init": partial(job_wandb, text=WANDB(init="raise RuntimeError('no key')")),
        "wandb_log": partial(job_wandb, text=WANDB(fail_after=3)),
        "wandb_finish": partial(job_wandb, text=WANDB(finish="raise RuntimeError('the network is gone')")),
        "hang": job_hang,
        "hangup": job_hangup,
        "no_moviepy": job_no_moviepy,
        "help": lambda script, cwd: call_python(script, "--help", cwd, COLUMNS="200"),
        "unknown_flag": lambda script, cwd: call(script, "--bogus 3", cwd),
        "old_version": lambda script, cwd: call(
            script, "--env-id Pendulum-v0", cwd
        ),  # of which gymnasium warns as well
        "wrong_space": lambda script, cwd: call(script, f"--env-id {WRONG_ENV[script]}", cwd),
    }
    results = {name: pool.submit(job, script, tmp / name) for name, job in work.items()}
    results["evaluate"] = pool.submit(job_evaluate, script, tmp / "evaluate", results["reference"])
    return lambda name: results[name].result()


@pytest.fixture(scope="module")
def brief(pool, tmp_path_factory):
    """brief(script): a run of one of the other scripts, the same run killed three times, and its help."""
    tmp, results = tmp_path_factory.mktemp("brief"), {}
    for script in OTHERS:
        kill = pool.submit(job_kill, script, tmp / script / "kill")
        whole = pool.submit(call, script, classic(script), tmp / script / "whole")
        results[script] = whole, kill, pool.submit(call, script, "--help", tmp / script / "help", COLUMNS="200")
    return lambda script: [result.result() for result in results[script]]


@pytest.fixture(scope="module")
def module(script):
    """The script as a module."""
    return importlib.import_module(script)


@pytest.fixture(autouse=True)
def nothing_odd(monkeypatch):
    """In this process too odd environments count from 0 in each test."""
    monkeypatch.setattr(odd_envs, "num_steps", 0)


@pytest.fixture
def main_of(tmp_path, monkeypatch, capsys):
    """main_of(script, flags) runs its last block in this process, in an empty folder, as a process would."""

    def run(script: str, flags: str) -> Outcome:
        module = importlib.import_module(script)
        last = ast.parse(Path(module.__file__).read_text("utf-8")).body[-1]
        assert isinstance(last, ast.If) and "__main__" in ast.unparse(last.test)
        block = compile(ast.Module([last], []), module.__file__, "exec")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *shlex.split(flags)])
        monkeypatch.setattr(odd_envs, "num_steps", 0)
        capsys.readouterr()
        status = 0
        try:
            exec(block, vars(module) | {"__name__": "__main__"})
        except SystemExit as stop:
            status = stop.code
            if isinstance(status, str):  # as Python does
                print(status, file=sys.stderr)
                status = 1
        printed = capsys.readouterr()
        return Outcome(status, printed.err, printed.out)

    return run


@pytest.fixture
def main(script, main_of):
    return partial(main_of, script)


def odd_args(script: str, **changes) -> dict:
    """Of a run of 200 steps in an odd environment: checkpoints at 60, 120 and 180, an episode in 20 steps or in 40."""
    args = {"env_id": ODD_ENV[script], "total_timesteps": 200, "log_interval": 20, "checkpoint_interval": 50}
    args |= {"eval_interval": 0, "eval_episodes": 2, "cuda": False, "compile": False}
    if script in PPO:
        args |= {"num_envs": 2, "num_steps": 10, "num_minibatches": 2, "update_epochs": 1, "anneal_lr": False}
    else:
        args |= {"learning_starts": 40, "batch_size": 8, "train_interval": 4}
    if script in ("dqn", "ddqn"):
        args |= {"target_update_interval": 30, "epsilon_duration": 100}
    return args | changes


def odd_flags(script: str, **changes) -> str:
    flags = []
    for name, value in odd_args(script, **changes).items():
        name = name.replace("_", "-")
        flags.append(f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name} {value}")
    return " ".join(flags)


def odd_run(script: str, out_dir: Path, **changes) -> Path:
    """Runs it in this process, and gives its folder."""
    module = importlib.import_module(script)
    odd_envs.num_steps = 0
    module.train(module.Args(**odd_args(script, out_dir=str(out_dir), **changes)))
    [folder] = out_dir.iterdir()
    return folder


def register(kind: type[gym.Env], script: str) -> str:
    """The id of an odd environment of this class, whose actions the script can choose."""
    box = script in ENV and ENV[script] == "Pendulum-v1"
    gym.registry.pop("OddKind-v0", None)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32) if box else gym.spaces.Discrete(2)
    gym.register("OddKind-v0", kind, disable_env_checker=True, kwargs={"action_space": action_space})
    return "OddKind-v0"


# ---- Command line ----
def assert_refused(outcome: Outcome | Run, *words: str) -> None:
    assert outcome.status == 2
    assert len(lines(outcome.err)) == 1, outcome.err
    assert "Traceback" not in outcome.err
    assert [word for word in words if word not in outcome.err] == [], outcome.err


def check_help(run: Run, script: str) -> None:
    """--help has the algorithm's title, an example, every argument with what it is, and warns of nothing."""
    assert (run.status, run.err) == (0, "")
    module = importlib.import_module(script)
    names = [field.name for field in dataclasses.fields(module.Args)]
    assert {"--" + name.replace("_", "-") for name in names} - set(re.findall(r"--[a-z][a-z-]*", run.out)) == set()
    source = (ROOT / f"{script}.py").read_text("utf-8")
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", run.out).split())
    fields = re.findall(r"^    \w+: .* = .*?  # (.+)$", source, re.MULTILINE)
    assert len(fields) >= len(names)
    assert [comment for comment in fields[: len(names)] if comment not in text] == []
    usage, title, example = lines(run.out)[:3]
    assert usage.startswith("usage: ") and title.strip() == module.__doc__.splitlines()[0]
    assert re.fullmatch(rf" *Example: python {script}\.py --env-id \S+", example)


def test_help(script, jobs):
    check_help(jobs("help"), script)


@pytest.mark.parametrize(
    "name, word",
    [("unknown_flag", "--bogus"), ("wrong_space", "--env-id"), ("old_version", "--env-id"), ("no_moviepy", "moviepy")],
)
def test_refused_by_the_process(jobs, name, word):
    """Wrong input ends a process with status 2, one line on standard error and no files."""
    run = jobs(name)
    assert_refused(run, word)
    assert [path.name for path in run.cwd.iterdir() if path.name != "stubs"] == []


def test_refused_evaluation(script, jobs, main, tmp_path, monkeypatch):
    """--evaluate checks its arguments too: the number of episodes, and that videos can be written."""
    folder = jobs("reference")[0].dir
    assert_refused(main(f"--evaluate {folder} --eval-episodes 0"), "--eval-episodes")
    monkeypatch.setitem(sys.modules, "moviepy", None)  # makes `import moviepy` an ImportError
    assert_refused(main(f"--evaluate {folder} --eval-episodes 1 --capture-video"), "--capture-video")
    assert list(tmp_path.iterdir()) == [] and not (folder / "videos").exists()


@pytest.mark.parametrize("damage", ["half", "garbage", "empty", "other", "byte"])
@pytest.mark.parametrize("flag, name", [("--resume", "checkpoint.pt"), ("--evaluate", "agent.pt")])
def test_refused_damaged(script, jobs, main, tmp_path, flag, name, damage):
    """A damaged checkpoint.pt or agent.pt, or a file of another kind, is refused by name, and stays as it is.

    Also where a single bit of it has changed.
    """
    whole = bytearray((jobs("reference")[0].dir / name).read_bytes())
    path = tmp_path / "damaged" / name
    path.parent.mkdir()
    if damage == "byte":
        whole[len(whole) // 2] ^= 1
    texts = {"half": whole[: len(whole) // 2], "garbage": bytes(range(256)) * 40, "empty": b"", "byte": whole}
    path.write_bytes(texts.get(damage, b""))
    if damage == "other":
        torch.save({"weights": torch.zeros(3)}, path)
    before = path.read_bytes()
    assert_refused(main(f"{flag} damaged"), f"damaged/{name}")
    assert [file.name for file in tmp_path.rglob("*")] == ["damaged", name] and path.read_bytes() == before


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
        "compile": False, "log_interval": 50, "eval_interval": 300, "eval_episodes": 2, "checkpoint_interval": 200,
    }  # fmt: skip
    flags = FLAGS[script].split()
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        given[flag[2:].replace("-", "_")] = value if value.isalpha() else float(value)
    expected = dataclasses.asdict(module.Args(**given))
    assert json.loads((run.dir / "args.json").read_text()) == expected
    assert torch.load(run.dir / "agent.pt", weights_only=True)["args"] == expected
    expected |= {"track": True, "capture_video": True}
    assert json.loads((again.dir / "args.json").read_text()) == expected


def test_arguments_in_tensorboard(jobs):
    """As a table in text, with all that args.json has."""
    run, _ = jobs("reference")
    events = EventAccumulator(str(run.dir)).Reload()
    [event] = events.Tensors("arguments/text_summary")
    rows = [line.strip("|").split("|") for line in event.tensor_proto.string_val[0].decode().splitlines()]
    assert rows[0] == ["argument", "value"] and set("".join(rows[1])) == {"-"}, "a table in Markdown"
    arguments = json.loads((run.dir / "args.json").read_text())
    assert [tuple(row) for row in rows[2:]] == [(name, str(value)) for name, value in arguments.items()]


def test_saved_states(script, jobs):
    """agent.pt and checkpoint.pt load with weights_only, hold finite numbers, the script's name and the step.

    The agent is the same in both.
    """
    run, _ = jobs("reference")
    for file in ("agent.pt", "checkpoint.pt"):
        assert_finite(run.dir, file)
        state = torch.load(run.dir / file, weights_only=True)
        assert (state["script"], state["step"]) == (script, STEPS)
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
    assert steps == expected | {tag: [300, 600, 800] for tag in EVAL}
    values = scalars(run.dir)
    for name in ("charts", "eval"):
        assert set(values[f"{name}/episodic_length"].values()) == {EPISODE}
        assert all(-16.3 * EPISODE < value < 0 for value in values[f"{name}/episodic_return"].values())  # its bounds
    assert all(0 < event.value < 1e5 for event in events.Scalars("charts/SPS"))


def test_same_seed(jobs):
    """The same seed gives the same scalars and the same agent, also with tracking and videos."""
    run, again = jobs("reference")
    assert_same_run(run.dir, again.dir)


def test_evaluation_is_apart(jobs):
    """Training is the same, bit for bit, with evaluations and without."""
    run, without = jobs("reference")[0], jobs("no_evaluation")
    expected = scalars(run.dir)
    for tag in EVAL:
        assert len(expected.pop(tag)) == 3
    assert without.status == 0 and scalars(without.dir) == expected
    for file in ("agent.pt", "checkpoint.pt"):
        assert_same_state(run.dir, without.dir, file)


def test_folder_name(script, jobs):
    """Path separators and colons of env_id are not in the folder's name."""
    folder = jobs("reward300")["run"].dir
    assert folder.parent.name == "runs"
    assert re.fullmatch(rf"odd.envs.Odd.Box-v0__{script}__1__\d+", folder.name)
    assert not set(folder.name) & set("/\\:")


def test_runs_of_the_same_moment_have_folders_of_their_own(tmp_path):
    """With the seed in their names."""
    module = importlib.import_module("sac_continuous")
    for _ in range(3):
        module.train(module.Args(**odd_args("sac_continuous", total_timesteps=41, seed=7), out_dir=str(tmp_path)))
    names = [folder.name for folder in tmp_path.iterdir()]
    assert len(names) == 3 and all(re.fullmatch(r"odd-envs-Odd-Box-v0__sac_continuous__7__\d+", name) for name in names)


@pytest.mark.parametrize("script", [script for script in ALL if script != "ddqn"])  # its train is dqn's
def test_curves_are_on_the_disk_before_a_checkpoint_of_their_step(script, tmp_path, monkeypatch):
    """Losses, the evaluation and the episodes that ended there: a run that is killed next goes on after them."""
    module, there = importlib.import_module(script), {}
    save = module.save

    def recording_save(state, path):
        there[state["step"]] = {tag for tag, steps in scalars(path.parent).items() if state["step"] in steps}
        save(state, path)

    monkeypatch.setattr(module, "save", recording_save)
    monkeypatch.setenv("ODD_LENGTH", "10")
    odd_run(script, tmp_path / "runs", total_timesteps=120, eval_interval=60, checkpoint_interval=60)
    expected = EVAL | {"charts/episodic_return", "charts/episodic_length", f"losses/{min(LOSSES[script])}"}
    assert there.keys() == {60, 120} and all(expected <= tags for tags in there.values())


@pytest.mark.parametrize("script", ["sac_continuous", "dqn", *PPO])
def test_environments_are_closed(script, tmp_path):
    """Those of evaluations, those that a checkpoint replaces, and the last: no more than two kinds are open at once."""

    class Counted(odd_envs.Odd):
        opened: list = []  # noqa: RUF012

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.opened.append(self)

        def reset(self, **options):
            assert len(self.opened) <= (3 if script in PPO else 2), "too many are open"
            return super().reset(**options)

        def close(self):
            if self in self.opened:
                self.opened.remove(self)

    odd_run(script, tmp_path / "runs", env_id=register(Counted, script), total_timesteps=120, eval_interval=60)
    assert Counted.opened == []


# ---- Progress ----
FIGURES = r"(\S+) of 800( steps)?, [\d.]+k? steps/s, \d\d:\d\d left, return=-\d+\.\d"


@pytest.mark.parametrize("script", ALL)
def test_events_are_one_file_for_all_checkpoints(script, tmp_path):
    """Three checkpoints on the way to step 200, and a fourth at the end, go on in the file that there is."""
    folder = odd_run(script, tmp_path / "runs", checkpoint_interval=50)
    assert len(list(folder.glob("events.*"))) == 1


def test_pipe(jobs):
    """In a pipe there is no progress bar, only lines: one for each evaluation, then one of training's figures."""
    run, _ = jobs("reference")
    assert run.err == ""
    assert "\r" not in run.out and str(run.dir.relative_to(run.cwd)) in run.out
    found = [line for line in lines(run.out) if line.startswith("step ") or re.fullmatch(FIGURES, line)]
    assert f", last {found[-2].partition(': ')[2]}, mean return of the last " in lines(run.out)[-1]
    for step, evaluation, figures in zip((300, 600, 800), found[::2], found[1::2], strict=True):
        assert re.fullmatch(rf"step {step}: evaluation -\d+\.\d\d ± \d+\.\d\d", evaluation)
        assert figures.startswith(f"{step} of 800")
    mean, std = map(float, re.findall(r"(-?\d+\.\d\d)", found[-2]))
    values = scalars(run.dir)
    assert values["eval/episodic_return"][STEPS] == pytest.approx(mean, abs=0.006)
    assert values["eval/episodic_return_std"][STEPS] == pytest.approx(std, abs=0.006)


def test_terminal(jobs):
    """On a terminal a bar shows step, time left, steps per second and the recent return."""
    shown = jobs("no_evaluation").err
    bars = re.findall(r"(\d+)/800 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+k? steps/s, return=-\d+", shown)
    assert any(0 < int(step) < 800 for step in bars), shown[-400:]


@pytest.mark.parametrize(
    "script, expected", [("sac_continuous", [*range(9, 200, 9)]), ("ppo_discrete", [60, 120, 180])]
)
def test_line_a_minute(main_of, monkeypatch, script, expected):
    """In a pipe, by a clock on which a step takes 7 seconds, or in PPO, which looks after each rollout, 1.1 seconds.

    The clock does not begin at 0, and the first line comes after a minute too.
    """
    seconds = 7 if script == "sac_continuous" else 1.1
    clock = SimpleNamespace(perf_counter=lambda: 1000 + seconds * odd_envs.num_steps, time_ns=time.time_ns)
    monkeypatch.setattr(importlib.import_module(script), "time", clock)
    out = main_of(script, odd_flags(script)).out
    found = re.findall(r"^([\d.]+) of 200( steps)?, .*steps/s, [\d:?]+ left(, return=-?\d+\.\d)?$", out, re.M)
    assert [float(step) for step, *_ in found] == expected
    assert all(recent for step, _, recent in found if float(step) >= 40)


def test_no_lines_on_a_terminal(main_of, monkeypatch):
    """There is the bar: no line a minute, by a clock on which a step takes 70 seconds."""
    clock = SimpleNamespace(perf_counter=lambda: 70 * odd_envs.num_steps, time_ns=time.time_ns)
    monkeypatch.setattr(importlib.import_module("sac_continuous"), "time", clock)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out = main_of("sac_continuous", odd_flags("sac_continuous", total_timesteps=60)).out
    assert "finished at step 60" in out and "steps/s" not in out


def test_last_line_on_a_terminal_comes_after_the_bar(tmp_path, monkeypatch):
    """Which stays above it, at the last step, and is not drawn again below."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    odd_run("sac_continuous", tmp_path, total_timesteps=60)
    before, after = screen.getvalue().split("finished at step 60, ")
    assert re.search(r"\r100%.* 60\.0/60\.0 .*\n$", before) and "\r" not in after and len(lines(after)) == 1


def test_recent_return_is_the_mean_of_the_last_hundred_episodes(main_of, tmp_path, monkeypatch):
    """In each line of progress, and in the last one: 150 episodes of one step."""
    monkeypatch.setenv("ODD_LENGTH", "1")
    clock = SimpleNamespace(perf_counter=lambda: 70 * odd_envs.num_steps, time_ns=time.time_ns)
    monkeypatch.setattr(importlib.import_module("sac_continuous"), "time", clock)
    flags = odd_flags("sac_continuous", total_timesteps=150, learning_starts=149, checkpoint_interval=0)
    out = main_of("sac_continuous", flags).out
    [folder] = (tmp_path / "runs").iterdir()
    returns = [value for _, value in sorted(scalars(folder)["charts/episodic_return"].items())]
    shown = re.findall(r"^(\d+)(?:\.\d+)? of 150.*return=(-?[\d.]+)$", out, re.M)
    assert [int(step) for step, _ in shown] == list(range(1, 151))
    for step, mean in shown:
        assert float(mean) == pytest.approx(np.mean(returns[: int(step)][-100:]), abs=0.051)
    mean = np.mean(returns[-100:])
    assert f"mean return of the last 100 episodes {mean:.1f}; " in lines(out)[-1]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_last_line_of_a_run_without_a_whole_episode(main_of, monkeypatch):
    monkeypatch.setenv("ODD_LENGTH", "0")
    outcome = main_of("sac_continuous", odd_flags("sac_continuous", total_timesteps=60))
    assert (outcome.status, outcome.err) == (0, "")
    assert "finished at step 60, mean return of the last 0 episodes nan; " in lines(outcome.out)[-1]


def test_evaluation_by_hand(main_of, tmp_path, monkeypatch):
    """Returns of 1, 3 and 8 have a mean of 4 and a deviation of √(26/3) = 2.94; 10, 30 and 26 steps are 22."""
    module = importlib.import_module("sac_continuous")
    monkeypatch.setattr(module, "play", lambda *_: iter([(1.0, 10), (3.0, 30), (8.0, 26)]))
    out = main_of("sac_continuous", odd_flags("sac_continuous", total_timesteps=60, eval_interval=60)).out
    assert "step 60: evaluation 4.00 ± 2.94" in lines(out)
    [folder] = (tmp_path / "runs").iterdir()
    found = scalars(folder)
    assert found["eval/episodic_return"] == {60: 4} and found["eval/episodic_length"] == {60: 22}
    assert found["eval/episodic_return_std"] == {60: pytest.approx(2.9439, abs=1e-4)}


@pytest.mark.parametrize("script", ALL)
def test_last_line_says_what_was_reached(main_of, tmp_path, script):
    """Step, mean return of the last 100 episodes, and the command that plays it, whole, of a folder with a space."""
    outcome = main_of(script, odd_flags(script) + " --out-dir 'my runs'")
    assert (outcome.status, outcome.err) == (0, "")
    [folder] = (tmp_path / "my runs").iterdir()
    assert script in PPO or "replay buffer: 200 transitions, " in outcome.out, "no more than the run has steps"
    assert "rounded up" not in outcome.out, "200 steps are whole rollouts"
    returns = scalars(folder)["charts/episodic_return"]
    last = lines(outcome.out)[-1]
    step, number, mean = re.match(
        r"finished at step (\d+), mean return of the last (\d+) episodes (-?[\d.]+);", last
    ).groups()
    assert int(step) == 200
    if script not in PPO:  # there several episodes may end at one step
        assert int(number) == len(returns) == 10
        assert float(mean) == pytest.approx(sum(returns.values()) / 10, abs=0.051)
    program, path, *flags = shlex.split(command_in(last, "play it with"))
    assert (Path(program).name, Path(path).resolve()) == (Path(sys.executable).name, ROOT / f"{script}.py")
    played = main_of(script, shlex.join(flags) + " --eval-episodes 3")
    assert (played.status, len(lines(played.out))) == (0, 5) and lines(played.out)[0] == "agent of step 200"


# ---- Not finite ----
@pytest.mark.parametrize("name", ["reward300", "obs300"])
def test_not_finite(script, jobs, name):
    """What is not finite ends the run with status 1 and one line that names the step and the environment."""
    run = jobs(name)["run"]
    assert run.status == 1 and len(lines(run.err)) == 1, run.err
    assert "step 300: " in run.err
    assert "Odd/Box-v0" in run.err and {"reward300": "reward", "obs300": "obs"}[name] in run.err, run.err


@pytest.mark.parametrize("name", ["reward", "obs"])
@pytest.mark.parametrize("script", ALL)
def test_environment_that_is_not_finite(main_of, tmp_path, monkeypatch, script, name):
    """So in every script, also where losses are not looked at for long; the last good checkpoint stays."""
    monkeypatch.setenv("ODD", f"{name} 130")
    outcome = main_of(script, odd_flags(script, log_interval=200))
    assert outcome.status == 1 and len(lines(outcome.err)) == 1, outcome.err
    assert [word for word in ("step 130: ", name, ODD_ENV[script]) if word not in outcome.err] == [], outcome.err
    [folder] = (tmp_path / "runs").iterdir()
    assert_finite(folder, "checkpoint.pt")
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 120


@pytest.mark.parametrize("script", ALL)
def test_loss_that_is_not_finite(main_of, tmp_path, monkeypatch, script):
    """It, or what it has spoilt since, is named with the step; the last good checkpoint stays."""
    module, name = importlib.import_module(script), next(iter(LOSSES[script] & {"critic_loss", "q_loss", "value_loss"}))
    equation = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *x: equation(*x) * (float("nan") if odd_envs.num_steps > 130 else 1))
    outcome = main_of(script, odd_flags(script))
    assert outcome.status == 1 and len(lines(outcome.err)) == 1, outcome.err
    assert 130 < int(re.search(r"step (\d+)", outcome.err)[1]) <= 140
    assert any(f"{loss} is not finite" in outcome.err for loss in LOSSES[script]), outcome.err
    [folder] = (tmp_path / "runs").iterdir()
    assert_finite(folder, "checkpoint.pt")
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 120


@pytest.mark.parametrize("name", ["reward300", "reward400", "obs300"])
def test_last_good_checkpoint(jobs, name):
    """The last checkpoint is finite, replay buffer included, and can be gone on with; step 400 ends an episode."""
    job = jobs(name)
    assert job["run"].status == 1
    for file in ("agent.pt", "checkpoint.pt"):
        assert_finite(job["kept"], file)
    assert torch.load(job["kept"] / "checkpoint.pt", weights_only=True)["step"] == 200
    assert job["end"].status == 0, job["end"].err  # its environments count from 0 again
    assert_finite(job["run"].dir, "checkpoint.pt")


# ---- Resume ----
def test_killed(jobs):
    """Killed three times and resumed, a run ends with the scalars, agent and buffer of one that was never stopped."""
    whole, killed = jobs("reference")[0], jobs("kill")
    assert killed.status == 0, killed.err
    assert len(folders(killed.cwd)) == 1
    assert_same_run(whole.dir, killed.dir)
    assert list(killed.dir.glob("*.tmp")) == []


@pytest.mark.parametrize("script", OTHERS)
def test_others_killed(brief, script):
    """So does every other script; and it has the scalars of the contract, and its help."""
    whole, killed, shown = brief(script)
    assert (whole.status, killed.status, whole.err, killed.err) == (0, 0, "", "")
    assert_same_run(whole.dir, killed.dir)
    expected = {f"losses/{name}" for name in LOSSES[script]} | {f"charts/{name}" for name in CHARTS.get(script, ())}
    assert scalars(whole.dir).keys() == expected | EVAL | {"charts/episodic_return", "charts/episodic_length"}
    check_help(shown, script)


@pytest.mark.slow
@pytest.mark.parametrize("script, env_id, flags", LONG)
def test_others_killed_on_other_tasks(tmp_path, script, env_id, flags):
    flags += f" --env-id {env_id} --log-interval 100 --eval-episodes 1 --no-cuda"
    flags += " --no-compile" if "--compile" not in flags else ""
    if script not in PPO:
        flags += f" --learning-starts 300 --batch-size 32 --train-interval {10 if script == 'dqn' else 2}"
    with ThreadPoolExecutor(2) as pool:
        killed = pool.submit(job_kill, script, tmp_path / "kill", flags, 300)
        whole = call(script, flags, tmp_path / "whole")
        killed = killed.result()
    assert (whole.status, killed.status) == (0, 0), whole.err + killed.err
    assert "going on without" not in whole.out + killed.out, "it was compiled"
    assert_same_run(whole.dir, killed.dir)


def test_killed_curves(jobs):
    """TensorBoard shows one curve of a run that was killed, with each step once."""
    whole, killed = (EventAccumulator(str(run.dir)).Reload() for run in (jobs("reference")[0], jobs("kill")))
    for tag in whole.Tags()["scalars"]:
        assert [event.step for event in killed.Scalars(tag)] == [event.step for event in whole.Scalars(tag)], tag


def test_curves_without_what_a_kill_left(main_of, tmp_path):
    """Scalars that were written after the last checkpoint are hidden by the run that goes on from there."""
    folder = odd_run("sac_continuous", tmp_path / "runs", total_timesteps=120)
    time.sleep(1.1)  # TensorBoard reads files in the order of the seconds in their names
    with SummaryWriter(folder) as writer:
        for tag, step in (("charts/episodic_return", 130), ("charts/episodic_return", 140), ("losses/q", 140)):
            writer.add_scalar(tag, 99, step)
    time.sleep(1.1)
    assert main_of("sac_continuous", f"--resume {folder} --total-timesteps 200").status == 0
    curves = EventAccumulator(str(folder)).Reload()
    for tag, steps in (("charts/episodic_return", range(20, 201, 20)), ("losses/q", range(60, 201, 20))):
        events = curves.Scalars(tag)
        assert [event.step for event in events] == list(steps) and 99 not in [event.value for event in events]


def test_killed_output(jobs):
    """What a run printed into a pipe is there at once, not when it ends."""
    assert "from step 0" in jobs("kill").out


@pytest.mark.parametrize("script", ["sac_continuous"], indirect=True)  # of those here the one that has any
def test_target_entropy(jobs):
    """A target entropy that moves goes on from where it was."""
    for run in (jobs("reference")[0], jobs("kill")):
        for step, value in scalars(run.dir)["losses/target_entropy"].items():
            assert value == pytest.approx(-min((step - STARTS) / 300, 1), abs=1.01 / 150)  # first or last of the update


@pytest.mark.parametrize("script", ALL)
def test_environments_restart_at_checkpoints_with_other_seeds(script, tmp_path, monkeypatch):
    """Environments, action space and PyTorch get seeds that all differ, at the start and at each checkpoint."""
    seeds = {"weights": [], "torch": [], "space": [], "env": []}
    manual_seed, space_seed, reset = torch.manual_seed, gym.Space.seed, odd_envs.Odd.reset

    def recording_manual_seed(seed):
        seeds["torch"].append(seed)
        return manual_seed(seed)

    def recording_space_seed(space, seed=None):
        if seed is not None:
            seeds["space"].append(seed)
        return space_seed(space, seed)

    def recording_reset(env, *, seed=None, options=None):
        if seed is not None:
            seeds["env"].append(seed)
        return reset(env, seed=seed, options=options)

    monkeypatch.setattr(torch, "manual_seed", recording_manual_seed)
    monkeypatch.setattr(gym.Space, "seed", recording_space_seed)
    monkeypatch.setattr(odd_envs.Odd, "reset", recording_reset)
    for seed in (1, 2):
        odd_run(script, tmp_path / str(seed), seed=seed)
    starts = 2 * 4  # runs, each begun anew at steps 0, 60, 120 and 180
    num_envs = 2 if script in PPO else 1
    assert {name: len(of_kind) for name, of_kind in seeds.items()} == {
        "weights": 0, "torch": starts + 2, "space": starts, "env": num_envs * starts,
    }  # fmt: skip
    values = [seed for of_kind in seeds.values() for seed in of_kind]
    assert len(set(values)) == len(values)
    assert {1, 2} <= set(seeds["torch"]), "of the first weights"


@pytest.mark.parametrize("script", ALL)
def test_evaluation_is_apart_in_every_script(script, tmp_path):
    """Training is the same, bit for bit, with evaluations and without, Ornstein-Uhlenbeck noise included."""
    changes = {"noise_process": "ou"} if script == "ddpg" else {}
    one = odd_run(script, tmp_path / "one", **changes)
    other = odd_run(script, tmp_path / "other", eval_interval=20, **changes)
    assert_same_state(one, other, "checkpoint.pt")
    found = scalars(other)
    assert [sorted(found.pop(tag)) for tag in EVAL] == [list(range(20, 201, 20))] * 3
    assert scalars(one) == found


@pytest.mark.parametrize("script", [*ALL, "frames"])
def test_run_made_longer(script, tmp_path, main_of, monkeypatch):
    """A run that ends at a checkpoint, made longer, is one that was as long from the start; larger buffers included.

    Comparable are runs that do the same until then: the first ends where the other has a checkpoint and an evaluation.
    """
    changes = {"eval_interval": 40}
    if script == "frames":
        changes |= {"env_id": "odd_envs:Odd/Frames-v0", "train_interval": 20, "eval_episodes": 1}
        script = "dqn"
        monkeypatch.setenv("ODD_LENGTH", "60")  # so long that the spare frames are enough for the smaller buffer too
    if script not in PPO:
        changes["buffer_size"] = 1_000
    long = odd_run(script, tmp_path / "long", **changes)
    short = odd_run(script, tmp_path / "short", **changes, total_timesteps=120)
    assert max(scalars(short)["eval/episodic_return"]) == 120
    outcome = main_of(script, f"--resume {short} --total-timesteps 200")
    assert (outcome.status, outcome.err) == (0, "") and "from step 120" in outcome.out
    assert_same_run(long, short)
    arguments = [json.loads((folder / "args.json").read_text()) for folder in (long, short)]
    assert [each.pop("out_dir") for each in arguments] == [str(tmp_path / "long"), str(tmp_path / "short")]
    assert arguments[0] == arguments[1]
    of_agent = torch.load(short / "agent.pt", weights_only=True)["args"]
    assert (of_agent["total_timesteps"], of_agent["resume"]) == (200, None), "or it could not be played"


@pytest.mark.parametrize("script", ["sac_continuous", "td3", "ddpg"])
def test_random_steps_after_a_checkpoint_are_those_of_a_run_that_goes_on_from_it(script, tmp_path, monkeypatch):
    """Both draw them from the checkpoint's seeds; the run that goes on was stopped after a checkpoint, in step 60."""
    module, lengths = importlib.import_module(script), {"learning_starts": 110, "total_timesteps": 120}
    whole = odd_run(script, tmp_path / "whole", **lengths)
    restart = module.Run.restart

    def stop(run):
        if run.step == 60:
            raise SystemExit(0)
        return restart(run)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(module.Run, "restart", stop)
        odd_run(script, tmp_path / "stopped", **lengths)
    [stopped] = (tmp_path / "stopped").iterdir()
    module.train(module.Args(resume=str(stopped)))
    assert_same_run(whole, stopped)


@pytest.mark.parametrize("script", ["sac_continuous", "ppo_discrete"])
def test_run_made_longer_from_python(script, tmp_path):
    """From Python only `resume` is given, and perhaps a new length; without that the run is as long as it was."""
    module, folder = importlib.import_module(script), odd_run(script, tmp_path / "runs", total_timesteps=60)
    for total in (None, 100):
        changes = {} if total is None else {"total_timesteps": total}
        agent = module.train(module.Args(resume=str(folder), **changes))
        assert agent.args.total_timesteps == (total or 60)
        assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == (total or 60)


@pytest.mark.parametrize("script, total_timesteps", [("dqn", 500_001), ("ppo_discrete", 500_224)])
def test_run_that_is_longer_than_the_default_goes_on_from_python(tmp_path, script, total_timesteps):
    """All else is the default, 500,000 steps are, which PPO rounds up: Args(resume=...) asks for no fewer."""
    module = importlib.import_module(script)
    args = dataclasses.asdict(module.Args(total_timesteps=total_timesteps))
    module.save({"script": script, "args": args, "step": 0}, tmp_path / "checkpoint.pt")
    run = module.Run(module.Args(resume=str(tmp_path)))
    run.lock.close()
    assert run.args.total_timesteps == total_timesteps


def test_rollouts_are_whole_to_the_end_of_a_run_and_of_one_made_longer(main_of, tmp_path):
    """Of 20 steps: 190 are 200, 210 are 220; so it is in args.json, and there is the last evaluation."""
    folder = odd_run("ppo_discrete", tmp_path / "runs", total_timesteps=190, eval_interval=150)
    assert json.loads((folder / "args.json").read_text())["total_timesteps"] == 200
    outcome = main_of("ppo_discrete", f"--resume {folder} --total-timesteps 210")
    assert "210 is rounded up to 220, whole rollouts of 20" in outcome.out and "finished at step 220" in outcome.out
    assert json.loads((folder / "args.json").read_text())["total_timesteps"] == 220
    assert list(scalars(folder)["eval/episodic_return"]) == [160, 200, 220]


def test_run_is_made_as_long_as_the_default_of_its_script(tmp_path, monkeypatch):
    """By a command line, where the other arguments are defaults, too: as from Python they would be if not given."""
    module = importlib.import_module("dqn")
    args = module.Args(total_timesteps=60_000)
    module.save({"script": "dqn", "args": dataclasses.asdict(args), "step": 0}, tmp_path / "checkpoint.pt")
    command = ["dqn.py", "--resume", str(tmp_path), "--total-timesteps", str(module.Args.total_timesteps)]
    monkeypatch.setattr(sys, "argv", command)
    run = module.Run(module.parse_args())
    run.lock.close()
    assert run.args == module.Args(resume=str(tmp_path)) and run.args.total_timesteps > 60_000


def test_what_was_read_of_a_checkpoint_is_freed(tmp_path, monkeypatch):
    """A large replay buffer is not there twice while the run goes on."""
    module, folder = importlib.import_module("sac_continuous"), odd_run("sac_continuous", tmp_path, total_timesteps=60)
    load, step_env, read, kept = module.load, module.Run.step_env, [], []

    def recording_load(path):
        state = load(path)
        read.append(weakref.ref(state["buffer"]["rows"]))
        return state

    monkeypatch.setattr(module, "load", recording_load)
    monkeypatch.setattr(module.Run, "step_env", lambda run, a: (kept.append(read[0]()), step_env(run, a))[1])
    module.train(module.Args(resume=str(folder), total_timesteps=70))
    assert kept == [None] * 10


@pytest.mark.parametrize("script", ["sac_continuous", "ppo_discrete"])
def test_environment_that_raises_in_the_first_step_after_a_resume(main_of, tmp_path, monkeypatch, script):
    """The run is where it was, and goes on from there as if nothing had been."""
    folder = odd_run(script, tmp_path / "runs", total_timesteps=60)
    monkeypatch.setenv("ODD", "raise 1")
    outcome = main_of(script, f"--resume {folder} --total-timesteps 80")
    assert outcome.status == 1 and f"{script}.py: step 60: RuntimeError" in outcome.err
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 60
    monkeypatch.delenv("ODD")
    outcome = main_of(script, f"--resume {folder}")
    assert (outcome.status, outcome.err) == (0, "") and f"{folder}: from step 60 on cpu" in outcome.out
    outcome = main_of(script, f"--evaluate {folder}")
    assert lines(outcome.out)[0] == "agent of step 80", "it is played, and does not go on"


def test_speed_after_a_resume_is_that_of_the_new_steps(tmp_path, monkeypatch):
    """Five seconds for each, by a clock that does not begin at 0."""
    module, folder = importlib.import_module("sac_continuous"), odd_run("sac_continuous", tmp_path, total_timesteps=120)
    clock = SimpleNamespace(perf_counter=lambda: 1000 + 5 * odd_envs.num_steps, time_ns=time.time_ns)
    monkeypatch.setattr(module, "time", clock)
    module.train(module.Args(resume=str(folder), total_timesteps=160))
    speeds = {event.step: event.value for event in EventAccumulator(str(folder)).Reload().Scalars("charts/SPS")}
    assert [speeds[step] for step in (140, 160)] == pytest.approx([0.2, 0.2])


def test_steps_are_printed_with_their_thousands_apart(main_of, tmp_path, monkeypatch):
    """Where a run goes on, is evaluated, is stopped, fails and ends: here from step 1,200, as its checkpoint says."""
    folder = odd_run("sac_continuous", tmp_path / "runs", total_timesteps=60, eval_interval=50, eval_episodes=1)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    state |= {"step": 1_200, "args": state["args"] | {"total_timesteps": 1_260}}
    torch.save(state, folder / "checkpoint.pt")
    for event, texts in [
        ("SIGTERM 10", [f"{folder}: from step 1,200 on cpu", "stopped at step 1,210; go on with: "]),
        ("raise 10", ["sac_continuous.py: step 1,219: RuntimeError"]),
        ("obs 10", ["from step 1,219 on", "sac_continuous.py: step 1,229: obs of "]),
        ("", ["step 1,250: evaluation ", "finished at step 1,260, "]),
    ]:
        monkeypatch.setenv("ODD", event)
        outcome = main_of("sac_continuous", f"--resume {folder}")
        assert [text for text in texts if text not in outcome.out + outcome.err] == [], event
    assert "agent of step 1,260\n" in main_of("sac_continuous", f"--evaluate {folder} --eval-episodes 1").out


def test_run_cannot_be_made_shorter_nor_longer_than_its_schedule(main_of, tmp_path):
    folder = odd_run("sac_continuous", tmp_path / "sac", total_timesteps=60)
    annealed = odd_run("ppo_discrete", tmp_path / "ppo", total_timesteps=60, anneal_lr=True)
    states = [(each / "checkpoint.pt").read_bytes() for each in (folder, annealed)]
    assert_refused(main_of("sac_continuous", f"--resume {folder} --total-timesteps 59"), "--total-timesteps")
    assert_refused(main_of("ppo_discrete", f"--resume {annealed} --total-timesteps 80"), "--total-timesteps", "anneal")
    assert [(each / "checkpoint.pt").read_bytes() for each in (folder, annealed)] == states
    assert main_of("ppo_discrete", f"--resume {annealed} --total-timesteps 60").status == 0  # no longer than it was


def test_run_that_was_stopped_cannot_be_made_shorter_either(main_of, tmp_path, monkeypatch):
    """At step 100 of 200 it has 200 to make, not 150, and makes them."""
    monkeypatch.setenv("ODD", "SIGTERM 100")
    assert main_of("sac_continuous", odd_flags("sac_continuous")).status == 143
    monkeypatch.delenv("ODD")
    [folder] = (tmp_path / "runs").iterdir()
    assert_refused(main_of("sac_continuous", f"--resume {folder} --total-timesteps 150"), "--total-timesteps")
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 100
    assert "finished at step 200, " in main_of("sac_continuous", f"--resume {folder}").out


def test_resume_takes_the_rest_from_the_run(main_of, tmp_path):
    """Arguments that differ are refused by name, also where they are the script's defaults; the same ones are not."""
    folder = odd_run("sac_continuous", tmp_path / "runs", total_timesteps=60, seed=3)
    for flags, word in [
        ("--seed 2", "--seed"),
        ("--seed 1", "--seed"),
        ("--gamma 0.5 --tau 1", "--gamma, --tau"),
        (f"--evaluate {folder}", "--evaluate"),
    ]:
        assert_refused(main_of("sac_continuous", f"--resume {folder} {flags}"), "--resume", word)
    assert main_of("sac_continuous", f"--resume {folder} --seed 3 --batch-size 8 --no-cuda").status == 0


def test_resume_of_a_finished_run(jobs, main, tmp_path):
    """Resuming a finished run changes neither its scalars nor its agent."""
    run, _ = jobs("reference")
    shutil.copytree(run.dir, tmp_path / "copy")
    outcome = main("--resume copy")
    assert (outcome.status, outcome.err) == (0, "")
    assert_same_run(tmp_path / "copy", run.dir)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


# ---- Signals ----
def test_signals(script, jobs):
    """SIGTERM ends with 143, SIGINT with 130; each leaves a checkpoint, from which the run goes on to its end."""
    job = jobs("signals")
    assert job["status"] == [143, 130], job["err"]
    first, second = job["step"]
    assert 100 <= first < second < STEPS
    assert job["err"] == ""
    assert f"stopped at step {first}; go on with: " in job["out"] and f"stopped at step {second}; go on" in job["out"]
    assert job["end"].status == 0, job["end"].err
    assert torch.load(job["dir"] / "checkpoint.pt", weights_only=True)["step"] == STEPS
    values = scalars(job["dir"])
    for name in LOSSES[script]:
        assert sorted(values[f"losses/{name}"]) == list(range(STARTS + 50, STEPS + 1, 50)), name
    missing = set(range(100, STEPS + 1, 100)) - set(values["eval/episodic_return"])
    assert missing <= {first, second}, "but for an evaluation in which the signal came"


def test_second_signal_kills(jobs):
    """The first waits for the present step, which may never end."""
    assert jobs("hang") == {"hanging": None, "SIGTERM: ": None, "end": -signal.SIGTERM}


@pytest.mark.parametrize("name, status", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("script", ["sac_continuous", "dqn", *PPO])
def test_signal_ends_the_run_after_the_step(main_of, tmp_path, monkeypatch, script, name, status):
    """In PPO after the last whole rollout; with a checkpoint, and a line with the command that goes on."""
    monkeypatch.setenv("ODD", f"{name} 130")
    handler = signal.getsignal(signal.Signals[name])
    outcome = main_of(script, odd_flags(script, checkpoint_interval=0))
    assert (outcome.status, outcome.err) == (status, "")
    assert signal.getsignal(signal.Signals[name]) == handler, "left as it was before"
    [folder] = (tmp_path / "runs").iterdir()
    step = 120 if script in PPO else 130
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == step
    assert f"stopped at step {step}; " in lines(outcome.out)[-1]
    monkeypatch.delenv("ODD")
    *_, flag, value = shlex.split(command_in(outcome.out, "go on with"))
    outcome = main_of(script, shlex.join([flag, value]))
    assert (outcome.status, outcome.err) == (0, "") and f"from step {step} on" in outcome.out
    assert max(scalars(folder)["charts/episodic_return"]) >= 160


@pytest.mark.parametrize("script", PPO)
@pytest.mark.parametrize("event, status", [("SIGTERM 5", 143), ("raise 5", 1)])
def test_run_that_ends_in_its_first_rollout_goes_on_as_if_nothing_had_been(
    main_of, tmp_path, monkeypatch, script, event, status
):
    """From step 0, with the weights that it had: it ends as a run that was not stopped, bit for bit."""
    whole = odd_run(script, tmp_path / "whole", total_timesteps=60)
    monkeypatch.setenv("ODD", event)
    outcome = main_of(script, odd_flags(script, total_timesteps=60))
    assert outcome.status == status and "go on with: " in lines(outcome.out if status == 143 else outcome.err)[-1]
    monkeypatch.delenv("ODD")
    [folder] = (tmp_path / "runs").iterdir()
    outcome = main_of(script, f"--resume {folder}")
    assert (outcome.status, outcome.err) == (0, "") and "from step 0 on" in outcome.out
    assert_same_run(whole, folder)


@pytest.mark.parametrize("script", ["sac_continuous", "dqn", *PPO])
def test_another_signal_is_not_a_second_one(main_of, tmp_path, script):
    """A logout or a shutdown sends SIGTERM and SIGHUP together: the run still writes its checkpoint, with 143."""

    class Ended(odd_envs.Odd):
        def step(self, action):
            if odd_envs.num_steps == 130:
                os.kill(os.getpid(), signal.SIGTERM)
                assert signal.getsignal(signal.SIGHUP) != signal.SIG_DFL, "or the next line kills this process"
                os.kill(os.getpid(), signal.SIGHUP)
            return super().step(action)

    outcome = main_of(script, odd_flags(script, env_id=register(Ended, script), checkpoint_interval=0))
    assert (outcome.status, outcome.err) == (143, "")
    [folder] = (tmp_path / "runs").iterdir()
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == (120 if script in PPO else 131)


def test_terminal_that_is_closed(jobs):
    """A run goes on without it; SIGHUP ends it with a checkpoint. (120 is of Python, which cannot flush its output.)"""
    job = jobs("hangup")
    assert job["alive"] and job["status"] in (129, 120)
    assert torch.load(job["dir"] / "checkpoint.pt", weights_only=True)["step"] > 0


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_signal_that_is_ignored_stays_so(main_of, monkeypatch, name):
    """nohup lets a process ignore SIGHUP; a shell script lets what it starts in the background ignore Ctrl-C."""
    number = signal.Signals[name]
    monkeypatch.setenv("ODD", f"{name} 130")
    handler = signal.signal(number, signal.SIG_IGN)
    try:
        outcome = main_of("sac_continuous", odd_flags("sac_continuous"))
        assert (outcome.status, outcome.err) == (0, "") and "finished at step 200, " in lines(outcome.out)[-1]
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, handler)


def test_system_without_hangups(main_of, tmp_path, monkeypatch):
    """Windows has no SIGHUP: a run trains to its end there, and hears the other signals."""
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.setenv("ODD", "SIGTERM 50")
    outcome = main_of("sac_continuous", odd_flags("sac_continuous", total_timesteps=60))
    assert outcome.status == 143 and "stopped at step 50; " in lines(outcome.out)[-1]
    monkeypatch.delenv("ODD")
    [folder] = (tmp_path / "runs").iterdir()
    assert main_of("sac_continuous", f"--resume {folder}").status == 0


@pytest.mark.parametrize("script", ALL)
def test_signal_in_an_evaluation(main_of, tmp_path, monkeypatch, script):
    """It ends an evaluation whose episode has no end: without its result, with a checkpoint of training."""
    monkeypatch.setenv("ODD", "SIGTERM 500")
    monkeypatch.setenv("ODD_LENGTH", "0")
    outcome = main_of(script, odd_flags(script, eval_interval=100))
    assert (outcome.status, outcome.err) == (143, "")
    [folder] = (tmp_path / "runs").iterdir()
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 100
    assert "stopped at step 100; " in lines(outcome.out)[-1] and "evaluation" not in outcome.out
    assert not EVAL & scalars(folder).keys()


@pytest.mark.parametrize("script", ALL)
def test_signal_after_some_episodes_of_an_evaluation(main_of, tmp_path, monkeypatch, script):
    """Two of three are whole, steps 101 to 120 and 121 to 140: the mean of two is not the result of three."""
    monkeypatch.setenv("ODD", "SIGTERM 150")
    outcome = main_of(script, odd_flags(script, eval_interval=100, eval_episodes=3))
    assert (outcome.status, outcome.err) == (143, "")
    [folder] = (tmp_path / "runs").iterdir()
    assert "stopped at step 100; " in lines(outcome.out)[-1] and "evaluation" not in outcome.out
    assert not EVAL & scalars(folder).keys()


@pytest.mark.parametrize("script", ALL)
@pytest.mark.parametrize("event, status", [("SIGTERM", 143), ("raise", 1)])
@pytest.mark.parametrize("total_timesteps", [200, 100])
def test_evaluation_that_was_cut_short_is_made_after_a_resume(
    main_of, tmp_path, monkeypatch, script, event, status, total_timesteps
):
    """That of step 100, the last one or not, with the result of a run that was not stopped; also if it is cut again."""
    changes = {"total_timesteps": total_timesteps, "eval_interval": 100, "eval_episodes": 3}
    expected = scalars(odd_run(script, tmp_path / "whole", **changes))
    monkeypatch.setenv("ODD", f"{event} 150")
    assert main_of(script, odd_flags(script, **changes)).status == status
    [folder] = (tmp_path / "runs").iterdir()
    monkeypatch.setenv("ODD", "SIGTERM 30")
    outcome = main_of(script, f"--resume {folder}")
    assert outcome.status == 143 and "stopped at step 100; " in lines(outcome.out)[-1]
    assert not EVAL & scalars(folder).keys()
    monkeypatch.delenv("ODD")
    outcome = main_of(script, f"--resume {folder}")
    assert outcome.status == 0 and "last evaluation" in lines(outcome.out)[-1]
    found = scalars(folder)
    for tag in EVAL:
        assert found[tag].keys() == expected[tag].keys() and found[tag][100] == expected[tag][100]


@pytest.mark.parametrize("script", ["sac_continuous", "ppo_discrete"])
@pytest.mark.parametrize("total_timesteps", [200, 100])
def test_evaluation_of_the_step_in_which_a_signal_came_is_made_after_a_resume(
    main_of, tmp_path, monkeypatch, script, total_timesteps
):
    """It had not begun: none of its episodes is played before the run ends, and the run that goes on begins with it."""
    changes = {"total_timesteps": total_timesteps, "eval_interval": 100}
    expected = scalars(odd_run(script, tmp_path / "whole", **changes))
    monkeypatch.setenv("ODD", "SIGTERM 100")
    outcome = main_of(script, odd_flags(script, **changes))
    assert outcome.status == 143 and odd_envs.num_steps == 100 and "stopped at step 100; " in lines(outcome.out)[-1]
    monkeypatch.delenv("ODD")
    [folder] = (tmp_path / "runs").iterdir()
    outcome = main_of(script, f"--resume {folder}")
    assert (outcome.status, outcome.err) == (0, "")
    found = scalars(folder)
    for tag in EVAL:
        assert found[tag].keys() == expected[tag].keys() and found[tag][100] == expected[tag][100]


@pytest.mark.parametrize("event, reason", [("SIGTERM 130", "SystemExit: 143"), ("raise 131", "RuntimeError: the sim")])
def test_signal_or_error_while_the_disk_is_full(main_of, monkeypatch, event, reason):
    """The run did not stop well: what it has learned since its last checkpoint is lost, and status 1 says so.

    The last line is about what ended it, and a warning about the disk.
    """

    def full(state, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("ODD", event)
    monkeypatch.setattr(importlib.import_module("sac_continuous"), "save", full)
    outcome = main_of("sac_continuous", odd_flags("sac_continuous", checkpoint_interval=0))
    assert outcome.status == 1 and "stopped at step" not in outcome.out
    assert "warning: step 130: no checkpoint: [Errno 28] No space left on device" in lines(outcome.err)
    assert f"sac_continuous.py: step 130: {reason}" in lines(outcome.err)[-1] and "--resume" in lines(outcome.err)[-1]


# ---- Environments that fail ----
@pytest.mark.parametrize("script", ["sac_continuous", *PPO])
def test_last_observation_of_an_episode_that_is_not_finite(main_of, script):
    """A simulation that explodes and ends; PPO plays two episodes of 20 steps at a time, and sees their first obs."""

    class Exploding(odd_envs.Odd):
        def obs(self):
            return np.full(2, np.nan if self.time == 20 else 0, np.float32)

    outcome = main_of(script, odd_flags(script, env_id=register(Exploding, script)))
    assert outcome.status == 1
    assert f"step {40 if script in PPO else 20}: obs of OddKind-v0 is not finite" in lines(outcome.err)[-1]


@pytest.mark.parametrize("script", ALL)
def test_environment_that_raises(main_of, tmp_path, monkeypatch, script):
    """Status 1, one line with the step and the command that goes on, a traceback in the output, and a checkpoint."""
    monkeypatch.setenv("ODD", "raise 151")
    outcome = main_of(script, odd_flags(script))
    assert outcome.status == 1 and len(lines(outcome.err)) == 1, outcome.err
    assert "Traceback" in outcome.out and "has crashed" in outcome.out and "has crashed" not in outcome.err
    assert re.match(rf"{script}\.py: step 15[01]: RuntimeError: the simulator; ", outcome.err), outcome.err
    [folder] = (tmp_path / "runs").iterdir()
    step = 140 if script in PPO else 150  # the last whole rollout, the last whole step
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == step
    _, path, *flags = shlex.split(command_in(outcome.err, "go on with"))
    assert Path(path).resolve() == ROOT / f"{script}.py" and flags[0] == "--resume"
    outcome = main_of(script, shlex.join(flags))  # in which the environment makes fewer steps
    assert (outcome.status, outcome.err) == (0, "") and f"from step {step} on" in outcome.out
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 200
    assert sorted(next(iter(tags for tag, tags in scalars(folder).items() if "loss" in tag)))[-1] == 200


@pytest.mark.parametrize("when", ["reset", "evaluation"])
@pytest.mark.parametrize("script", ["sac_continuous", "dqn"])
def test_environment_that_raises_after_the_update(main_of, tmp_path, monkeypatch, script, when):
    """At an episode's end or in an evaluation: the checkpoint's step is that of what is in its buffer."""
    monkeypatch.setenv("ODD", "reset 140" if when == "reset" else "raise 150")
    outcome = main_of(script, odd_flags(script, eval_interval=0 if when == "reset" else 130))
    assert outcome.status == 1 and len(lines(outcome.err)) == 1, outcome.err
    [folder] = (tmp_path / "runs").iterdir()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert state["step"] == state["buffer"]["num_added"] == (140 if when == "reset" else 130)


# ---- Compiling ----
@pytest.mark.parametrize("name", ["no compiler", "no place"])
def test_no_compiler(jobs, name):
    """A line says so, and the run goes on without, as one with --no-compile."""
    plain, run = jobs("no_compiler")["plain"], jobs("no_compiler")[name]
    assert (run.status, plain.status) == (0, 0), run.err
    [line] = [line for line in lines(run.out) if "going on without" in line]
    assert "--compile" in line and "going on without" not in plain.out
    assert "Traceback" not in run.out + run.err
    assert scalars(run.dir) == scalars(plain.dir)
    assert_same_state(run.dir, plain.dir, "agent.pt")
    assert json.loads((run.dir / "args.json").read_text())["compile"] is True


# ---- Evaluation ----
def test_evaluate_takes_the_rest_from_the_run(jobs, main, module):
    """Arguments that differ are refused by name, also where they are the script's defaults."""
    folder = jobs("reference")[0].dir
    for flags in ("--seed 3", "--total-timesteps 900", f"--env-id {module.Args.env_id}", "--log-interval 1_000"):
        assert_refused(main(f"--evaluate {folder} {flags}"), "--evaluate", flags.split()[0])


def test_evaluate(jobs):
    """--evaluate says of which step the agent is, and prints its returns, those of training, from agent.pt alone.

    The command is the one that the last line of the run has printed.
    """
    run, (first, second) = jobs("reference")[0], jobs("evaluate")
    assert (first.status, second.status, first.err) == (0, 0, ""), second.err
    assert first.out == second.out
    of_step, *each, mean = lines(first.out)
    assert of_step == f"agent of step {STEPS}"
    returns = [float(re.search(r"-?\d+\.\d+$", line)[0]) for line in each]
    found_mean, found_std = map(float, re.search(r"(-?[\d.]+) ± ([\d.]+)$", mean).groups())
    assert len(returns) == 2 and found_mean == pytest.approx(sum(returns) / 2, abs=0.011)
    assert found_std == pytest.approx(abs(returns[0] - returns[1]) / 2, abs=0.011)
    assert found_mean == pytest.approx(scalars(run.dir)["eval/episodic_return"][STEPS], abs=0.006)
    assert found_std == pytest.approx(scalars(run.dir)["eval/episodic_return_std"][STEPS], abs=0.006)
    assert sorted(path.suffix for path in second.cwd.iterdir()) == ["", *[".pt"], *[".py"] * 6], "nothing was imported"
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
    files = list((evaluated.cwd / "videos").iterdir())
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


@pytest.mark.parametrize("name", ["wandb_missing", "wandb_init", "wandb_log", "wandb_finish"])
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


@pytest.mark.parametrize("event, status", [("SIGTERM 130", 143), ("raise 130", 1), ("reward 130", 1), ("obs 130", 1)])
def test_run_that_does_not_reach_its_end_leaves_nothing_open(main_of, tmp_path, monkeypatch, event, status):
    """Curves and Weights & Biases are closed after the last value, the lock is gone, and signals are the caller's."""
    module, calls = importlib.import_module("sac_continuous"), []
    wandb = SimpleNamespace(
        init=lambda **given: None,
        define_metric=lambda name, **given: None,
        log=lambda values: calls.append(values["global_step"]),
        finish=lambda: calls.append("finished"),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    close = SummaryWriter.close
    monkeypatch.setattr(module.SummaryWriter, "close", lambda writer: (calls.append("closed"), close(writer)))
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    monkeypatch.setenv("ODD", event)
    assert main_of("sac_continuous", odd_flags("sac_continuous", track=True)).status == status
    [folder] = (tmp_path / "runs").iterdir()
    assert calls[-3] == 120 and set(calls[-2:]) == {"closed", "finished"}
    assert max(scalars(folder)["charts/episodic_return"]) == 120
    assert not (folder / "lock").exists()
    assert [signal.getsignal(number) for number in numbers] == handlers


def test_number_that_only_the_last_checkpoint_finds_leaves_nothing_open(main_of, tmp_path, monkeypatch):
    """One line names it, nothing is saved, and the lock is gone and Weights & Biases is told all the same."""
    module, finished = importlib.import_module("sac_continuous"), []
    wandb = SimpleNamespace(
        init=lambda **given: None,
        define_metric=lambda name, **given: None,
        log=lambda values: None,
        finish=lambda: finished.append(True),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    evaluate_if_due = module.Run.evaluate_if_due

    def spoil(run):
        if run.step == 200:
            run.agent.log_alpha.data.fill_(np.inf)
        evaluate_if_due(run)

    monkeypatch.setattr(module.Run, "evaluate_if_due", spoil)
    outcome = main_of("sac_continuous", odd_flags("sac_continuous", track=True, checkpoint_interval=0))
    assert outcome.status == 1 and "log_alpha" in outcome.err and len(lines(outcome.err)) == 1
    [folder] = (tmp_path / "runs").iterdir()
    assert finished == [True] and not {"lock", "checkpoint.pt"} & {path.name for path in folder.iterdir()}


def test_command_that_goes_on_where_the_script_is_on_another_drive(main_of, monkeypatch):
    """Windows knows no relative path then, and the whole one is printed."""

    def elsewhere(path, start=None):
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    monkeypatch.setattr(os.path, "relpath", elsewhere)
    outcome = main_of("sac_continuous", odd_flags("sac_continuous", total_timesteps=60))
    assert outcome.status == 0
    python, script, *_ = shlex.split(command_in(outcome.out, "play it with"))
    assert (python, script) == (sys.executable, importlib.import_module("sac_continuous").__file__)


def test_wandb_gets_project_team_and_place(tmp_path, monkeypatch):
    """And the number of the step as the axis of all curves; a video is in the log of its evaluation."""
    module, options, axes, logged = importlib.import_module("sac_continuous"), {}, {}, []
    wandb = SimpleNamespace(
        init=lambda **given: options.update(given),
        define_metric=lambda name, **given: axes.update({name: given}),
        log=logged.append,
        finish=lambda: None,
        Video=lambda path: f"film of {path}",
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    whose = {"wandb_project": "of mine", "wandb_entity": "my team"}
    folder = odd_run("sac_continuous", tmp_path, track=True, total_timesteps=60, **whose)
    assert (options["project"], options["entity"], Path(options["dir"])) == ("of mine", "my team", folder)
    assert (options["name"], options["id"]) == (folder.name, folder.name)
    assert axes == {"*": {"step_metric": "global_step"}}
    run = SimpleNamespace(writer=None, wandb=wandb, step=7)
    module.Run.log(run, {"eval/episodic_return": 2.0}, "a.mp4")
    assert logged[-1] == {"eval/episodic_return": 2.0, "eval/video": "film of a.mp4", "global_step": 7}
    run.writer = SimpleNamespace(add_scalar=lambda *_: 1 / 0)
    module.Run.log(run, {"charts/episodic_return": 3.0})
    assert logged[-1] == {"charts/episodic_return": 3.0, "global_step": 7}, "also where TensorBoard fails"
    assert (run.writer, run.wandb) == (None, wandb)


# ---- The other scripts, in brief ----
@pytest.mark.parametrize("script", OTHERS)
def test_others_refuse(script, main_of, tmp_path):
    brief = " --total-timesteps 300" + (" --learning-starts 100" if script not in PPO else "")  # if it is not refused
    for flags, word in [(f"--env-id {WRONG_ENV[script]}", "--env-id"), *WRONG[script]]:
        assert_refused(main_of(script, flags + brief), word)
    assert list(tmp_path.iterdir()) == []
