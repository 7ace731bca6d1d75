"""What a night can do to a run: disks, terminals, a second process, damaged files and strange environments.

Signals and environments that raise are in test_runs.py, with the runs that are killed; soak.py attacks runs at random.
"""

import builtins
import importlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import odd_envs
import pytest
import test_runs
import torch
from forked import Forked
from test_runs import ALL, ODD_ENV, PPO, ROOT, assert_refused, lines, odd_flags, odd_run, scalars

import ppo_discrete
import sac_continuous

main_of, nothing_odd = test_runs.main_of, test_runs.nothing_odd  # fixtures
MAKERS = ["sac_continuous", "ppo_continuous", "dqn", "ppo_discrete"]  # of environments: each has a make_env of its own
CONTINUOUS, DISCRETE = ["ddpg", "td3", "sac_continuous", "ppo_continuous"], ["dqn", "ddqn", "ppo_discrete"]
BOX, TWO = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32), gym.spaces.Discrete(2)


class Simple(gym.Env):
    """Episodes of 20 steps whose observations and rewards are zeros, but for what a subclass changes."""

    observation_space = BOX

    def __init__(self, action_space: gym.Space, render_mode: str | None = None):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.obs(), {}

    def step(self, action):
        self.time += 1
        return self.obs(), self.reward(), False, self.time == 20, {}

    def obs(self):
        return np.zeros(self.observation_space.shape, self.observation_space.dtype)

    def reward(self):
        return 1.0


def register(kind: type[gym.Env], script: str = "", action_space: gym.Space = TWO, **options) -> str:
    """The id of an environment of this class, whose actions the script can choose."""
    if script in CONTINUOUS and action_space is TWO:
        action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    name = f"{kind.__name__}{'Box' if isinstance(action_space, gym.spaces.Box) else ''}-v0"
    gym.registry.pop(name, None)
    gym.register(name, kind, disable_env_checker=True, kwargs={"action_space": action_space}, **options)
    return name


def folder_of(tmp_path: Path) -> Path:
    [folder] = (tmp_path / "runs").iterdir()
    return folder


