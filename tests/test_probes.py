"""Scripted environments that know what should happen: Atari's lives and scores, seeds, schedules that are logged."""

import importlib
import itertools
import math
import sys

import gymnasium as gym
import numpy as np
import pytest
import test_runs
import torch
from test_runs import ALL, PPO, odd_run, scalars

nothing_odd = test_runs.nothing_odd  # fixture
ATARI, OFF_POLICY = ["dqn", "ddqn", "ppo_discrete"], [script for script in ALL if script not in PPO]
T = torch.tensor


# ---- Atari ----
class FakeALE(gym.Env):
    """Three lives of 40 frames each; a frame is worth 7 points in the first, 11 in the second, -3 in the third.

    Its frames have the brightness of the life, and each reset is counted.
    """

    observation_space = gym.spaces.Box(0, 255, (210, 160, 3), np.uint8)
    action_space = gym.spaces.Discrete(3)
    points = (7, 11, -3)
    num_resets = 0

    def __init__(self, render_mode: str | None = None, frameskip: int = 1):
        self.ale = self

    def lives(self) -> int:
        return 3 - self.life

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "LEFT", "RIGHT"]

    def obs(self) -> np.ndarray:
        return np.full((210, 160, 3), 50 * (self.life + 1), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        FakeALE.num_resets += 1
        self.life = self.frame = 0
        return self.obs(), {}

    def step(self, action):
        reward = self.points[self.life]
        self.frame += 1
        if self.frame % 40 == 0:
            self.life += 1
        return self.obs(), reward, self.life == 3, False, {}


@pytest.fixture
def fake_ale(monkeypatch):
    """fake_ale(script, training): behind the real wrappers, with no no-ops so that every frame is known."""
    from stable_baselines3.common import atari_wrappers

    monkeypatch.setattr(atari_wrappers, "NoopResetEnv", lambda env, noop_max: env)
    gym.registry.pop("FakeALE-v0", None)
    gym.register("FakeALE-v0", FakeALE, disable_env_checker=True, kwargs={"frameskip": 1})

    def make(script: str, training: bool, frameskip: int = 1) -> gym.Env:
        return importlib.import_module(script).wrap_atari(gym.make("FakeALE-v0", frameskip=frameskip), training)

    return make


@pytest.fixture
def game(fake_ale) -> str:
    """The id of the same game as one of Atari's, which the scripts know by the package that it comes from."""
    gym.registry.pop("FakeGame-v0", None)
    kind = type("ale_py", (FakeALE,), {})
    gym.register("FakeGame-v0", kind, disable_env_checker=True, kwargs={"frameskip": 1})
    return "FakeGame-v0"


@pytest.mark.parametrize("script", ["dqn", "ddqn", "ppo_discrete"])
@pytest.mark.parametrize("frameskip", [1, 4])
def test_frames_are_skipped_once(fake_ale, script, frameskip):
    """Four by the wrappers, or none, where the environment skips by itself (here it counts its own steps)."""
    env = fake_ale(script, False, frameskip)
    env.reset(seed=0)
    env.step(0)
    assert env.unwrapped.frame == (4 if frameskip == 1 else 1)


def play_game(env: gym.Env) -> tuple[list[float], list[int], dict]:
    """Rewards of a game until its score is known, the steps at which an episode ended, and that info."""
    env.reset(seed=0)
    rewards, ends = [], []
    for step in itertools.count(1):
        _, reward, terminated, truncated, info = env.step(1)
        assert not truncated and step < 200
        rewards.append(float(reward))
        if terminated:
            ends.append(step)
            if "episode" in info:
                return rewards, ends, info["episode"]
            env.reset()


@pytest.mark.parametrize("script", ATARI)
def test_score_of_a_game_is_raw_and_of_all_lives(fake_ale, script):
    """40 · 7 + 40 · 11 - 40 · 3 = 600 points in 120 frames, that is 30 steps of four; a life more is a no-op long."""
    rewards, ends, episode = play_game(fake_ale(script, training=True))
    assert episode["r"] == 600 and set(rewards) == {1.0, -1.0}, "clipped for the agent, not in the statistics"
    assert len(ends) == 3 and ends[-1] == len(rewards), "an episode ends with each life"
    rewards, ends, episode = play_game(fake_ale(script, training=False))
    assert episode["r"] == 600 and len(ends) == 1, "an evaluation plays the whole game"
    assert {28.0, 44.0, -12.0} <= set(rewards), "four frames of 7, 11 and -3 points"


@pytest.mark.parametrize("script", ATARI)
def test_lost_life_does_not_begin_a_new_game(fake_ale, script):
    env = fake_ale(script, training=True)
    FakeALE.num_resets = 0
    play_game(env)
    assert FakeALE.num_resets == 1
    env.reset()
    assert FakeALE.num_resets == 2


@pytest.mark.parametrize("script", ATARI)
def test_training_plays_lives_for_signs_of_points(game, script):
    """The environment that a run makes for itself: an episode ends with each life, and a reward is 1 or -1."""
    module = importlib.import_module(script)
    env = module.make_training_env(module.Args(env_id=game))
    rewards, ends, _ = play_game(getattr(env, "envs", [env])[0])
    assert len(ends) == 3 and set(rewards) == {1.0, -1.0}


class SmallCNN(torch.nn.Sequential):
    """In the place of NatureCNN, which takes a second to be made: features of the frames' brightness."""

    def __init__(self):
        super().__init__(torch.nn.Linear(4, 512))

    def forward(self, obs):
        return super().forward(obs.float().mean((2, 3)))


@pytest.mark.parametrize("script", ["dqn", "ppo_discrete"])
def test_run_logs_and_evaluates_whole_games(game, script, tmp_path, monkeypatch, capsys):
    """Each score is raw and of three lives, whose ends are not logged; and no game is said to have no end."""
    monkeypatch.setattr(importlib.import_module(script), "NatureCNN", SmallCNN)
    lengths = {"total_timesteps": 80, "log_interval": 20, "eval_interval": 80, "eval_episodes": 1}
    lengths |= {} if script in PPO else {"learning_starts": 70, "batch_size": 2}
    folder = odd_run(script, tmp_path / "runs", env_id=game, checkpoint_interval=0, **lengths)
    logged = scalars(folder)
    assert set(logged["charts/episodic_return"].values()) == set(logged["eval/episodic_return"].values()) == {600}
    assert set(logged["charts/episodic_length"].values()) == set(logged["eval/episodic_length"].values()) == {30}
    assert len(logged["charts/episodic_return"]) == (1 if script in PPO else 2), "PPO plays two games at a time"
    assert "no time limit" not in capsys.readouterr().out


@pytest.mark.parametrize("script", ATARI)
def test_emulator_prints_nothing_and_is_not_needed_for_other_tasks(script, monkeypatch, capfd):
    """Its banner would be in each run's errors; without it environments in modules are made all the same."""
    import ale_py

    module, env_id = importlib.import_module(script), "odd_envs:Odd/Discrete-v0"
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Info)
    ale_py.ALEInterface()
    assert "Arcade Learning Environment" in "".join(capfd.readouterr())
    module.make_env(env_id)
    ale_py.ALEInterface()
    assert "".join(capfd.readouterr()) == ""
    monkeypatch.setitem(sys.modules, "ale_py", None)  # makes `import ale_py` an ImportError
    module.make_env(env_id)


