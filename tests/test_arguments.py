"""Every argument of every script does something: with another value of it the trained agent is another one.

What exactly it does is computed in the tests of the agents, the loops and the runs; here none is forgotten.
"""

import dataclasses
import functools
import importlib
import tempfile

import pytest
import test_runs
import torch
from test_runs import ALL, odd_args

nothing_odd = test_runs.nothing_odd  # fixture

# Arguments of the run, which have nothing to do with what is learned: BEHAVIOURS.md has their tests.
OF_THE_RUN = {"env_id", "total_timesteps", "cuda", "torch_threads", "compile", "cudagraphs", "track", "wandb_project"}
OF_THE_RUN |= {"wandb_entity", "capture_video", "log_interval", "eval_interval", "eval_episodes"}
OF_THE_RUN |= {"checkpoint_interval", "resume", "evaluate", "out_dir"}
# Arguments of the algorithm: another value, and what else both runs are given so that it matters.
LEARNED, SCHEDULED = {"ent_autotune": True, "ent_coef": 0.1}, {"ent_coef_schedule": "linear", "ent_coef_end": 0.001}
OTHER = {
    "seed": (2, {}),
    "gamma": (0.5, {}),
    "tau": (0.3, {}),
    "batch_size": (4, {}),
    "buffer_size": (20, {}),
    "learning_starts": (60, {}),
    "train_interval": (2, {}),
    "gradient_steps": (2, {}),
    "learning_rate": (0.01, {}),
    "actor_lr": (0.01, {}),
    "critic_lr": (0.01, {}),
    "alpha_lr": (0.01, {}),
    "target_update_interval": (20, {}),
    "epsilon_start": (0.3, {}),
    "epsilon_end": (0.9, {}),
    "epsilon_schedule": ("exponential", {}),
    "epsilon_duration": (10_000, {}),
    "epsilon_decay": (0.5, {"epsilon_schedule": "exponential"}),
    "exploration_noise": (0.5, {}),
    "noise_process": ("ou", {}),
    "target_noise": (0.6, {}),
    "noise_clip": (0.01, {}),
    "policy_delay": (3, {}),
    "actor_objective": ("min", {}),
    "autotune": (False, {}),
    "alpha": (0.5, {}),
    "num_envs": (4, {}),
    "num_steps": (20, {}),
    "num_minibatches": (4, {}),
    "update_epochs": (2, {}),
    "anneal_lr": (True, {}),
    "gae_lambda": (0.3, {}),
    "clip_coef": (0.001, {"update_epochs": 4, "learning_rate": 0.01}),
    "vf_coef": (0.1, {}),
    "max_grad_norm": (0.01, {}),
    "target_kl": (1e-6, {"update_epochs": 4, "learning_rate": 0.01}),
    "norm_adv": (False, {}),
    "ent_coef": (0.2, {}),
    "ent_coef_schedule": ("exponential", SCHEDULED | {"ent_coef": 0.1, "ent_coef_duration": 200}),
    "ent_coef_end": (0.05, SCHEDULED | {"ent_coef": 0.1, "ent_coef_duration": 200}),
    "ent_coef_duration": (50, SCHEDULED | {"ent_coef": 0.1, "ent_coef_duration": 200}),
    "ent_autotune": (True, {"ent_coef": 0.1}),
    "ent_coef_lr": (0.1, LEARNED),
    "target_entropy": (0.9, LEARNED),
    "target_entropy_end": (
        0.1,
        LEARNED | {"target_entropy": 0.9, "target_entropy_end": 0.8, "target_entropy_duration": 100},
    ),
    "target_entropy_duration": (
        20,
        LEARNED | {"target_entropy": 0.9, "target_entropy_end": 0.1, "target_entropy_duration": 150},
    ),
    "std": ("head", {}),
    "norm_obs": (False, {}),
    "norm_reward": (False, {}),
}
ARGUMENTS = {
    script: [field.name for field in dataclasses.fields(importlib.import_module(script).Args)] for script in ALL
}


@functools.cache
def trained(script: str, arguments: tuple) -> dict[str, torch.Tensor]:
    """The agent's state after 100 steps."""
    module = importlib.import_module(script)
    with tempfile.TemporaryDirectory() as folder:
        args = odd_args(script, total_timesteps=100, checkpoint_interval=0, **dict(arguments))
        return module.train(module.Args(**args, out_dir=folder)).state_dict()


@pytest.mark.parametrize("script", ALL)
def test_no_argument_is_forgotten(script):
    assert set(ARGUMENTS[script]) <= OF_THE_RUN | OTHER.keys()


@pytest.mark.parametrize(
    "script, name", [(script, name) for script in ALL for name in ARGUMENTS[script] if name in OTHER]
)
def test_another_value_gives_another_agent(script, name):
    value, both = OTHER[name]
    known = {key: given for key, given in both.items() if key in ARGUMENTS[script]}  # SAC has no ent_coef
    one, other = (trained(script, tuple((known | change).items())) for change in ({}, {name: value}))
    assert any(
        key not in other or tensor.shape != other[key].shape or not torch.equal(tensor, other[key])
        for key, tensor in one.items()
        if key not in ("optimizer.lr", "target_entropy_end", "target_entropy_start")  # which need not have been used
    )


@pytest.mark.parametrize("script", ALL)
def test_intervals_are_those_that_are_given(tmp_path, script):
    """In 200 steps: losses every 40 or 100, evaluations every 60 or 100, in PPO at the next end of a rollout of 20."""
    for number, (log_interval, eval_interval) in enumerate([(40, 60), (100, 100)]):
        folder = test_runs.odd_run(
            script, tmp_path / str(number), log_interval=log_interval, eval_interval=eval_interval
        )
        logged = test_runs.scalars(folder)
        first = 80 if log_interval == 40 and script not in test_runs.PPO else log_interval
        losses = "losses/value_loss" if script in test_runs.PPO else "losses/q"
        assert list(logged[losses]) == list(range(first, 201, log_interval))
        assert list(logged["eval/episodic_return"]) == sorted({*range(eval_interval, 201, eval_interval), 200})


@pytest.mark.parametrize("script", ALL)
def test_torch_threads_are_those_that_are_given(script):
    """They are set before anything is computed; a training in several threads would only take time."""
    module, before = importlib.import_module(script), torch.get_num_threads()
    for number in (2, 1):
        run = module.Run(module.Args(**odd_args(script, torch_threads=number)))
        assert torch.get_num_threads() == number
        run.env.close()
    torch.set_num_threads(before)
