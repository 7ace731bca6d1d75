"""Attacks runs of random scripts at random moments, until time is up, and looks at what is left of each run.

    python tests/soak.py --minutes 10 --seed 1

The attacks, until the run has ended: kill -9; SIGTERM, SIGINT, SIGHUP; a disk that is full or read-only for a while; a
second process on the run's folder; a flipped bit in a copy of the checkpoint. After each the run is resumed if it has
ended early. In the end it must be bit-identical, its agent and all its scalars, to a run of the same arguments that was
left alone, but for two things. A disk may not have taken all scalars, of which the run has warned (on that disk,
perhaps). After a signal's checkpoint a new episode begins, so that only the length of the run and of its curves is
compared.

Prints the count of each attack and of each ending; exit status 1 if anything was lost. Linux only: the limit of the
size of a process's files is its full disk, and for root chattr makes a folder read-only.
"""

import argparse
import collections
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from forked import Forked
from test_runs import scalars, tensors

ROOT = Path(__file__).parents[1]
COMMON = "--no-cuda --no-compile --eval-episodes 1 --log-interval 50 --torch-threads 1"
OFF_POLICY = f"{COMMON} --learning-starts 200 --batch-size 32 --checkpoint-interval 300 --eval-interval 700"
ON_POLICY = f"{COMMON} --num-envs 3 --num-steps 64 --update-epochs 4 --num-minibatches 4 --checkpoint-interval 900"
ON_POLICY += " --eval-interval 5000 --total-timesteps 19200"
RUNS = {
    "dqn": f"{OFF_POLICY} --env-id CartPole-v1 --total-timesteps 4000 --train-interval 2 --target-update-interval 100",
    "ddqn": f"{OFF_POLICY} --env-id Acrobot-v1 --total-timesteps 4000 --train-interval 2 --target-update-interval 100",
    "ddpg": f"{OFF_POLICY} --env-id Pendulum-v1 --total-timesteps 2400",
    "td3": f"{OFF_POLICY} --env-id Hopper-v5 --total-timesteps 2400",
    "sac_continuous": f"{OFF_POLICY} --env-id Pendulum-v1 --total-timesteps 1800",
    "ppo_discrete": f"{ON_POLICY} --env-id CartPole-v1",
    "ppo_continuous": f"{ON_POLICY} --env-id Pendulum-v1",
}
SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"]
STOPPED = [129, 130, 143, *(-signal.Signals[name] for name in [*SIGNALS, "SIGKILL"])]  # exit statuses
DISK = [1, 2, 120]
OTHERS = ["kill -9", "full disk", "read-only disk", "second process", "flipped bit"]


class Lost(Exception):
    """A run that is not what it should be."""


class Attacked:
    """A run in a folder of its own, as a process, that is started again until it has finished."""

    def __init__(self, script: str, cwd: Path):
        cwd.mkdir(parents=True)
        self.script, self.cwd, self.num_starts = script, cwd, 0
        self.variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

    @property
    def folder(self) -> Path | None:
        folders = [path.parent for path in self.cwd.glob("runs/*/checkpoint.pt")]
        return folders[0] if folders else None

    def start(self, folder: Path | None = None) -> Forked:
        """From its beginning, or from the checkpoint in a folder."""
        if folder is None:
            shutil.rmtree(self.cwd / "runs", ignore_errors=True)  # killed before its first checkpoint
        flags = ["--resume", str(folder)] if folder else RUNS[self.script].split()
        self.num_starts += 1
        out, err = (self.cwd / f"{self.num_starts}.{name}" for name in ("out", "err"))
        return Forked(ROOT / f"{self.script}.py", flags, self.cwd, self.variables, out, err)

    def said(self, name: str = "") -> str:
        return "".join(path.read_text() for path in sorted(self.cwd.glob(f"*.{name or '[oe]*'}")))


def make_read_only(folder: Path, read_only: bool) -> None:
    if os.geteuid() == 0:
        subprocess.run(["chattr", "-R", "+i" if read_only else "-i", str(folder)], check=True)
    else:
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if read_only else 0o755)


def attack(kind: str, run: Attacked, process: Forked, rng: random.Random) -> None:
    if kind == "kill -9":
        process.kill()
    elif kind in SIGNALS:
        process.send_signal(signal.Signals[kind])
    elif kind == "full disk":
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        time.sleep(rng.uniform(0.5, 3))
        if process.poll() is None:
            resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    elif kind == "read-only disk":
        make_read_only(run.folder, True)
        time.sleep(rng.uniform(0.5, 3))
        make_read_only(run.folder, False)
    elif kind == "second process":
        second = run.start(run.folder)
        status, said = second.wait(120), (run.cwd / f"{run.num_starts}.err").read_text()
        if status == 2 and "is in use by process" in said and said.count("\n") == 1:
            return
        if process.poll() is None or status != 0:  # else the first has finished, and the second found nothing to do
            raise Lost(f"the second process ended with {status}: {said}")
    else:
        copy = shutil.copytree(run.folder, run.cwd / "copies" / run.folder.name, dirs_exist_ok=True)
        data = bytearray((copy / "checkpoint.pt").read_bytes())
        bit = rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        (copy / "checkpoint.pt").write_bytes(data)
        resumed = run.start(copy)
        status, said = resumed.wait(300), (run.cwd / f"{run.num_starts}.err").read_text()
        if status == 0:  # the bit means nothing: padding, say
            compare(run.script, run.cwd.parent, copy, allow_missing=False)
        elif status != 2 or "checkpoint.pt" not in said or said.count("\n") != 1:
            raise Lost(f"after a flipped bit status {status}: {said}")


