"""benchmark/run.py on a Ray cluster that loses a machine. On demand, with ray installed: pytest -m cluster -s"""

import re
import subprocess
import sys
import time
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


@pytest.mark.cluster
def test_runs_of_a_lost_machine_go_on_elsewhere(tmp_path):
    """Three machines with a core each, four runs; one machine is killed while it works."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    (tmp_path / "grid.toml").write_text(GRID)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        victim, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
        command = [sys.executable, str(ROOT / "benchmark" / "run.py"), "--ray", cluster.address, "--progress", "5"]
        for option, name in {"experiments": "grid.toml", "runs": "runs", "results": "results"}.items():
            command += [f"--{option}", str(tmp_path / name)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        runs = tmp_path / "runs" / "ppo_continuous"
        deadline = time.monotonic() + 240
        while len(list(runs.glob("*/*/*/checkpoint.pt"))) < 3:
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
            time.sleep(0.2)
        print("three runs have checkpoints: one machine is killed")
        cluster.remove_node(victim, allow_graceful=False)
        output = process.communicate(timeout=400)[0]
    finally:
        cluster.shutdown()
    ours = re.findall(
        r"^(?:\S+/\d+: |\d+ ).*$|Task run_there failed.*?retried\.", output.replace(f"{tmp_path}/", ""), re.M
    )
    print(*ours, sep="\n")
    assert process.returncode == 0, output
    assert len(list((tmp_path / "results").glob("*/*/*.csv"))) == 4
    starts = [re.findall(r"from step ([\d,]+) on", log.read_text()) for log in sorted(runs.glob("*/*/log.txt"))]
    print("each run's processes began at step", starts)
    assert all(begun[0] == "0" and "0" not in begun[1:] for begun in starts)
    assert sum(len(begun) > 1 for begun in starts) == 1