# ---- Memory ----
PEAK = """
import re, sys, torch, {script} as m
from pathlib import Path
def status(key): return int(re.search(key + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
buffer = m.ReplayBuffer(99, 1, 1_000_000, torch.device("cpu"))
buffer.rows[:500_000].uniform_()  # 400 MB of 800
buffer.num_added = 500_000
if "{kind}" == "frames":
    buffer = m.FrameBuffer((4, 84, 84), 50_000, torch.device("cpu"))
    buffer.frames.fill_(3)
    buffer.num_frames, buffer.num_added = len(buffer.frames), 50_000
    buffer.stored.extend(range(len(buffer.frames) - 50_000, len(buffer.frames)))
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
state = buffer.state_dict()
m.check_finite(state, 1)
m.save({{"buffer": state}}, Path("checkpoint.pt"))
print(status("VmHWM") / before, Path("checkpoint.pt").stat().st_size)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read as on Linux")
@pytest.mark.parametrize("script, kind, size", [("sac_continuous", "rows", 400e6), ("dqn", "frames", 389e6)])
def test_checkpoint_takes_no_second_copy_of_the_buffer(tmp_path, script, kind, size):
    code = PEAK.format(script=script, kind=kind)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    ratio, written = run.stdout.split()[-2:]
    assert float(ratio) < 1.1
    assert size < int(written) < 1.15 * size, "only what is stored is written"


@pytest.mark.parametrize("script", ["dqn", "ddqn", "ddpg", "td3", "sac_continuous"])
@pytest.mark.parametrize(
    "files, free",
    [
        ({}, 9),
        ({"cgroup": "0::/a/b", "a/b/memory.max": "max", "a/memory.max": "5e9", "memory.max": "7e9"}, 4),
        ({"cgroup": "0::/a/b", "a/b/memory.max": "3e9", "a/memory.max": "5e9"}, 2),
        ({"cgroup": "0::/of/the/host", "memory.max": "6e9"}, 5),  # what a container sees of itself is at the root
        ({"cgroup": "4:memory:/a\n0::/", "memory/a/memory.limit_in_bytes": "2.5e9"}, 1.5),
        ({"cgroup": "4:memory:/a\n0::/", "memory/memory.limit_in_bytes": "8e9"}, 7),
    ],
)
def test_free_memory_is_that_of_the_smallest_container(tmp_path, monkeypatch, script, files, free):
    """In each container 1 GB is used, and 9 GB are free in the machine."""
    module = importlib.import_module(script)
    texts = {"proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable:    8789062 kB\n"}
    texts["proc/self/cgroup"] = files.get("cgroup", "0::/")
    for name in files.keys() - {"cgroup"}:
        texts[f"sys/fs/cgroup/{name}"] = str(files[name] if files[name] == "max" else int(float(files[name])))
        stat = "total_rss" if "limit" in name else "anon"
        texts[f"sys/fs/cgroup/{Path(name).parent}/memory.stat"] = f"file 77\n{stat} 1000000000\nother 5\n"
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "Path", lambda *parts: tmp_path.joinpath(*(part.lstrip("/") for part in parts)))
    assert module.free_memory() == pytest.approx(1e9 * free, rel=1e-6)
    room = 1e9 * free - 1e9  # 1 GB is for the rest of the run
    module.check_memory(10, room - 1e6, torch.device("cpu"))
    with pytest.raises(MemoryError, match="--buffer-size 10 takes"):
        module.check_memory(10, room + 1e6, torch.device("cpu"))


def test_machine_that_does_not_say_what_is_free_has_room_for_any_buffer(tmp_path, monkeypatch, capsys):
    """Outside of Linux. The line about the buffer, and an error, have its size in GB of 10^9 bytes."""
    monkeypatch.setattr(sac_continuous, "Path", lambda *parts: tmp_path.joinpath(*(part.lstrip("/") for part in parts)))
    sac_continuous.check_memory(1_234_567, 2.5e13, torch.device("cpu"))
    assert capsys.readouterr().out == "replay buffer: 1,234,567 transitions, 25000.00 GB on cpu\n"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 1 kB\n")  # a kernel without cgroups
    sac_continuous.check_memory(1_000, 2.5e13, torch.device("cpu"))
    monkeypatch.setattr(sac_continuous, "free_memory", lambda: 4.25e9)
    with pytest.raises(MemoryError, match=r"--buffer-size 1000 takes 7.50 GB, but 3.25 GB are free: "):
        sac_continuous.check_memory(1_000, 7.5e9, torch.device("cpu"))


def test_memory_of_a_gpu_is_what_is_free_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3.5e9, 80e9))  # free, and all
    sac_continuous.check_memory(1_000, 2.4e9, torch.device("cuda"))
    with pytest.raises(MemoryError, match=r"takes 2.60 GB, but 2.50 GB are free"):
        sac_continuous.check_memory(1_000, 2.6e9, torch.device("cuda"))


@pytest.mark.parametrize("script", ["dqn", "ddqn", "ddpg", "td3", "sac_continuous"])
def test_memory_that_is_asked_for_is_what_the_buffer_takes(monkeypatch, script):
    module, asked = importlib.import_module(script), []
    monkeypatch.setattr(module, "check_memory", lambda capacity, size, device: asked.append((capacity, size)))
    buffer = module.ReplayBuffer(11, 3, 1_000, torch.device("cpu"))
    assert asked == [(1_000, buffer.rows.nbytes)]
    if script in DISCRETE:
        buffer = module.FrameBuffer((4, 84, 84), 100, torch.device("cpu"))
        assert asked[1:] == [(100, buffer.frames.nbytes)]


# ---- Disks ----
@pytest.fixture
def full_disk(monkeypatch):
    """full_disk(first, last): while odd environments have made that many steps, nothing can be written."""

    def between(first: int, last: int = 10**9) -> None:
        opened = open

        def write(file, mode="r", *args, **options):
            if mode[0] in "wax" and first <= odd_envs.num_steps < last:
                raise OSError(28, "No space left on device", str(file))
            return opened(file, mode, *args, **options)

        monkeypatch.setattr(builtins, "open", write)
        monkeypatch.setattr(io, "open", write)

    return between


@pytest.mark.parametrize("script", ALL)
def test_disk_that_is_full_for_a_while(main_of, tmp_path, full_disk, script):
    """From step 90 to 150: a warning for the logs, another that a checkpoint is missing, and all is taken up again."""
    full_disk(90, 150)
    outcome = main_of(script, odd_flags(script))
    assert outcome.status == 0, outcome.err
    texts = [line.partition(": [Errno 28]")[0] for line in lines(outcome.err) if line.startswith("warning: ")]
    logs = "warning: going on without TensorBoard until the next checkpoint"
    assert texts == [logs, logs, "warning: step 120: no checkpoint"], "once it fails, and once it is tried again"
    steps = sorted({step for values in scalars(folder_of(tmp_path)).values() for step in values})
    assert steps[0] <= 60 and steps[-1] == 200 and not any(100 <= step < 180 for step in steps)
    assert torch.load(folder_of(tmp_path) / "checkpoint.pt", weights_only=True)["step"] == 200
    assert not list(folder_of(tmp_path).glob("*.tmp"))


@pytest.mark.parametrize("script", ALL)
def test_disk_that_is_full_to_the_end(main_of, tmp_path, full_disk, monkeypatch, script):
    """Status 1, and a last line with the reason and how to go on, from the last checkpoint."""
    full_disk(150)
    outcome = main_of(script, odd_flags(script))
    assert outcome.status == 1
    assert "the last checkpoint cannot be written; go on with: " in lines(outcome.err)[-1]
    assert torch.load(folder_of(tmp_path) / "checkpoint.pt", weights_only=True)["step"] == 120
    *_, flag, value = shlex.split(lines(outcome.err)[-1].partition("go on with: ")[2])
    assert main_of(script, shlex.join([flag, value])).status == 0  # steps are counted from 0 again: there is room
    assert torch.load(folder_of(tmp_path) / "checkpoint.pt", weights_only=True)["step"] == 200


class Sweeper(odd_envs.Odd):
    """After 150 steps somebody deletes the folder of the runs."""

    def step(self, action):
        if odd_envs.num_steps == 150:
            shutil.rmtree("runs")
        return super().step(action)


@pytest.mark.parametrize("script", ["sac_continuous", "ppo_discrete"])
def test_folder_that_is_deleted(main_of, tmp_path, script):
    """It is made again, and what was learned is in it."""
    outcome = main_of(script, odd_flags(script, env_id=register(Sweeper, script)))
    assert outcome.status == 0, outcome.err
    assert torch.load(folder_of(tmp_path) / "checkpoint.pt", weights_only=True)["step"] == 200


@pytest.mark.parametrize("script", ALL)
def test_agent_is_written_before_what_has_no_room(main_of, tmp_path, monkeypatch, script):
    """With room for agent.pt and not for checkpoint.pt: the agent is saved, and no temporary file stays."""
    module, save = importlib.import_module(script), torch.save

    def full(state, file):
        if "buffer" in state:
            file.write(b"0" * 1000)
            raise OSError(28, "No space left on device")
        save(state, file)

    monkeypatch.setattr(module.torch, "save", full)
    outcome = main_of(script, odd_flags(script))
    assert outcome.status == 1 and "No space left on device" in outcome.err
    assert lines(outcome.err)[-1].startswith(f"{script}.py: step 200: the last checkpoint cannot be written; ")
    assert {path.name.partition(".out")[0] for path in folder_of(tmp_path).iterdir()} == {
        "agent.pt",
        "args.json",
        "events",
    }
    assert torch.load(folder_of(tmp_path) / "agent.pt", weights_only=True)["step"] == 200


def test_file_is_on_the_disk_before_it_takes_the_place_of_the_last_one(tmp_path, monkeypatch):
    """Or a power cut may leave neither: all of it is handed to the disk, and then it is moved."""
    seen, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(os.fstat(number).st_size))
    monkeypatch.setattr(os, "replace", lambda one, other: (seen.append("moved"), replace(one, other)))
    sac_continuous.save({"rows": torch.zeros(10_000)}, tmp_path / "agent.pt")
    assert seen[1:] == ["moved"] and 40_000 < seen[0] <= (tmp_path / "agent.pt").stat().st_size


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found(wrong):
    """Among many, with its name and the step; integers, an empty buffer and what is no tensor are passed over."""
    good = {"rows": torch.zeros(3, 100), "empty": torch.empty(0, 4), "count": torch.tensor(3), "number": np.inf}
    sac_continuous.check_finite(good, 12_345)
    for row in range(3):
        bad = torch.zeros(3, 100)
        bad[row, 50] = wrong
        with pytest.raises(FloatingPointError, match=r"^step 12,345: later is not finite; the last checkpoint is from"):
            sac_continuous.check_finite(good | {"later": bad}, 12_345)


# ---- Terminals ----
@pytest.mark.parametrize("where", [">&- 2>&-", "2>&-", ">/dev/full 2>/dev/full", "| head -n 1"])
def test_output_that_nobody_can_read(tmp_path, where):
    flags = odd_flags("dqn", env_id="CartPole-v1")
    command = f"{shlex.quote(sys.executable)} {ROOT / 'dqn.py'} {flags} {where}"
    subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=tmp_path, check=True, capture_output=True)
    assert torch.load(folder_of(tmp_path) / "checkpoint.pt", weights_only=True)["step"] == 200


INTERRUPTED = "import os, signal, sys\nos.kill(os.getpid(), signal.SIGINT)\nprint('went on')\nsys.exit(3)\n"


@pytest.mark.parametrize("script", ALL)
def test_interrupt_while_it_starts(tmp_path, script):
    """Ctrl-C in the slow imports, of which gymnasium is the first: no traceback; in the background it is ignored."""
    (tmp_path / "gymnasium.py").write_text(INTERRUPTED)
    environment, ignore = (
        os.environ | {"PYTHONPATH": str(tmp_path)},
        lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    for before, end in ((None, (-signal.SIGINT, "", "")), (ignore, (3, "went on\n", ""))):
        command = [sys.executable, ROOT / f"{script}.py"]
        job = subprocess.run(command, env=environment, preexec_fn=before, capture_output=True, text=True)
        assert (job.returncode, job.stdout, job.stderr) == end


def test_interrupt_of_an_evaluation(tmp_path):
    """Ctrl-C in --evaluate: no traceback, and no file that is half written."""
    folder = odd_run("sac_continuous", tmp_path / "runs")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "ODD": "SIGINT 30"}
    command = [sys.executable, ROOT / "sac_continuous.py", "--evaluate", folder]
    before = sorted(path.name for path in folder.rglob("*"))
    job = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (job.returncode, job.stderr) == (-signal.SIGINT, "") and "agent of step" in job.stdout
    assert sorted(path.name for path in folder.rglob("*")) == before


# ---- The folder of a run ----
@pytest.mark.parametrize("script", ["td3", "ppo_discrete"])
def test_file_system_without_locks(main_of, tmp_path, monkeypatch, script):
    """A network drive, say: the run goes on without one."""
    fcntl = pytest.importorskip("fcntl")

    def lockf(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    outcome = main_of(script, odd_flags(script))
    assert (outcome.status, outcome.err) == (0, "")
    assert main_of(script, f"--resume {folder_of(tmp_path)} --total-timesteps 240").status == 0


@pytest.mark.parametrize("script", ["sac_continuous", "ppo_discrete"])
def test_second_process_is_refused(main_of, tmp_path, script):
    """The folder is that of a process that lives, and of nobody once it is killed."""
    pytest.importorskip("fcntl")
    variables = dict(os.environ, ODD="hang 150", PYTHONPATH=str(ROOT / "tests"), OMP_NUM_THREADS="1")
    out = tmp_path / "out"
    process = Forked(ROOT / f"{script}.py", shlex.split(odd_flags(script)), tmp_path, variables, out, tmp_path / "err")
    try:
        deadline = time.monotonic() + 120
        while "hanging" not in (out.read_text() if out.exists() else ""):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        folder = folder_of(tmp_path)
        before = (folder / "checkpoint.pt").read_bytes()
        assert_refused(main_of(script, f"--resume {folder}"), str(folder), f"in use by process {process.process.pid}")
        assert (folder / "checkpoint.pt").read_bytes() == before
    finally:
        process.kill()
        process.wait(20)
    assert main_of(script, f"--resume {folder}").status == 0
    assert not (folder / "lock").exists()


@pytest.mark.parametrize("script", ALL)
def test_folder_is_taken_until_the_last_checkpoint_is_written(tmp_path, monkeypatch, script):
    """Or another process might go on from the one before, and write into the same files."""
    pytest.importorskip("fcntl")
    module, statuses = importlib.import_module(script), []
    save = module.save
    take = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"

    def saving(state, path):
        other = subprocess.run([sys.executable, "-S", "-c", take, path.parent / "lock"], capture_output=True, text=True)
        statuses.append((path.name, "BlockingIOError" in other.stderr or "PermissionError" in other.stderr))
        save(state, path)

    monkeypatch.setattr(module, "save", saving)
    odd_run(script, tmp_path / "runs", total_timesteps=60, checkpoint_interval=0)
    assert statuses == [("agent.pt", True), ("checkpoint.pt", True)]


@pytest.mark.parametrize("script", ALL)
def test_lock_of_a_process_that_was_killed_has_the_new_one_s_number_only(tmp_path, script):
    (tmp_path / "lock").write_text("12345678901234567890")
    with importlib.import_module(script).lock(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("error", [BlockingIOError(11, "busy"), PermissionError(13, "busy")])
def test_lock_that_another_process_has_is_refused_however_the_system_says_it(tmp_path, monkeypatch, error):
    """POSIX allows both errors."""
    fcntl = pytest.importorskip("fcntl")

    def lockf(*_):
        raise error

    (tmp_path / "lock").write_text("4321")
    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.raises(sac_continuous.UsageError, match=rf"^{re.escape(str(tmp_path))} is in use by process 4321$"):
        sac_continuous.lock(tmp_path)


def test_system_without_locks(tmp_path, monkeypatch):
    """Windows has no fcntl: a folder is taken without a lock."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for _ in range(2):
        sac_continuous.lock(tmp_path).close()