def compare(script: str, tmp: Path, folder: Path, allow_missing: bool) -> None:
    """With the run of this script that was left alone."""
    [alone] = (tmp / f"{script} alone" / "runs").iterdir()
    states = [tensors(torch.load(path / "agent.pt", weights_only=True)["agent"]) for path in (alone, folder)]
    if states[0].keys() != states[1].keys():
        raise Lost("its agent has other parts")
    for name, value in states[0].items():
        if not torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][name])):
            raise Lost(f"{name} of its agent differs")
    expected, found = scalars(alone), scalars(folder)
    for tag in expected.keys() | found.keys():
        one, other = expected.get(tag, {}), found.get(tag, {})
        wrong = {step for step in other if other[step] != one.get(step)}
        missing = one.keys() - other.keys()
        if wrong or (missing and not allow_missing):
            raise Lost(f"{tag} differs at {sorted(wrong)}, lacks {sorted(missing)}")


def soak(script: str, tmp: Path, number: int, deadline: float, rng: random.Random, attacks: collections.Counter) -> str:
    """One run and its attacks; returns how it ended."""
    run = Attacked(script, tmp / f"{number} {script}")
    kinds = OTHERS if rng.random() < 0.6 else SIGNALS + OTHERS
    disk = False  # whether it has been without one; what it said about that may have been lost with it
    process = run.start()
    while True:
        pause = time.monotonic() + rng.uniform(0.2, 4)
        while process.poll() is None and time.monotonic() < pause:
            time.sleep(0.02)
        status = process.poll()
        if status is None and time.monotonic() < deadline:
            kind = rng.choice(kinds)
            if run.folder is None and kind not in ("kill -9", "full disk"):
                continue
            attack(kind, run, process, rng)
            attacks[kind] += 1
            disk = disk or kind in ("full disk", "read-only disk")
        elif status is None:
            process.wait(300)
        elif status == 0:
            break
        elif status not in STOPPED + DISK * disk:
            raise Lost(f"it ended with {status}")
        else:
            process = run.start(run.folder)
    if "Traceback" in run.said("err") and not disk:
        raise Lost("there is a traceback")
    steps = torch.load(run.folder / "checkpoint.pt", weights_only=True)["step"]
    total = torch.load(next((tmp / f"{script} alone").glob("runs/*/checkpoint.pt")), weights_only=True)["step"]
    if steps != total:
        raise Lost(f"it ended at step {steps} of {total}")
    if "stopped at step" in run.said():  # by a signal, and it said so
        curves = [scalars(path) for path in (next((tmp / f"{script} alone" / "runs").iterdir()), run.folder)]
        one, other = (len(next(values for tag, values in curve.items() if "loss" in tag)) for curve in curves)
        if other < one - 1 and not disk:
            raise Lost(f"its curves have {other} points for {one}")
        return "complete, with new episodes where it was stopped"
    compare(script, tmp, run.folder, allow_missing=disk)
    shutil.rmtree(run.cwd)
    return "bit-identical" + (", but for scalars that a disk did not take" if disk else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tmp, start = Path(tempfile.mkdtemp(prefix="soak-")), time.monotonic()
    deadline, attacks, endings, lost = start + 60 * args.minutes, collections.Counter(), collections.Counter(), []
    numbers = iter(range(10**6))

    def alone(scripts: list[str]) -> None:
        for script in scripts:
            run = Attacked(script, tmp / f"{script} alone")
            if run.start().wait(600) != 0:
                lost.append(f"{script} alone: {run.said()}")

    def work(seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < deadline and not lost:
            number, script = next(numbers), rng.choice(list(RUNS))
            try:
                endings[soak(script, tmp, number, deadline, rng, attacks)] += 1
            except Exception as error:
                lost.append(f"{tmp}/{number} {script}: {type(error).__name__}: {error}")

    for target, arguments in ((alone, [list(RUNS)[:4], list(RUNS)[4:]]), (work, [2 * args.seed, 2 * args.seed + 1])):
        threads = [threading.Thread(target=target, args=(argument,)) for argument in arguments]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{time.monotonic() - start:.0f} s", flush=True)
    for title, counts in {"attacks": attacks, "runs": endings}.items():
        print(f"{sum(counts.values())} {title}")
        for name, count in sorted(counts.items()):
            print(f"  {count:3} {name}")
    print("\n".join(lost) if lost else "nothing lost")
    if not lost:
        shutil.rmtree(tmp)
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
