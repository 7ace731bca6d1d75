"""A small environment with ends of every kind, and what short training runs on it did."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import ddpg
import ddqn
import dqn
import td3
from notes.helpers import OFF_POLICY


class Clock(gym.Env):
    """obs = [episode, step]; episodes of 3, 7, 5 steps end by termination, time limit, both; counts steps past ends."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    lengths = (3, 7, 5)

    def __init__(self, discrete, render_mode=None):
        box = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([2, 5], np.float32))
        self.action_space = gym.spaces.Discrete(2) if discrete else box
        self.episode, self.num_illegal, self.executed = -1, 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time, self.ended = self.episode + 1, 0, False
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        self.num_illegal += self.ended
        self.executed.append(action)
        self.time += 1
        kind, self.ended = self.episode % 3, self.ended or self.time == self.lengths[self.episode % 3]
        obs = np.array([self.episode, self.time], np.float32)
        return obs, 1.0, self.ended and kind != 1, self.ended and kind != 0, {}


for name, discrete in (("DiscreteClock-v0", True), ("BoxClock-v0", False)):
    gym.register(name, Clock, kwargs={"discrete": discrete}, disable_env_checker=True)


class Log:
    """What a short run of train on Clock did."""

    def __init__(self, module, **arguments):
        self.added, self.updates, self.moved, self.copies, self.acts = [], [], [], [], []
        make_env, add, act = module.make_env, module.ReplayBuffer.add, module.Agent.act
        update, update_target = module.Agent.update, getattr(module.Agent, "update_target", None)

        def logged_make_env(*args, **kwargs):
            self.env = make_env(*args, **kwargs)
            return self.env

        def logged_add(buffer, *transition):
            self.added.append([np.array(value) for value in transition])
            add(buffer, *transition)

        def logged_act(agent, obs, explore):
            before = agent.noise.clone() if module is ddpg else getattr(agent, "epsilon", None)
            self.acts.append((obs[1], before))
            return act(agent, obs, explore)

        def logged_update(agent, batch):
            self.updates.append(len(self.added))
            before = [each.detach().clone() for each in agent.parameters()]
            metrics = update(agent, batch)
            names = [name for name, _ in agent.named_parameters()]
            changed = [not torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True)]
            self.moved.append({name.split(".")[0] for name, each in zip(names, changed, strict=True) if each})
            return metrics

        def logged_update_target(agent):
            self.copies.append(len(self.added))
            update_target(agent)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "make_env", logged_make_env)
            patch.setattr(module.ReplayBuffer, "add", logged_add)
            patch.setattr(module.Agent, "act", logged_act)
            patch.setattr(module.Agent, "update", logged_update)
            patch.setattr(module.Agent, "update_target", logged_update_target, raising=False)
            module.train(module.Args(cuda=False, compile=False, eval_interval=0, checkpoint_interval=0, **arguments))


@pytest.fixture(scope="session")
def logs(tmp_path_factory):
    """90 steps of each script, 40 of them before learning; DQN copies every 12, TD3's actor moves every 10 updates."""
    arguments = {"total_timesteps": 90, "learning_starts": 40, "batch_size": 8, "log_interval": 100}
    arguments["out_dir"] = str(tmp_path_factory.mktemp("runs"))
    discrete = {"train_interval": 5, "target_update_interval": 12, "epsilon_schedule": "exponential"}
    discrete |= {"env_id": "DiscreteClock-v0", "epsilon_decay": 0.9}
    noisy = {"env_id": "BoxClock-v0", "exploration_noise": 1.0}
    own = {dqn: discrete, ddqn: discrete, ddpg: noisy | {"noise_process": "ou"}, td3: noisy | {"policy_delay": 10}}
    return {module: Log(module, **arguments, **own[module]) for module in OFF_POLICY}