def test_file_that_would_run_code_is_refused(main_of, tmp_path):
    """An agent.pt or a checkpoint.pt may come from a stranger: it is data, and no program."""

    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "was run"), "w")

    folder = odd_run("sac_continuous", tmp_path / "runs", total_timesteps=60)
    for flag, name in (("--evaluate", "agent.pt"), ("--resume", "checkpoint.pt")):
        state = torch.load(folder / name, weights_only=True)
        torch.save(state | {"more": Trap()}, folder / name)
        assert_refused(
            main_of("sac_continuous", f"{flag} {folder}"), f"{folder}/{name} is damaged or not of this script"
        )
    assert not (tmp_path / "was run").exists()


def test_file_of_another_version_and_one_that_is_missing_are_refused_with_the_reason(main_of, tmp_path):
    folder = odd_run("sac_continuous", tmp_path / "runs", total_timesteps=60)
    for flag, name in (("--evaluate", "agent.pt"), ("--resume", "checkpoint.pt")):
        state = torch.load(folder / name, weights_only=True)
        torch.save(state | {"args": state["args"] | {"of_the_future": 1}}, folder / name)
        outcome = main_of("sac_continuous", f"{flag} {folder}")
        assert_refused(outcome, f"{folder}/{name} is damaged or not of this script", "of_the_future")
        (folder / name).unlink()
        assert_refused(main_of("sac_continuous", f"{flag} {folder}"), f"{folder}/{name} does not exist: ")


