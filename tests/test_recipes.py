"""The recipes, run as they stand in RECIPES.md, but for shorter where nothing has to be learned."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_conventions import args_fields

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "RECIPES.md").read_text("utf-8")


def blocks(heading: str, language: str) -> list[str]:
    [section] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", TEXT, re.S | re.M)
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", section, re.S | re.M)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(command) beside the scripts, with what the test has put into tmp_path on the path; its output."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(command: str) -> str:
        words = shlex.split(command)  # .venv/bin/python program ...
        script = ROOT / words[1] if (ROOT / words[1]).exists() else tmp_path / words[1]
        result = subprocess.run([sys.executable, script, *words[2:]], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return call


@pytest.mark.commands
def test_own_environment_and_its_policy_without_pytorch(run, tmp_path):
    """The point comes closer to 0 than a random one, and onnxruntime acts as the agent does."""
    plain, flattened = blocks("Your own environment", "python")
    (tmp_path / "my_task.py").write_text(plain)
    (tmp_path / "my_dict_task.py").write_text(flattened)
    first, second = blocks("Your own environment", "bash")
    out = run(first.replace("2_000", "900"))
    assert float(re.findall(r"evaluation (-?[\d.]+)", out)[-1]) > -15  # 50 steps at a distance of 0.5: -25
    assert "no time limit" not in out
    run(second.replace("4_096", "2_048"))
    [folder] = (tmp_path / "runs").glob("*sac_continuous*")
    export, load = blocks("A policy without PyTorch", "python")
    (tmp_path / "export.py").write_text(export)
    run(blocks("A policy without PyTorch", "bash")[0].replace("RUN_DIR", str(folder)))
    (tmp_path / "act.py").write_text(load)
    action = float(run("python act.py").strip("[] \n"))
    check = "import sys, torch, numpy as np, sac_continuous as s\nsaved = torch.load(sys.argv[1] + '/agent.pt')\n"
    check += "env = s.make_env('my_task:Reach-v0')\n"
    check += "agent = s.Agent(env.observation_space, env.action_space, s.Args(**saved['args']))\n"
    check += "agent.load_state_dict(saved['agent'])\nprint(agent.act(np.zeros(1, np.float32), explore=False)[0])\n"
    (tmp_path / "check.py").write_text(check)
    assert float(run(f"python check.py {folder}")) == pytest.approx(action, abs=1e-5)


@pytest.mark.commands
def test_swanlab(run, tmp_path):
    """Begins before the run's writer is made, and ends after it."""
    (tmp_path / "swanlab.py").write_text(
        "from torch.utils import tensorboard as tb\nlog = open('calls.txt', 'w')\n"
        "def init(**options): print('init', options['project'], file=log)\n"
        "def sync_tensorboard_torch():\n    add = tb.SummaryWriter.add_scalar\n"
        "    def both(writer, tag, *args, **options):\n        print(tag, file=log)\n"
        "        add(writer, tag, *args, **options)\n    tb.SummaryWriter.add_scalar = both\n"
        "def finish(): log.close()\n"
    )
    [code] = blocks("SwanLab", "python")
    (tmp_path / "recipe.py").write_text(code.replace("1_500", "1_010").replace("starts=500", "starts=990"))
    run("python recipe.py")
    calls = (tmp_path / "calls.txt").read_text().split("\n")
    assert calls[0] == "init plainrl" and {"charts/episodic_return", "losses/critic_loss"} <= set(calls)


def test_sweep_names_arguments_that_exist():
    sweep = yaml.safe_load(blocks("Many runs: a sweep of Weights & Biases", "yaml")[0])
    script = sweep["program"].removesuffix(".py")
    known = {"--" + field.target.id.replace("_", "-") for field in args_fields(script)}
    used = {f"--{name}" for name in sweep["parameters"]} | {w for w in sweep["command"] if w.startswith("--")}
    assert used <= known and sweep["command"][-1] == "${args}"
    assert sweep["metric"]["name"] == "eval/episodic_return"


@pytest.mark.commands
def test_optuna(run, tmp_path):
    """A stand-in asks for two trials; each value is the mean of two runs' last evaluations."""
    (tmp_path / "optuna.py").write_text(
        "class Trial:\n    def suggest_float(self, name, low, high, log): return (low * high) ** 0.5\n"
        "class Study:\n    best_params = {'critic_lr': 1e-3}\n"
        "    def optimize(self, objective, n_trials): print('value', objective(Trial()))\n"
        "def create_study(**options): return Study()\n"
    )
    code = blocks("Many runs: Optuna", "python")[0].replace("1_500", "550")
    (tmp_path / "study.py").write_text(code.replace('"sac_continuous.py ', f'"{ROOT}/sac_continuous.py '))
    out = run("python study.py")
    value = float(re.search(r"value (\S+)", out)[1])
    assert -2000 < value < 0 and np.isfinite(value)
    assert len(list((tmp_path / "runs" / "optuna").iterdir())) == 2