def test_games_begin_with_up_to_30_frames_of_doing_nothing():
    """So that they differ: each number from 1 to 30 comes about, and no other."""
    gym.registry.pop("FakeALE-v0", None)
    gym.register("FakeALE-v0", FakeALE, disable_env_checker=True, kwargs={"frameskip": 1})
    for training in (True, False):
        env = importlib.import_module("dqn").wrap_atari(gym.make("FakeALE-v0"), training)
        found = set()
        for seed in range(200):
            env.reset(seed=seed)
            found.add(env.unwrapped.frame)
        assert found == set(range(1, 31))


def test_network_of_frames_by_hand():
    """Three convolutions with strides of 4, 2 and 1 and a layer of 512, each cut off below 0."""
    cnn = importlib.import_module("dqn").NatureCNN()
    layers = [layer for layer in cnn if hasattr(layer, "weight")]
    frames = torch.randint(256, (2, 4, 84, 84), dtype=torch.uint8)
    x = frames.double() / 255
    for layer, stride in zip(layers[:3], (4, 2, 1), strict=True):
        x = torch.nn.functional.conv2d(x, layer.weight.double(), layer.bias.double(), stride).clamp(min=0)
    expected = (x.flatten(1) @ layers[3].weight.double().T + layers[3].bias.double()).clamp(min=0)
    assert expected.shape == (2, 512) and torch.allclose(cnn(frames).double(), expected, atol=1e-5)