@pytest.mark.parametrize("script", ALL)
def test_signals_are_those_of_the_caller_again_after_training(tmp_path, script):
    """A program that trains in between keeps its own way of ending."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    own = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        before = {number: signal.getsignal(number) for number in numbers}
        odd_run(script, tmp_path / "runs", total_timesteps=60)
        assert {number: signal.getsignal(number) for number in numbers} == before
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("script", "change"),
    [(script, change) for script in ALL for change in ("shape", "name")]
    + [(script, change) for script in ALL if script not in PPO for change in ("buffer", "rows")],
)
def test_checkpoint_that_does_not_fit(main_of, tmp_path, script, change):
    """One line says what: a parameter of another size or name, no buffer, one of another environment."""
    path = odd_run(script, tmp_path / "runs") / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    name = next(name for name in state["agent"] if name.endswith("0.weight"))
    if change == "shape":
        state["agent"][name] = torch.zeros(64, 5)
    elif change == "name":
        state["agent"]["policy.first"] = state["agent"].pop(name)
    elif change == "buffer":
        del state["buffer"]
    else:
        state["buffer"]["rows"] = torch.zeros(200, 99)
    torch.save(state, path)
    before = path.read_bytes()
    words = ["agent", name] if change in ("shape", "name") else ["buffer"]
    assert_refused(main_of(script, f"--resume {path.parent} --total-timesteps 400"), "does not fit", *words)
    assert path.read_bytes() == before
    if change in ("shape", "name"):
        torch.save(state, path.parent / "agent.pt")
        assert_refused(main_of(script, f"--evaluate {path.parent}"), "does not fit", *words)


@pytest.mark.parametrize("script", ["sac_continuous", "ppo_discrete"])  # of whose kind the others are
@pytest.mark.parametrize(
    "module", ["payload", "package", "runs.stranger.payload", "stranger.inner.payload", "HERE.runs.stranger.payload"]
)
def test_module_in_a_folder_of_runs_is_not_imported(main_of, tmp_path, monkeypatch, script, module):
    """However a run's agent.pt names it: the folder of a run may be a stranger's."""
    module = module.replace("HERE", tmp_path.name)
    folder = odd_run(script, tmp_path / "runs").rename(tmp_path / "runs" / "stranger")
    for path in ("payload.py", "package/__init__.py", "inner/payload.py"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("import os\nopen(os.environ['PAYLOAD'], 'w').close()\n")
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "was imported"))
    for place in (tmp_path.parent, tmp_path, tmp_path / "runs", folder):
        monkeypatch.syspath_prepend(str(place))
    for name in ("agent.pt", "checkpoint.pt"):
        state = torch.load(folder / name, weights_only=True)
        state["args"] |= {"env_id": f"{module}:X-v0", "out_dir": "elsewhere"}
        torch.save(state, folder / name)
    for flag in ("--evaluate", "--resume"):
        assert_refused(main_of(script, f"{flag} runs/stranger"), module, "not imported")
    assert_refused(main_of(script, odd_flags(script, env_id=f"{module}:X-v0")), module, "not imported")
    assert not (tmp_path / "was imported").exists()


@pytest.mark.parametrize("script", ["sac_continuous", "ppo_discrete"])  # of whose kind the others are
def test_module_in_a_folder_of_runs_is_not_imported_by_another_way_to_it(main_of, tmp_path, monkeypatch, script):
    """The path to it may go through a link, or there and back, and the run may be the working folder."""
    folder = odd_run(script, tmp_path / "runs")
    (folder / "payload.py").write_text("import os\nopen(os.environ['PAYLOAD'], 'w').close()\n")
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "was imported"))
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path / "link", tmp_path / "elsewhere" / ".." / "runs" / folder.name):
        with monkeypatch.context() as path:
            path.syspath_prepend(str(place))
            assert_refused(main_of(script, odd_flags(script, env_id="payload:X-v0")), "payload", "not imported")
    assert not (tmp_path / "was imported").exists()
    (tmp_path / "runs" / "beside.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "runs"))
    monkeypatch.chdir(folder)
    module = importlib.import_module(script)
    for how in ("evaluate", "resume"):  # of the working folder
        with pytest.raises(module.UsageError, match="beside:X-v0: a module in the folder of runs"):
            module.check_args(module.Args(env_id="beside:X-v0", **{how: "."}))


def test_module_beside_the_script_may_be_imported_from_a_folder_of_runs(tmp_path, monkeypatch):
    """With --out-dir . all lies in the folder of runs: a stranger's are then the folder runs, and the run itself."""
    for place, name in ((tmp_path, "own_task"), (tmp_path / "runs", "in_runs"), (tmp_path / "one", "in_run")):
        place.mkdir(exist_ok=True)
        (place / f"{name}.py").touch()
        monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr(sac_continuous, "__file__", str(tmp_path / "sac_continuous.py"))

    def refused(name: str, **args) -> bool:
        try:
            sac_continuous.check_args(sac_continuous.Args(env_id=f"{name}:X-v0", **args))
        except sac_continuous.UsageError as error:
            assert "is not imported" in str(error)
            return True
        return False

    here, run = str(tmp_path), str(tmp_path / "one")
    names = "own_task", "in_runs", "in_run"
    assert [refused(name, out_dir=here) for name in names] == [False, True, False]
    for how in ("evaluate", "resume"):
        assert [refused(name, **{how: run}) for name in names] == [False, False, True]
    assert sys.modules.keys().isdisjoint(names)


