"""The command line: what it takes, and what it refuses in one line, before anything is written.

--help, and what only a process of its own can show, is in test_runs.py, with the runs.
"""

import importlib
import re
import sys

import pytest
import test_runs
import torch
from test_runs import ENV, SHORT, WRONG, assert_refused, odd_run

script, module = test_runs.script, test_runs.module  # fixtures
main, main_of, nothing_odd = test_runs.main, test_runs.main_of, test_runs.nothing_odd


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
        ("--seed inf", "--seed"),
        ("--seed 1/0", "--seed"),
        ("--seed", "--seed"),
        ("stray", "stray"),
        ("--total-timestep 1000", "--total-timestep"),
        ("--total-timesteps 0", "--total-timesteps"),
        ("--batch-size 0", "--batch-size"),
        ("--buffer-size 0", "--buffer-size"),
        ("--log-interval 0", "--log-interval"),
        ("--eval-interval -1", "--eval-interval"),
        (f"{SHORT} --eval-episodes 0", "--eval-episodes"),
        ("--checkpoint-interval -5", "--checkpoint-interval"),
        ("--gamma 2", "--gamma"),
        ("--gamma nan", "--gamma"),
        ("--tau 0", "--tau"),
        ("--total-timesteps 500 --learning-starts 500", "--learning-starts"),
        ("--train-interval 7", "--log-interval"),
        ("--buffer-size 1e12 --total-timesteps 1e13", "--buffer-size"),
        ("--resume nowhere", "nowhere"),
        ("--evaluate nowhere", "nowhere"),
        ("--resume nowhere --seed 3", "nowhere"),
        ("--resume nowhere --evaluate nowhere", "nowhere"),
        pytest.param(
            "--cudagraphs", "--cudagraphs", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
        ),
    ],
)
def test_refused(script, main, tmp_path, flags, word):
    """Wrong input is refused with status 2 and one line that names it, and nothing is created."""
    env = "" if "--env-id" in flags or "--resume" in flags or "--evaluate" in flags else f"--env-id {ENV[script]} "
    assert_refused(main(env + flags), word)
    assert list(tmp_path.iterdir()) == []


def test_mistyped_flag(main):
    """The line about a flag that is almost right has the right one."""
    assert_refused(main("--total-timestep 1000"), "Perhaps you meant", "--total-timesteps")
    assert_refused(main("--learning-start 1000"), "Perhaps you meant", "--learning-starts")


def test_refused_by_the_algorithm(script, main, tmp_path):
    """So are the contradictions among the algorithm's own arguments."""
    for flags, word in WRONG[script]:  # in brief, if it is not refused
        brief = "--total-timesteps 300 --learning-starts 100"
        assert_refused(main(f"--env-id {ENV[script]} {brief} {flags}"), word)
    assert list(tmp_path.iterdir()) == []


def test_refused_unbounded(main, tmp_path):
    """An action space without bounds is refused."""
    assert_refused(main("--env-id odd_envs:Odd/Unbounded-v0"), "odd_envs:Odd/Unbounded-v0", "unbounded")
    assert list(tmp_path.iterdir()) == []


def test_refused_out_dir(script, main, tmp_path):
    """An out_dir in which no folder can be made is refused."""
    (tmp_path / "file").write_text("")
    assert_refused(main(f"--env-id {ENV[script]} {SHORT} --out-dir file"), "file")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("one, other", [("dqn", "ddqn"), ("td3", "sac_continuous"), ("ppo_discrete", "ppo_continuous")])
def test_refused_run_of_another_script(main_of, tmp_path, one, other):
    """By the names of the file and of the script, also where their arguments are the same; and nothing is changed."""
    folder = odd_run(one, tmp_path / "runs", total_timesteps=60)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert_refused(main_of(other, f"--resume {folder}"), f"{folder}/checkpoint.pt", f"{one}.py")
    assert_refused(main_of(other, f"--evaluate {folder}"), f"{folder}/agent.pt", f"{one}.py")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert main_of(one, f"--resume {folder}").status == main_of(one, f"--evaluate {folder}").status == 0


@pytest.mark.parametrize(
    "flags, name, value",
    [
        (["--total-timesteps", "1e3"], "total_timesteps", 1000),
        (["--total-timesteps", "1_000"], "total_timesteps", 1000),
        (["--total-timesteps", "1000"], "total_timesteps", 1000),
        (["--total-timesteps", "1.5e6"], "total_timesteps", 1_500_000),
        (["--total-timesteps", "2.5e4"], "total_timesteps", 25_000),
        (["--total-timesteps=1e3"], "total_timesteps", 1000),
        (["--total_timesteps", "1e3"], "total_timesteps", 1000),
        (["--seed", "9007199254740993"], "seed", 2**53 + 1),  # which is no float
        (["--out-dir", "1e3"], "out_dir", "1e3"),  # text stays what it is
        (["--out-dir=lr=1e3"], "out_dir", "lr=1e3"),
        (["--gamma", "9.9e-1"], "gamma", 0.99),
        (["--tau", "1.5e0"], "tau", 1.5),  # a number, though not a good one: no digit gets lost
    ],
)
def test_numbers(module, monkeypatch, flags, name, value):
    """Integers may be written 1e3 and 1_000, and the fractions of other numbers stay."""
    monkeypatch.setattr(sys, "argv", ["script", *flags])
    found = getattr(module.parse_args(), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("name", test_runs.ALL)
def test_evaluation_has_threads_and_episodes_of_its_own(main_of, tmp_path, name):
    folder = odd_run(name, tmp_path / "runs", total_timesteps=60)
    before = torch.get_num_threads()
    try:
        outcome = main_of(name, f"--evaluate {folder} --eval-episodes 3 --torch-threads 2 --no-cuda")
        assert outcome.status == 0 and "of 3 episodes" in outcome.out and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", test_runs.ALL)
def test_refused_actions_name_a_script_that_takes_them(main_of, name):
    env_id = "Pendulum-v1" if name in ("dqn", "ddqn", "ppo_discrete") else "CartPole-v1"
    outcome = main_of(name, f"--env-id {env_id}")
    assert_refused(outcome, env_id)
    [other] = re.findall(r"(\w+)\.py\)", outcome.err)
    importlib.import_module(other).make_env(env_id)
