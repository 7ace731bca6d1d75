"""Starts scripts as processes, forked from one that has imported PyTorch already: each begins three seconds earlier.

Such a process has a command line, variables, standard output and error of its own, ends with an exit status, and can be
killed, as one that was started by a shell.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["torch.utils.tensorboard", "gymnasium.vector", "gymnasium.wrappers", "tyro", "tqdm"])
lock = threading.Lock()  # multiprocessing is not made for several threads


def enter(path: str, flags: list[str], cwd: str, variables: dict[str, str], out: str, err: str) -> None:
    """In the new process: what a shell does, and then the script."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    for number, name in ((1, out), (2, err)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    multiprocessing.set_start_method(None, force=True)  # what a process of multiprocessing's inherits
    sys.path[:0] = [str(ROOT), *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [path, *flags]
    runpy.run_path(path, run_name="__main__")


class Forked:
    """A process with the methods of subprocess.Popen that the tests use. out, err: files, which it appends to."""

    def __init__(self, path: Path, flags: list[str], cwd: Path, variables: dict[str, str], out: Path, err: Path):
        arguments = (str(path), flags, str(cwd), variables, str(out), str(err))
        self.process = context.Process(target=enter, args=arguments)
        with lock:
            self.process.start()

    def poll(self) -> int | None:
        with lock:
            return self.process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"a run took more than {timeout} s")
            time.sleep(0.005)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