def test_module_of_heads_in_a_folder_of_runs_is_not_imported(tmp_path, monkeypatch):
    """Neither where the number of values of an argument is compared with the environment's heads."""
    (tmp_path / "trap.py").write_text("raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    args = ppo_discrete.Args(env_id="trap:X-v0", ent_coef=(0.1, 0.2), out_dir=str(tmp_path))
    with pytest.raises(ppo_discrete.UsageError, match="is not imported"):
        ppo_discrete.check_args(args)


@pytest.mark.parametrize("script", ALL)
def test_module_in_a_folder_of_runs_is_not_imported_to_find_out_whether_it_can_be_filmed(tmp_path, monkeypatch, script):
    """A run goes on by arguments of its own, and a stranger's may ask for videos."""
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "trap.py").write_text("raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "stranger"))
    module = importlib.import_module(script)
    for how in ({"out_dir": str(tmp_path)}, {"resume": str(tmp_path / "stranger")}):
        with pytest.raises(module.UsageError, match="is not imported"):
            module.check_args(module.Args(env_id="trap:X-v0", capture_video=True, **how))


@pytest.mark.parametrize("script", ["dqn", "ppo_continuous"])
def test_module_elsewhere_is_imported(main_of, tmp_path, monkeypatch, script):
    """In a package, and from the folder above that of the runs; what lies nowhere gets a hint."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tasks.py").write_text("import odd_envs\n")
    env_id = f"mine.tasks:{ODD_ENV[script].partition(':')[2]}"
    assert_refused(main_of(script, odd_flags(script, env_id=env_id)), "No module named 'mine'", "PYTHONPATH")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main_of(script, odd_flags(script, env_id=env_id)).status == 0
    for name in ("mine.tasks", "mine"):
        del sys.modules[name]


@pytest.mark.parametrize("script", ["dqn", "td3", "sac_continuous", "ppo_discrete"])
def test_resume_of_the_working_folder(tmp_path, monkeypatch, script):
    """--resume . goes on as the same run of Weights & Biases: its name is that of the folder, not a dot."""
    calls = []
    wandb = types.SimpleNamespace(
        init=lambda **options: calls.append(options),
        define_metric=lambda *args, **options: None,
        log=lambda values: None,
        finish=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    folder = odd_run(script, tmp_path / "runs", track=True, wandb_project="of mine", wandb_entity="my team")
    monkeypatch.chdir(folder)
    module = importlib.import_module(script)
    module.train(module.Args(resume=".", total_timesteps=240))
    assert [call["id"] for call in calls] == [folder.name] * 2 and calls[0]["name"] == folder.name
    assert [call["resume"] for call in calls] == ["allow"] * 2, "of a run that may be there already, or not"
    assert [(call["project"], call["entity"]) for call in calls] == [("of mine", "my team")] * 2
    assert [call["config"]["total_timesteps"] for call in calls] == [200, 240]


@pytest.mark.parametrize("script", PPO)
@pytest.mark.parametrize("schedule, middle", [("linear", 0.55), ("exponential", 0.1**0.5)])
def test_integers_for_numbers(script, schedule, middle):
    """From Python Args(ent_coef=1) is an integer; half of the way to 0.1 it is not."""
    module = importlib.import_module(script)
    args = module.Args(
        ent_coef=1, ent_coef_schedule=schedule, ent_coef_end=0.1, ent_coef_duration=100, total_timesteps=10_000
    )
    actions = gym.spaces.Discrete(3) if script == "ppo_discrete" else gym.spaces.Box(-1, 1, (2,))
    agent = module.Agent(BOX, actions, args)
    agent.anneal(50)
    assert agent.ent_coef.item() == pytest.approx(middle)


# ---- Strange environments ----
@pytest.mark.parametrize("script", ALL)
def test_environment_that_cannot_be_closed(main_of, tmp_path, script):
    """Neither at a checkpoint, nor after an evaluation, nor at the end."""

    class Stuck(Simple):
        def close(self):
            raise RuntimeError("the window is gone")

    outcome = main_of(script, odd_flags(script, env_id=register(Stuck, script), eval_interval=100))
    assert outcome.status == 0, outcome.err
    assert scalars(folder_of(tmp_path))["eval/episodic_return"] == {100: 20, 200: 20}


@pytest.mark.parametrize("script", ["sac_continuous", "ppo_discrete"])
def test_every_environment_is_closed(tmp_path, script):
    """Those of training, a new one after each checkpoint, and that of each evaluation: they hold windows and memory."""
    made, closed = [], []

    class Counted(Simple):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

        def close(self):
            closed.append(self)

    odd_run(script, tmp_path / "runs", env_id=register(Counted, script), eval_interval=100)
    assert len(made) > 5 and {id(env) for env in made} == {id(env) for env in closed}


@pytest.mark.parametrize("script", ALL)
def test_environment_without_a_time_limit_is_named_at_the_start(main_of, script):
    env_id = register(Simple, script)
    assert "no time limit: " in main_of(script, odd_flags(script, env_id=env_id)).out
    env_id = register(Simple, script, max_episode_steps=50)
    assert "no time limit: " not in main_of(script, odd_flags(script, env_id=env_id)).out


@pytest.mark.parametrize("script", ALL)
def test_observations_of_bytes(main_of, tmp_path, script):
    """A console's memory, say, and no frames: it trains, evaluates and plays."""

    class Memory(Simple):
        observation_space = gym.spaces.Box(0, 255, (2,), np.uint8)

        def obs(self):
            return np.array([self.time, 200], np.uint8)

    outcome = main_of(script, odd_flags(script, env_id=register(Memory, script), eval_interval=100))
    assert outcome.status == 0, outcome.err
    logged = scalars(folder_of(tmp_path))
    assert logged["eval/episodic_return"] == {100: 20, 200: 20} and any(name.startswith("losses/") for name in logged)
    assert main_of(script, f"--evaluate {folder_of(tmp_path)}").status == 0


@pytest.mark.parametrize("script", ALL)
def test_observations_that_are_views(main_of, script):
    """Of an array from its end to its beginning, as of a flipped picture: PyTorch takes none that goes backwards."""

    class Flipped(Simple):
        def obs(self):
            return np.array([self.time, 1], np.float32)[::-1]

    outcome = main_of(script, odd_flags(script, env_id=register(Flipped, script), eval_interval=100))
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("script", ALL)
def test_first_observation_that_is_not_finite(main_of, script):
    class Blind(Simple):
        def obs(self):
            return np.full(2, np.nan if self.time == 0 else 0, np.float32)

    outcome = main_of(script, odd_flags(script, env_id=register(Blind, script)))
    assert outcome.status == 1
    assert re.search(r"step \d: obs of Blind\w*-v0 is not finite", lines(outcome.err)[-1]), outcome.err


@pytest.mark.parametrize("script", ALL)
def test_first_observation_of_a_later_episode_that_is_not_finite(main_of, script):
    """An episode has 20 steps, and PPO, which plays two at a time, counts those of both."""

    class Blinded(Simple):
        def reset(self, **options):
            obs, info = super().reset(**options)
            self.episode = getattr(self, "episode", 0) + 1
            return np.full_like(obs, np.nan) if self.episode == 2 else obs, info

    outcome = main_of(script, odd_flags(script, env_id=register(Blinded, script), checkpoint_interval=0))
    assert outcome.status == 1
    step = 40 if script in PPO else 20
    assert f"step {step}: obs of" in lines(outcome.err)[-1], outcome.err


@pytest.mark.parametrize("script", ALL)
def test_error_without_a_text_is_named_by_its_kind(main_of, script):
    """Of an environment that cannot be made, and of one that stops in the middle, whose run can go on."""

    class Broken(Simple):
        def __init__(self, *args, **options):
            raise AssertionError

    class Stopping(Simple):
        def reward(self):
            assert self.time < 15
            return 1.0

    assert_refused(main_of(script, odd_flags(script, env_id=register(Broken, script))), "AssertionError")
    outcome = main_of(script, odd_flags(script, env_id=register(Stopping, script)))
    assert outcome.status == 1 and "AssertionError" in lines(outcome.err)[-1] and "--resume" in lines(outcome.err)[-1]


def test_reason_is_the_first_line_of_an_error_that_says_something():
    """Some begin with an empty line, and some have no text at all."""
    for error, reason in [
        (ValueError("\n\n  no such file:\nfile"), "no such file:"),
        (ValueError(" \n "), "ValueError"),
        (KeyError(), "KeyError"),
    ]:
        assert sac_continuous.first_line(error) == reason


@pytest.mark.parametrize("script", ALL)
def test_every_number_of_an_agent_is_looked_at_before_a_checkpoint(tmp_path, monkeypatch, script):
    """In turn an infinite one in each of its tensors, parameters or not: the optimizers' moments, say."""
    run_class = importlib.import_module(script).Run
    save, names = run_class.save, []

    def save_in_vain(run, step):
        for name, value in run.agent.state_dict().items():
            if torch.is_tensor(value) and value.is_floating_point():
                good = value.clone()
                value.view(-1)[-1] = np.inf
                with pytest.raises(FloatingPointError, match=f"{re.escape(name)} is not finite"):
                    save(run, step)
                value.copy_(good)
                names.append(name)
        assert not list(run.dir.glob("*.pt"))
        return save(run, step)

    monkeypatch.setattr(run_class, "save", save_in_vain)
    folder = odd_run(script, tmp_path, total_timesteps=60, checkpoint_interval=0)
    assert {"mean0", "square0", "num_steps"} <= {name.rpartition(".")[2] for name in names}
    assert (folder / "agent.pt").exists()


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("script", [script for script in ALL if script not in PPO])
def test_stored_number_that_is_too_large_costs_no_good_checkpoint(main_of, tmp_path, script):
    """1e300 is a number, and infinite as one of 32 bits; nothing has been learned from it yet."""

    class Huge(Simple):
        def reward(self):
            return 1e300 if odd_envs.num_steps == 150 else 1.0

        def step(self, action):
            odd_envs.num_steps += 1
            return super().step(action)

    flags = odd_flags(script, env_id=register(Huge, script), learning_starts=196)
    outcome = main_of(script, flags)
    assert outcome.status == 1 and "rows is not finite; the last checkpoint is from before" in outcome.err
    assert torch.load(folder_of(tmp_path) / "checkpoint.pt", weights_only=True)["step"] == 120


@pytest.mark.parametrize("script", ALL)
def test_reward_in_an_array_of_one_element(main_of, tmp_path, script):
    class Wrapped(Simple):
        def reward(self):
            return np.array([0.5])

    outcome = main_of(script, odd_flags(script, env_id=register(Wrapped, script)))
    assert outcome.status == 0, outcome.err
    assert set(scalars(folder_of(tmp_path))["charts/episodic_return"].values()) == {10}


@pytest.mark.parametrize("script", CONTINUOUS)
def test_action_with_one_value_is_refused(main_of, script):
    """It would become nan where actions are rescaled."""
    space = gym.spaces.Box(np.array([-1, 2], np.float32), np.array([1, 2], np.float32))
    assert_refused(main_of(script, odd_flags(script, env_id=register(Simple, action_space=space))), "low < high")


@pytest.mark.parametrize("script", ALL)
@pytest.mark.parametrize(
    "space, word",
    [
        (gym.spaces.Box(0, 1, (4, 84, 84), np.float32), "FlattenObservation"),
        (gym.spaces.Box(0, 255, (84, 84, 3), np.uint8), "FlattenObservation"),
        (gym.spaces.Box(-1, 1, (), np.float32), "FlattenObservation"),
        (gym.spaces.Dict(a=BOX), "FlattenObservation"),
    ],
    ids=["numbers", "colours", "number", "dict"],
)
def test_observations_that_are_refused(main_of, script, space, word):
    kind = type("Other", (Simple,), {"observation_space": space})
    assert_refused(main_of(script, odd_flags(script, env_id=register(kind, script))), "observation", word)


@pytest.mark.parametrize("script", ["dqn", "ddqn"])
def test_frames_that_are_no_stack_are_refused(main_of, script):
    """Each frame is kept once, which is right only if an obs has three frames of the one before it."""

    class Album(Simple):
        observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)

        def obs(self):
            return np.full((4, 84, 84), self.time, np.uint8)

    outcome = main_of(script, odd_flags(script, env_id=register(Album)))
    assert outcome.status in (1, 2) and "last four frames" in lines(outcome.err)[-1]


