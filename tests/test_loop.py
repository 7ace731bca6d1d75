"""The loop of `train` on scripted environments: what is stored, when it learns, where it bootstraps."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import sac_continuous as sac


class Counter(gym.Env):
    """obs = [episode, step in the episode]; episodes end in turn by termination, by truncation and by both at once."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([3, 0.5], np.float32))
    lengths = (3, 7, 5)

    def __init__(self, render_mode=None):
        self.episode, self.time, self.ended = -1, 0, True
        self.executed = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time, self.ended = self.episode + 1, 0, False
        return np.array([self.episode, 0.0]), {}

    def step(self, action):
        assert not self.ended, "stepped after the end of an episode"
        self.executed.append(action)
        self.time += 1
        kind, last = self.episode % 3, self.time == self.lengths[self.episode % 3]
        self.ended = last
        return np.array([self.episode, self.time]), 1.0, last and kind != 1, last and kind != 0, {}


class OneStep(gym.Env):
    """Each step earns 1 - (a - 0.5)² and ends the episode: by termination, or by a time limit."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, limit=False, render_mode=None):
        self.limit = limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action):
        return np.zeros(1), 1 - (float(action[0]) - 0.5) ** 2, not self.limit, self.limit, {}


for name, entry_point, kwargs in (
    ("Counter-v0", Counter, {}),
    ("Terminating-v0", OneStep, {}),
    ("Truncating-v0", OneStep, {"limit": True}),
):
    gym.register(name, entry_point, kwargs=kwargs, disable_env_checker=True)


class Recording:
    """What went through a run: environments, added transitions, updates, actions of the agent."""

    def __init__(self, monkeypatch):
        self.envs, self.added, self.num_updates, self.filled, self.acts = [], [], 0, [], []
        make_env, add = sac.make_env, sac.ReplayBuffer.add
        update, act = sac.Agent.update, sac.Agent.act

        def recording_make_env(*args, **kwargs):
            self.envs.append(make_env(*args, **kwargs))
            return self.envs[-1]

        def recording_add(buffer, obs, action, reward, next_obs, terminated):
            self.added.append((np.array(obs), np.array(action), reward, np.array(next_obs), terminated))
            add(buffer, obs, action, reward, next_obs, terminated)

        def recording_update(agent, batch):
            self.num_updates += 1
            self.filled.append(len(self.added))
            return update(agent, batch)

        def recording_act(agent, obs, explore):
            self.acts.append((np.array(obs), explore))
            return act(agent, obs, explore)

        monkeypatch.setattr(sac, "make_env", recording_make_env)
        monkeypatch.setattr(sac.ReplayBuffer, "add", recording_add)
        monkeypatch.setattr(sac.Agent, "update", recording_update)
        monkeypatch.setattr(sac.Agent, "act", recording_act)


def run(tmp_path, **changes):
    args = {"cuda": False, "out_dir": str(tmp_path), "eval_interval": 0, "checkpoint_interval": 0, "batch_size": 8}
    return sac.train(sac.Args(**args | changes))


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """90 steps, 40 of them random, in the environment that counts."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        recording = Recording(monkeypatch)
        run(tmp_path_factory.mktemp("counted"), env_id="Counter-v0", total_timesteps=90, learning_starts=40)
    return recording


def test_each_step_stores_one_transition_and_learns_once_after_learning_starts(counted):
    assert len(counted.added) == 90
    assert counted.filled == list(range(41, 91)), "one update in each step after the random ones"


def test_stored_transitions_are_those_of_the_environment(counted):
    """The true successor everywhere, also at an end, never one of another episode; obs advances in the warm-up too."""
    expected, episode, time = [], 0, 0
    while len(expected) < 90:
        expected.append(([episode, time], [episode, time + 1]))
        time += 1
        if time == Counter.lengths[episode % 3]:
            episode, time = episode + 1, 0
    assert [(list(obs), list(next_obs)) for obs, _, _, next_obs, _ in counted.added] == expected


def test_terminated_is_stored_at_true_ends_only(counted):
    """Episodes 0, 3, ... end by termination, 1, 4, ... by a time limit, 2, 5, ... by both: then it is an end."""
    for _, _, _, next_obs, terminated in counted.added:
        episode, time = int(next_obs[0]), int(next_obs[1])
        assert terminated == (time == Counter.lengths[episode % 3] and episode % 3 != 1)


def test_agent_acts_on_the_current_observation_after_the_random_steps(counted):
    explored = [list(obs) for obs, explore in counted.acts if explore]
    assert explored == [list(obs) for obs, *_ in counted.added[40:]]


def test_executed_actions_are_the_stored_ones_rescaled_to_an_asymmetric_box(counted):
    executed = np.array(counted.envs[-1].unwrapped.executed)
    stored = np.array([action for _, action, *_ in counted.added])
    low, high = Counter.action_space.low, Counter.action_space.high
    assert np.abs(stored).max() <= 1 and (executed >= low).all() and (executed <= high).all()
    assert np.allclose(executed, low + (stored + 1) / 2 * (high - low), atol=1e-6)
    assert (executed[:40].min(0) < low + 0.1 * (high - low)).all()
    assert (executed[:40].max(0) > high - 0.1 * (high - low)).all()


def test_evaluation_is_separate_deterministic_and_repeats(tmp_path, monkeypatch):
    recording = Recording(monkeypatch)
    args = {"env_id": "Pendulum-v1", "total_timesteps": 30, "learning_starts": 20, "eval_interval": 30}
    agent = run(tmp_path, **args, eval_episodes=2)
    assert len(recording.added) == 30, "evaluation must store nothing"
    assert sum(not explore for _, explore in recording.acts) == 400
    args = sac.Args(env_id="Pendulum-v1", cuda=False, eval_episodes=3)
    first = sac.evaluate(agent, args)
    assert len(first) == 3 and len(set(first)) == 3 and first == sac.evaluate(agent, args)


@pytest.mark.parametrize(("env_id", "value"), [("Terminating-v0", 1.0), ("Truncating-v0", 2.0)])
def test_value_of_a_one_step_task(tmp_path, env_id, value):
    """Discount 1/2: a termination is worth its reward, 1; a time limit bootstraps, 1 / (1 - 1/2). And a* = 0.5."""
    args = {"total_timesteps": 1000, "learning_starts": 200, "gamma": 0.5, "tau": 0.05, "batch_size": 64}
    lrs = {"actor_lr": 3e-3, "critic_lr": 3e-3, "autotune": False, "alpha": 1e-3}
    agent = run(tmp_path, env_id=env_id, **args, **lrs)
    action = agent.act(np.zeros(1), explore=False)
    q = agent.critics[0](torch.zeros(1, 1), torch.from_numpy(action)[None]).item()
    assert action[0] == pytest.approx(0.5, abs=0.12)
    assert q == pytest.approx(value, abs=0.08)


@pytest.mark.slow
def test_pendulum_is_solved(tmp_path):
    agent = run(tmp_path, env_id="Pendulum-v1", total_timesteps=10_000, learning_starts=1_000, batch_size=256)
    assert np.mean(sac.evaluate(agent, sac.Args(env_id="Pendulum-v1", cuda=False))) > -200