@pytest.mark.parametrize("script", ATARI)
def test_frames_are_stacked_in_their_order(fake_ale, script):
    """Grey frames of 84 x 84, the newest last; the first obs of a game is one frame four times."""
    env = fake_ale(script, training=False)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (4, 84, 84) and obs.dtype == np.uint8 and (obs == 50).all()
    brightness = [obs[:, 0, 0].tolist()] + [env.step(1)[0][:, 0, 0].tolist() for _ in range(12)]
    assert brightness[9] == [50] * 4 and brightness[10] == [50, 50, 50, 100] and brightness[12] == [50, 100, 100, 100]


@pytest.mark.parametrize("script", ATARI)
def test_pixels_go_in_as_values_between_0_and_1(script):
    """A network for frames of 255 is that for vectors of ones: its first layer sees obs / 255."""
    module = importlib.import_module(script)
    space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    agent = module.Agent(space, gym.spaces.Discrete(2), module.Args(cuda=False))
    [first] = [layer for layer in agent.modules() if isinstance(layer, torch.nn.Conv2d) and layer.in_channels == 4][:1]
    seen = []
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        agent(torch.full((1, 4, 84, 84), 255.0))
        agent(torch.full((1, 4, 84, 84), 51.0))
    assert [torch.unique(x).tolist() for x in seen] == [[1.0], pytest.approx([0.2])]


# ---- Replay buffer ----
@pytest.mark.parametrize("script", OFF_POLICY)
def test_full_ring_goes_on_at_its_place(script):
    """After seven transitions in a ring of five, saved and loaded, the eighth replaces the third."""
    module = importlib.import_module(script)

    def add(buffer, i):
        buffer.add(np.array([i]), np.array([i]), float(i), np.array([i]), False)

    buffer, other = (module.ReplayBuffer(1, 1, 5, torch.device("cpu")) for _ in range(2))
    for i in range(1, 8):
        add(buffer, i)
    other.load_state_dict(buffer.state_dict())
    add(other, 8)
    assert other.rows[:, 0].tolist() == [6, 7, 8, 4, 5]