@pytest.mark.parametrize("script", DISCRETE)
def test_actions_of_discrete_scripts_are_integers(main_of, script):
    class Table(Simple):
        def step(self, action):
            {0: "left", 1: "right"}[action]  # an array is not a key
            return super().step(action)

    assert main_of(script, odd_flags(script, env_id=register(Table))).status == 0


@pytest.mark.parametrize("script", DISCRETE)
def test_actions_that_do_not_begin_at_0_are_refused(script):
    """The network's first output would be another action."""
    module = importlib.import_module(script)
    env_id = register(Simple, action_space=gym.spaces.Discrete(2, start=1))
    with pytest.raises(module.UsageError, match="from 0"):
        module.make_env(env_id)


@pytest.mark.parametrize("script", DISCRETE)
def test_episodes_of_atari_end_at_lost_lives_in_training_and_with_the_game_in_evaluations(script):
    """The agent goes to the right, and stays there."""
    module, env_id = importlib.import_module(script), "BreakoutNoFrameskip-v4"
    is_ppo = script in PPO
    training = module.make_training_env(module.Args(env_id=env_id, **({"num_envs": 1} if is_ppo else {})))
    for env, lives in ((training, 4), (module.make_env(env_id), 0)):
        env.reset(seed=0)
        terminated, num_steps = False, 0
        while not terminated:
            right = np.array([2]) if is_ppo and env is training else 2
            *_, terminated, _, _ = env.step(right)
            num_steps += 1
            assert num_steps < 1_000, "a ball that is not served after a lost life: the game stands still"
        env = env.envs[0] if is_ppo and env is training else env
        assert env.unwrapped.ale.lives() == lives
        assert env.get_wrapper_attr("noop_max") == 30, "a game begins with up to so many steps of doing nothing"
        env.close()


