"""On a GPU: PPO's captured update is the plain one, and each script trains, captured, from start to end."""

import importlib
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import apart

pytestmark = pytest.mark.cuda
PPO = {"ppo_discrete": gym.spaces.Discrete(3), "ppo_continuous": gym.spaces.Box(-1, 1, (2,))}
OFF_POLICY = dict.fromkeys(["dqn", "ddqn"], "CartPole-v1") | dict.fromkeys(
    ["ddpg", "td3", "sac_continuous"], "Pendulum-v1"
)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("script", PPO)
def test_captured_update_of_ppo_learns_the_same(script, compile, capsys):
    module, results = importlib.import_module(script), []
    for capture in (False, True):
        torch.manual_seed(0)
        args = module.Args(num_envs=2, num_steps=16, num_minibatches=4, ent_autotune=True, ent_coef=0.1)
        agent = module.Agent(gym.spaces.Box(-np.inf, np.inf, (4,)), PPO[script], args)
        generator = np.random.default_rng(1)
        obs, next_obs = generator.normal(size=(2, 16, 2, 4)).astype(np.float32)
        action = np.stack([agent.act(each, explore=True) for each in obs])
        rest = generator.normal(size=(16, 2)), *(generator.random((2, 16, 2)) < 0.1)
        reward, terminated, done = (x.astype(np.float32) for x in rest)
        arrays = obs, action, reward, next_obs, terminated, np.maximum(terminated, done)
        batch = module.Batch(*(torch.as_tensor(x, device="cuda") for x in arrays))
        start = [p.detach().clone() for p in agent.network.parameters()]
        how = module.Args(compile=compile and capture, cudagraphs=capture)
        update_minibatch = module.speed_up(agent.update_minibatch, how)
        torch.manual_seed(3)
        metrics = [agent.update(batch, update_minibatch) for _ in range(3)][-1]
        x = torch.as_tensor(obs[0], device="cuda")
        policy = agent.network.policy(agent.normalizer(x) if script == "ppo_continuous" else x)
        greedy = policy[0] if script == "ppo_continuous" else policy.argmax(-1)
        assert agent.act(obs[0], explore=False) == pytest.approx(greedy.detach().cpu().numpy(), abs=1e-4)
        results.append(([p.detach().clone() for p in agent.network.parameters()], metrics))
    assert "going on without" not in capsys.readouterr().out
    (eager, expected), (captured, found) = results
    assert apart(start, eager, captured) < 0.02
    assert all(found[name].item() == pytest.approx(expected[name].item(), abs=1e-3) for name in expected)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("script", [*PPO, *OFF_POLICY])
def test_captured_training_runs_to_its_end_and_its_agent_plays(script, compile, tmp_path, capsys):
    module = importlib.import_module(script)
    args = module.Args(cudagraphs=True, compile=compile, eval_episodes=1, out_dir=str(tmp_path), log_interval=50)
    if script in PPO:
        env_id = {"ppo_discrete": "CartPole-v1", "ppo_continuous": "Pendulum-v1"}[script]
        args = replace(args, env_id=env_id, total_timesteps=512, num_envs=2, num_steps=64, num_minibatches=4)
    else:
        args = replace(args, env_id=OFF_POLICY[script], total_timesteps=600, learning_starts=100, batch_size=16)
        args = replace(args, buffer_size=1_000, **({"policy_delay": 3} if script == "td3" else {}))
    agent = module.train(replace(args, eval_interval=200, checkpoint_interval=200))
    out = capsys.readouterr().out
    assert "on cuda" in out and "going on without" not in out and agent.device.type == "cuda"
    assert all(value.isfinite().all() for value in agent.state_dict().values())
    [folder] = Path(tmp_path).iterdir()
    module.evaluate_run(module.Args(evaluate=str(folder), eval_episodes=1, cuda=False))
    assert "mean" in capsys.readouterr().out
