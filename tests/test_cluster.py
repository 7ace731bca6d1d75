"""benchmark/run.py on a Ray cluster that loses a machine. On demand, with ray installed: pytest -m cluster -s"""

import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GRID = """
[[experiments]]
script = "ppo_continuous"
environments = ["Pendulum-v1", "MountainCarContinuous-v0"]
seeds = 2
arguments = { total_timesteps = 81_920, checkpoint_interval = 4_096, eval_interval = 8_192, eval_episodes = 1 }
"""


@pytest.fixture
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


def start(cluster, folder: Path, experiments: str) -> subprocess.Popen:
    (folder / "grid.toml").write_text(experiments)
    command = [sys.executable, str(ROOT / "benchmark" / "run.py"), "--ray", cluster.address, "--progress", "5"]
    for option, name in {"experiments": "grid.toml", "runs": "runs", "results": "results"}.items():
        command += [f"--{option}", str(folder / name)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(process: subprocess.Popen, runs: Path, number: int, steps: int) -> None:
    """So many runs have an evaluation at so many steps."""
    deadline = time.monotonic() + 300
    while sum(last_evaluation(log) >= steps for log in runs.glob("*/*/log.txt")) < number:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.2)


def last_evaluation(log: Path) -> int:
    steps = re.findall(r"^step ([\d,]+): evaluation", log.read_text(), re.M)
    return int(steps[-1].replace(",", "")) if steps else 0


@pytest.mark.cluster
def test_runs_of_a_lost_machine_go_on_elsewhere(cluster, tmp_path):
    """Three machines with a core each, four runs; one machine is killed while it works."""
    victim, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
    names = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch"))
    print(f"\nthree machines of a Ray cluster with a core each, {names}; the grid:{GRID}")
    print("$ python benchmark/run.py --ray ADDRESS --experiments grid.toml --progress 5")
    process, runs = start(cluster, tmp_path, GRID), tmp_path / "runs" / "ppo_continuous"
    wait_until(process, runs, 3, 24_576)
    print("(three runs have come to step 24,576 at least: one machine is killed; all that was said from the start on:)")
    cluster.remove_node(victim, allow_graceful=False)
    output = process.communicate(timeout=400)[0]
    ours = re.findall(
        r"^(?:\S+/\d+: |\d+ ).*$|Task run_there failed.*?retried\.", output.replace(f"{tmp_path}/", ""), re.M
    )
    print(*ours, sep="\n")
    assert process.returncode == 0, output
    assert len(list((tmp_path / "results").glob("*/*/*.csv"))) == 4
    starts = [re.findall(r"from step ([\d,]+) on", log.read_text()) for log in sorted(runs.glob("*/*/log.txt"))]
    print("each run's processes began at step", starts)
    assert all(begun[0] == "0" and "0" not in begun[1:] for begun in starts)
    (resumed,) = (begun for begun in starts if len(begun) > 1)
    assert int(resumed[1].replace(",", "")) >= 24_576


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_grid_has_checkpoints_of_its_end(cluster, tmp_path, number):
    process, runs = start(cluster, tmp_path, GRID.replace("81_920", "8_192_000")), tmp_path / "runs" / "ppo_continuous"
    wait_until(process, runs, 1, 8_192)
    stopped = time.time()
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGINT and "0 finished, 0 failed, 4 left" in output, output
    assert max(path.stat().st_mtime for path in runs.glob("*/*/*/checkpoint.pt")) > stopped