@pytest.mark.parametrize("script", ["dqn", "ppo_discrete"])
def test_atari_is_silent_and_other_environments_need_no_atari(monkeypatch, capfd, script):
    import ale_py

    module = importlib.import_module(script)
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Info)
    module.make_env("odd_envs:Odd/Discrete-v0")
    ale_py.ALEInterface()  # says which version it is, if it says anything
    assert capfd.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "ale_py", None)  # makes `import ale_py` an ImportError
    module.make_env("odd_envs:Odd/Discrete-v0")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo draws by itself")
@pytest.mark.parametrize("script", ["sac_continuous", "ppo_continuous"])
def test_mujoco_draws_without_a_display_unless_the_user_has_said_how(monkeypatch, script):
    make_env = importlib.import_module(script).make_env
    for render, display, before, after in (
        (True, "", None, "egl"),
        (True, None, None, "egl"),
        (True, None, "osmesa", "osmesa"),
        (True, ":0", None, None),
        (False, None, None, None),
    ):
        with monkeypatch.context() as patch:
            for name, value in (("DISPLAY", display), ("MUJOCO_GL", before)):
                patch.setenv(name, value or "")
                if value is None:
                    patch.delenv(name)
            make_env("Pendulum-v1", render=render)
            assert os.environ.get("MUJOCO_GL") == after


