"""Every command of the READMEs and the recipes, run as it stands, but for shorter; or it says here where it is run.

The Chinese README has the same commands (test_conventions.py), the recipes' own are run in test_recipes.py.
"""

import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BRIEF = {"--total-timesteps": "384", "--learning-starts": "320", "--buffer-size": "600", "--epsilon-duration": "500"}
MORE = {"sac_continuous": " --learning-starts 320 --no-compile", "ppo_discrete": " --num-steps 16"}
FIRST = ".venv/bin/python sac_continuous.py --env-id Pendulum-v1 --total-timesteps 10_000 --learning-starts 1_000 "
FIRST += "--no-compile"
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt"
ELSEWHERE = {
    SET_UP: ".ci/run",
    f"{SET_UP} && .venv/bin/python -m pytest": ".ci/run",
    ".venv/bin/python benchmark/plot.py runs/*": "test_plot_groups_runs_by_what_they_learn_with",
    ".venv/bin/python tests/mutants.py": "test_every_seeded_mistake_has_its_place",  # itself it takes hours
    "uv run sac_continuous.py": "test_metadata_agrees_with_requirements",
    # of the recipes
    ".venv/bin/python sac_continuous.py --env-id my_task:Reach-v0 --total-timesteps 2_000 --learning-starts 500 "
    "--no-compile": "test_own_environment_and_its_policy_without_pytorch",
    ".venv/bin/python ppo_continuous.py --env-id my_dict_task:NamedReach-v0 --total-timesteps 4_096": (
        "test_own_environment_and_its_policy_without_pytorch"
    ),
    ".venv/bin/python export.py RUN_DIR": "test_own_environment_and_its_policy_without_pytorch",
    "wandb sweep --project plainrl sweep.yaml": "test_sweep_names_arguments_that_exist",  # itself it needs an account
}
NOT_RUN = {  # they need PyTorch's own index, uv, or Xcode
    ".venv/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu",
    ".venv/bin/pip install -r requirements.txt",
    "uv pip install --torch-backend cpu -r requirements.txt",
    "xcode-select --install",
}


def commands(name: str) -> list[str]:
    """The lines of its bash blocks, and what is code in its text and begins as a command does."""
    text = (ROOT / name).read_text("utf-8")
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text, re.S | re.M)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M)
    lines += re.findall(r"`((?:\.venv/bin/|git diff|uv |xcode-select)[^`]*)`", outside)
    return [" ".join(line.split(" #")[0].split()) for line in lines]


README = commands("README.md")
TRAINING = [c for c in README if re.search(r"(?:^|&& )\.venv/bin/python \w+\.py (?!--evaluate|--resume)", c)]
DIFFS = [c for c in README if c.startswith("git diff")]
IN_A_FOLDER = [c for c in README if "RUN_DIR" in c or "tensorboard" in c]
SOAK = ".venv/bin/python tests/soak.py"


def run(command: str, folder: Path) -> str:
    """In a folder that is not the repository's, so that runs/ is there; its output."""
    program, *flags = shlex.split(command.removeprefix(f"{SET_UP} && ").removeprefix(".venv/bin/python "))
    result = subprocess.run(
        [sys.executable, str(ROOT / program), *flags], cwd=folder, capture_output=True, text=True, encoding="utf-8"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def brief(command: str) -> str:
    """With other values of what makes it long; the last of two values is the one that counts."""
    for flag, value in BRIEF.items():
        command = re.sub(rf"{flag} \S+", f"{flag} {value}", command)
    for script, more in MORE.items():
        command += more if f"{script}.py" in command else ""
    return f"{command} --total-timesteps 384 --eval-episodes 1"


def test_no_command_is_forgotten():
    found = {*README, *commands("RECIPES.md")}
    assert found == {*TRAINING, *DIFFS, *IN_A_FOLDER, SOAK, *ELSEWHERE, *NOT_RUN}
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for where in set(ELSEWHERE.values()) - {".ci/run"}:
        assert f"\ndef {where}(" in tests, where


def test_continuous_integration_runs_the_readme():
    """Its set-up is that of every command, and it takes the command of the tests out of the README."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    [pattern] = re.findall(r"grep -m 1 -E '(.*?)' README.md", script)
    [command] = [line for line in README if re.search(pattern, line)]
    assert command == f"{SET_UP} && .venv/bin/python -m pytest" and '\neval "$command"\n' in script


@pytest.mark.commands
@pytest.mark.parametrize("command", TRAINING)
def test_training(tmp_path, command):
    """To the end, with updates and an evaluation."""
    out = run(brief(command), tmp_path)
    assert re.search(r"^step [\d,]+: evaluation -?[\d.]+", out, re.M) and "finished at step" in out


@pytest.mark.slow
def test_first_command_as_it_stands(tmp_path):
    """A return of -150 or better is a pendulum that stands, says the README; some of ten episodes begin low."""
    out = run(FIRST, tmp_path)
    assert float(re.findall(r"last evaluation (-?[\d.]+)", out)[0]) > -200


@pytest.mark.commands
def test_watch_play_resume_and_copy(tmp_path):
    """What the README does with a run: TensorBoard finds it, it plays, it goes on, its agent acts in other code."""
    assert FIRST in TRAINING
    run(brief(FIRST), tmp_path)
    [folder] = (tmp_path / "runs").iterdir()
    [watch] = [c for c in IN_A_FOLDER if "tensorboard" in c]
    [play] = [c for c in IN_A_FOLDER if "--evaluate" in c]
    [resume] = [c for c in IN_A_FOLDER if "--resume" in c]
    for command, said in ((play, "mean ± std of 10 episodes"), (resume + " --total-timesteps 400", "from step 384")):
        assert said in run(command.replace("SCRIPT.py", "sac_continuous.py").replace("RUN_DIR", str(folder)), tmp_path)
    [block] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.S | re.M)
    code = block.replace("RUN_DIR", str(folder)) + "print(action.shape, abs(action) <= 1)\n"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "(1,) [ True]\n", result.stderr
    words = [sys.executable, "-m", "tensorboard.main", *watch.split()[1:], "--port", "0"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            [address] = next(filter(None, (re.findall(r"http://\S+", line) for line in server.stdout)))
            deadline, runs = time.monotonic() + 60, "[]"
            while folder.name not in runs and time.monotonic() < deadline:
                runs = urllib.request.urlopen(f"{address}data/runs").read().decode()
                time.sleep(0.2)
            assert folder.name in runs
        finally:
            server.kill()


@pytest.mark.parametrize("command", DIFFS)
def test_diffs(command):
    """They end with 1 where there is a difference, and show both files."""
    result = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    one, other = command.split()[-2:]
    assert result.returncode == 1 and f"--- a/{one}\n+++ b/{other}" in result.stdout


@pytest.mark.slow
def test_soak(tmp_path):
    subprocess.run([sys.executable, ROOT / "tests" / "soak.py", "--minutes", "0.5"], cwd=tmp_path, check=True)