# ---- PPO ----
@pytest.mark.parametrize("script", PPO)
def test_learned_coefficient_is_the_one_in_the_loss(script):
    """c = 0.5 is learned, not ent_coef: the loss is made with it, and a larger c raises the entropy more."""
    module = importlib.import_module(script)
    space = gym.spaces.Discrete(3) if script == "ppo_discrete" else gym.spaces.Box(-1, 1, (2,), np.float32)
    obs_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    gained = []
    for c in (0.5, 50.0):
        torch.manual_seed(0)
        args = module.Args(ent_autotune=True, ent_coef=1e-6, num_envs=1, num_steps=8, cuda=False, vf_coef=0.25)
        agent = module.Agent(obs_space, space, args)
        with torch.no_grad():
            agent.log_ent_coef.fill_(math.log(c))
        obs, advantage = torch.randn(8, 2), torch.randn(8)
        action = torch.as_tensor(agent.act(obs.numpy(), explore=True))
        old = agent.evaluate_actions(obs, action)[0].detach()
        losses = agent.update_minibatch(module.Minibatch(obs, action, old, advantage, torch.zeros(8)))
        expected = losses["policy_loss"] + 0.25 * losses["value_loss"] - c * losses["entropy"]
        assert losses["total_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert losses["ent_coef"].item() == pytest.approx(c)
        after = agent.evaluate_actions(obs, action)[1].detach().mean()
        gained.append((after - losses["entropy"]).item())
    assert gained[1] > gained[0]


class Chance(gym.Env):
    """Each step is worth 1, and one in eight is the last: an episode's return is its length."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, action_space: gym.Space, render_mode: str | None = None):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, self.np_random.random() < 1 / 8, False, {}


@pytest.mark.parametrize("script", PPO)
def test_length_of_an_episode_is_that_of_its_own_environment(tmp_path, script):
    space = gym.spaces.Discrete(3) if script == "ppo_discrete" else gym.spaces.Box(-1, 1, (2,), np.float32)
    gym.registry.pop("Chance-v0", None)
    gym.register("Chance-v0", Chance, disable_env_checker=True, kwargs={"action_space": space})
    folder = odd_run(script, tmp_path / "runs", env_id="Chance-v0", num_envs=4)
    logged = scalars(folder)
    assert logged["charts/episodic_length"] == logged["charts/episodic_return"]
    assert len(set(logged["charts/episodic_length"].values())) > 3


class Apart(gym.Env):
    """obs = [number of the environment, step in the episode]; episodes of 3, 4 (to a true end) or 5 steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    numbers = itertools.count()

    def __init__(self, render_mode: str | None = None):
        self.number = next(self.numbers) % 3

    def obs(self) -> np.ndarray:
        return np.array([self.number, self.time], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.obs(), {}

    def step(self, action):
        self.time += 1
        ended = self.time == 3 + self.number
        return self.obs(), float(self.number), ended and self.number == 1, ended and self.number != 1, {}


def test_environments_that_end_at_different_moments_keep_their_own_successors(tmp_path, monkeypatch):
    """The others go on meanwhile; each logs its own return, which is its number in each step."""
    module, batches = importlib.import_module("ppo_discrete"), []
    update = module.Agent.update
    monkeypatch.setattr(
        module.Agent, "update", lambda agent, batch, *rest: (batches.append(batch), update(agent, batch, *rest))[1]
    )
    monkeypatch.setattr(Apart, "numbers", itertools.count())
    gym.registry.pop("Apart-v0", None)
    gym.register("Apart-v0", Apart, disable_env_checker=True)
    lengths = {"num_envs": 3, "num_steps": 20, "total_timesteps": 60, "checkpoint_interval": 0}
    folder = odd_run("ppo_discrete", tmp_path, env_id="Apart-v0", **lengths)
    [batch] = batches
    for n, length in enumerate((3, 4, 5)):
        for t in range(20):
            time, ended = t % length, t % length == length - 1
            assert batch.obs[t, n].tolist() == [n, time] and batch.next_obs[t, n].tolist() == [n, time + 1]
            assert (batch.reward[t, n], batch.done[t, n], batch.terminated[t, n]) == (n, ended, ended and n == 1)
    logged = scalars(folder)
    returns, times = logged["charts/episodic_return"], logged["charts/episodic_length"]
    assert [(returns[step], times[step]) for step in (9, 12, 15)] == [(0, 3), (4, 4), (10, 5)]


@pytest.mark.parametrize("script", PPO)
def test_ratios_are_logged_by_hand(script):
    """Of eight ratios two are e^0.5 = 1.6487 and two e^-0.5 = 0.6065, which are clipped, and the others 1.

    KL, the mean of ratio - 1 - log ratio, is (0.6487 - 0.5 - 0.3935 + 0.5) / 4.
    """
    module = importlib.import_module(script)
    space = gym.spaces.Discrete(3) if script == "ppo_discrete" else gym.spaces.Box(-1, 1, (2,), np.float32)
    agent = module.Agent(gym.spaces.Box(-1, 1, (2,), np.float32), space, module.Args(num_envs=1, cuda=False))
    obs = torch.randn(8, 2)
    action = torch.as_tensor(agent.act(obs.numpy(), explore=True))
    old = agent.evaluate_actions(obs, action)[0].detach() - T([0.5, 0.5, -0.5, -0.5, 0, 0, 0, 0])
    losses = agent.update_minibatch(module.Minibatch(obs, action, old, torch.randn(8), torch.zeros(8)))
    assert losses["clip_fraction"].item() == 0.5
    assert losses["approx_kl"].item() == pytest.approx(0.06381, abs=1e-4)


@pytest.mark.parametrize("script", PPO)
def test_logged_step_size_is_the_one_in_use(tmp_path, script):
    """0.01 (1 - s / 200) in the rollout that begins after s = 0, 20, 40, ... steps; also after a resume."""
    module = importlib.import_module(script)
    folder = odd_run(script, tmp_path / "runs", anneal_lr=True, learning_rate=0.01)
    expected = {20 * k: pytest.approx(0.01 * (1 - (k - 1) / 10), rel=1e-5) for k in range(1, 11)}
    assert scalars(folder)["charts/learning_rate"] == expected
    part = tmp_path / "part"
    steps = itertools.count()

    def stop(run, *args, save=module.Run.next_rollout):
        if next(steps) == 4:
            raise SystemExit(0)
        return save(run, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(module.Run, "next_rollout", stop)
        odd_run(script, part, anneal_lr=True, learning_rate=0.01)
    [folder] = part.iterdir()
    module.train(module.Args(resume=str(folder)))
    assert scalars(folder)["charts/learning_rate"] == expected


@pytest.mark.parametrize("script", ["dqn", "ddqn"])
def test_logged_epsilon_is_the_one_in_use(tmp_path, script):
    """From 0.9 to 0.1 in 100 steps: 0.42 in step 60; also after a resume."""
    folder = odd_run(script, tmp_path / "runs", epsilon_start=0.9, epsilon_end=0.1, total_timesteps=60)
    module = importlib.import_module(script)
    module.train(module.Args(resume=str(folder), total_timesteps=120))
    expected = {60: 0.42, 80: 0.26, 100: 0.1, 120: 0.1}
    assert scalars(folder)["charts/epsilon"] == {step: pytest.approx(value) for step, value in expected.items()}


# ---- Seeds ----
class Seeds(gym.Env):
    """Episodes of ten steps, and a list of the seeds of its resets, None where none was given."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    seeds: list = []  # noqa: RUF012  of all environments

    def __init__(self, action_space: gym.Space, render_mode: str | None = None):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.time = 0
        return self.np_random.uniform(-1, 1, 1).astype(np.float32), {}

    def step(self, action):
        self.time += 1
        return self.np_random.uniform(-1, 1, 1).astype(np.float32), 1.0, False, self.time == 10, {}


@pytest.mark.parametrize("script", ALL)
def test_every_environment_and_episode_has_its_own_seed(tmp_path, script):
    """Evaluations: three seeds, the same each time. Training: one for each environment, and others for another run."""
    action_space = gym.spaces.Discrete(2) if script in ATARI else gym.spaces.Box(-1, 1, (1,), np.float32)
    gym.registry.pop("Seeds-v0", None)
    gym.register("Seeds-v0", Seeds, disable_env_checker=True, kwargs={"action_space": action_space})
    found = []
    for seed in (1, 2):
        Seeds.seeds.clear()
        out = tmp_path / str(seed)
        odd_run(script, out, env_id="Seeds-v0", seed=seed, eval_interval=100, eval_episodes=3, checkpoint_interval=0)
        given = [seed for seed in Seeds.seeds if seed is not None]
        evaluation = {seed for seed in given if seed > 2**31 - 100}
        training = [seed for seed in given if seed not in evaluation]
        assert len(evaluation) == 3 and len(given) - len(training) == 2 * 3, "of two evaluations"
        assert len(training) == len(set(training)) == (2 if script in PPO else 1)
        found.append((evaluation, set(training)))
    assert found[0][0] == found[1][0] and not found[0][1] & found[1][1]