@pytest.mark.parametrize("script", ["sac_continuous", "ppo_continuous"])
def test_mujoco_s_camera_follows_where_the_robot_has_one(script):
    """Hopper has; where there is none the environment can be recorded too."""
    make_env = importlib.import_module(script).make_env
    assert make_env("InvertedPendulum-v5", render=True).render_mode == "rgb_array"
    env = make_env("Hopper-v5", render=True).unwrapped
    assert env.mujoco_renderer.camera_id == env.model.camera("track").id


@pytest.mark.parametrize("script", MAKERS)
def test_environment_that_cannot_be_made_is_named_with_the_reason(script):
    """With a hint where a module is missing, and only there."""
    module = importlib.import_module(script)
    for env_id, reason, is_missing in (
        ("no_such_module:Thing-v0", "No module named 'no_such_module'", True),
        ("NoSuchThing-v0", "Environment `NoSuchThing` doesn't exist.", False),
    ):
        with pytest.raises(module.UsageError) as refused:
            module.make_env(env_id)
        text = str(refused.value)
        assert text.startswith(f"--env-id {env_id} cannot be made: {reason}")
        assert text.endswith("; put its folder on PYTHONPATH") == is_missing and ("PYTHONPATH" in text) == is_missing


@pytest.mark.parametrize("script", MAKERS)
def test_older_version_of_an_environment_is_made_without_a_warning(script):
    """It is the one that was asked for."""
    action_space = TWO if script in DISCRETE else gym.spaces.Box(-1, 1, (1,), np.float32)
    for version in (0, 1):
        gym.registry.pop(f"Old-v{version}", None)
        gym.register(f"Old-v{version}", Simple, disable_env_checker=True, kwargs={"action_space": action_space})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        importlib.import_module(script).make_env("Old-v0")
    assert [str(warning.message) for warning in said if "Old-v0" in str(warning.message)] == []


class Filmed(Simple):
    """Its pictures can be recorded."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, action_space: gym.Space, render_mode: str | None = None):
        super().__init__(action_space)
        self.render_mode = render_mode

    def reward(self):
        return 0.5

    def render(self):
        return np.zeros((32, 32, 3), np.uint8)


@pytest.mark.filterwarnings("ignore:.*Overwriting existing videos")
@pytest.mark.parametrize("script", MAKERS)
def test_first_episode_of_an_evaluation_is_recorded_and_with_evaluate_each(main_of, tmp_path, script, recwarn):
    """And what is recorded is logged and printed: 20 steps of 0.5."""
    env_id = register(Filmed, script)
    folder = odd_run(script, tmp_path / "runs", env_id=env_id, total_timesteps=60, eval_interval=60, capture_video=True)
    assert [path.name for path in (folder / "videos").iterdir()] == ["step-60-episode-0.mp4"]
    logged = scalars(folder)
    assert (logged["eval/episodic_return"], logged["eval/episodic_length"]) == ({60: 10}, {60: 20})
    outcome = main_of(script, f"--evaluate {folder} --eval-episodes 2 --no-cuda")
    said = ["agent of step 60", "episode 0: 10.00", "episode 1: 10.00", "mean ± std of 2 episodes: 10.00 ± 0.00"]
    assert (outcome.status, lines(outcome.out)) == (0, said)
    assert len(list((folder / "videos").iterdir())) == 1, "not asked for"
    outcome = main_of(script, f"--evaluate {folder} --eval-episodes 2 --no-cuda --capture-video")
    assert outcome.status == 0
    assert not [warning for warning in recwarn if "Overwriting" in str(warning.message)], "the names are others"
    names = ["evaluate-episode-0.mp4", "evaluate-episode-1.mp4", "step-60-episode-0.mp4"]
    assert sorted(path.name for path in (folder / "videos").iterdir()) == names
    module = importlib.import_module(script)
    module.train(module.Args(resume=str(folder), total_timesteps=80))
    names.append("step-80-episode-0.mp4")
    assert sorted(path.name for path in (folder / "videos").iterdir()) == names, "a run that goes on records too"


def test_nothing_is_left_in_the_working_folder(main_of, tmp_path):
    main_of("sac_continuous", odd_flags("sac_continuous"))
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("script", ["dqn", "ddqn"])
def test_run_that_ends_before_epsilon_has_fallen_says_so(main_of, script):
    line = "epsilon falls until step 250, after the end of the run"
    assert line in main_of(script, odd_flags(script, epsilon_duration=250)).out
    assert "epsilon falls" not in main_of(script, odd_flags(script, epsilon_duration=200)).out
    played = main_of(script, f"--evaluate {odd_run(script, Path('more'), epsilon_duration=250)}")
    assert played.status == 0 and "epsilon falls" not in played.out, "an evaluation does not explore"
    schedule = {"epsilon_duration": 250, "epsilon_schedule": "exponential"}
    assert "epsilon falls" not in main_of(script, odd_flags(script, **schedule)).out


@pytest.mark.parametrize("script", ALL)
def test_run_with_cuda_graphs_goes_on_and_plays_on_a_cpu(main_of, tmp_path, script):
    folder = odd_run(script, tmp_path / "runs")
    for name in ("agent.pt", "checkpoint.pt"):
        state = torch.load(folder / name, weights_only=True)
        state["args"] |= {"cudagraphs": True, "cuda": True}
        torch.save(state, folder / name)
    for flags in (f"--evaluate {folder} --no-cuda", f"--resume {folder}"):
        if flags.startswith("--resume") and torch.cuda.is_available():
            continue
        outcome = main_of(script, flags)
        assert (outcome.status, outcome.err) == (0, ""), outcome.err
