"""DQN and DDQN: wiring, exploration, the frame buffer, and the loop on scripted environments of vectors and frames."""

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import apart

import ddqn
import dqn
import ppo_discrete

OBS_SPACE, ACTION_SPACE = gym.spaces.Box(-np.inf, np.inf, (4,)), gym.spaces.Discrete(3)
FRAMES = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)


@pytest.fixture(params=[dqn, ddqn], ids=["dqn", "ddqn"], scope="module")
def module(request):
    return request.param


def make_agent(module, obs_space=OBS_SPACE, seed=0, **changes):
    torch.manual_seed(seed)
    return module.Agent(obs_space, ACTION_SPACE, module.Args(cuda=False, **changes))


def make_batch(seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, size, 4, generator=generator)
    action = torch.randint(3, (size, 1), generator=generator).float()
    reward, terminated = torch.randn(size, generator=generator), (torch.arange(size) % 4 == 0).float()
    return dqn.Batch(obs=obs, action=action, reward=reward, next_obs=next_obs, terminated=terminated)


def spy(monkeypatch, module, name):
    calls, true = [], getattr(module, name)

    def wrapper(*args):
        calls.append(args)
        return true(*args)

    monkeypatch.setattr(module, name, wrapper)
    return calls


def parameters(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(before, after):
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# ---- Wiring ----
def test_value_of_the_next_state_comes_from_the_target_network(module, monkeypatch):
    """Poisoned, the online network must not reach the target but through DDQN's choice of the action."""
    calls = spy(monkeypatch, module, "td_target")
    agent = make_agent(module)
    for parameter in agent.q_network.parameters():
        parameter.data.fill_(math.nan)
    agent.update(make_batch())
    assert calls[0][-2].isfinite().all()
    assert module is dqn or calls[0][2].isnan().all()


def test_target_looks_at_the_next_observation_reward_mask_and_discount(module, monkeypatch):
    calls, batch, agent = spy(monkeypatch, module, "td_target"), make_batch(), make_agent(module, gamma=0.7)
    for parameter in agent.q_network_target.parameters():
        parameter.data.mul_(1.5)
    expected = agent.q_network(batch.next_obs), agent.q_network_target(batch.next_obs)
    agent.update(batch._replace(obs=batch.obs * math.nan))
    assert torch.equal(calls[0][0], batch.reward) and torch.equal(calls[0][1], batch.terminated)
    assert torch.allclose(calls[0][-2], expected[1]) and calls[0][-1] == 0.7
    assert module is dqn or torch.allclose(calls[0][2], expected[0])


def test_loss_sees_the_stored_action_and_no_gradient_runs_through_the_target(module, monkeypatch):
    calls, batch, agent = spy(monkeypatch, module, "q_loss"), make_batch(), make_agent(module)
    expected = agent.q_network(batch.obs).detach()
    logged = agent.update(batch)
    q, action, target = calls[0]
    assert logged["q"].item() == pytest.approx(expected.max(-1).values.mean().item()), "of the greedy actions"
    assert torch.allclose(q.detach(), expected) and q.requires_grad and not target.requires_grad
    assert action.dtype == torch.int64 and torch.equal(action, batch.action[:, 0].long())


@pytest.mark.parametrize(("tau", "share"), [(1.0, 1.0), (0.1, 0.1)])
def test_target_starts_as_a_copy_and_moves_only_when_told(module, tau, share):
    agent = make_agent(module, tau=tau)
    first = parameters(agent.q_network)
    assert same(first, parameters(agent.q_network_target))
    metrics = agent.update(make_batch())
    assert set(metrics) == {"q_loss", "q"} and all(v.shape == () and not v.requires_grad for v in metrics.values())
    assert same(first, parameters(agent.q_network_target))
    now = parameters(agent.q_network)
    assert not any(torch.equal(a, b) for a, b in zip(first, now, strict=True))
    agent.update_target()
    for a, b, moved in zip(first, now, parameters(agent.q_network_target), strict=True):
        assert torch.allclose(moved, a + (b - a) * share, atol=1e-7)


def test_ddqn_with_equal_networks_learns_as_dqn():
    agents = make_agent(dqn), make_agent(ddqn)
    for i in range(5):
        losses = [agent.update(make_batch(i))["q_loss"].item() for agent in agents]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        for agent in agents:
            agent.update_target()
    assert same(parameters(agents[0].q_network), parameters(agents[1].q_network))


@pytest.mark.cuda
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("obs_space", [OBS_SPACE, FRAMES], ids=["vectors", "frames"])
def test_captured_update_learns_the_same(module, obs_space, compile, capsys):
    torch.manual_seed(0)
    agents = [module.Agent(obs_space, ACTION_SPACE, module.Args()) for _ in range(2)]
    agents[1].load_state_dict(copy.deepcopy(agents[0].state_dict()))
    start = parameters(agents[0].q_network)
    if obs_space is FRAMES:
        buffer = filled_frames(module, 60, device="cuda")
    else:
        buffer = module.ReplayBuffer(4, 1, 100, torch.device("cuda"))
        for obs, action, reward, next_obs, terminated in zip(*(v.numpy() for v in make_batch(size=100)), strict=True):
            buffer.add(obs, action, reward, next_obs, terminated)
    captured = module.speed_up(agents[1].update, module.Args(compile=compile, cudagraphs=True))
    for update in (agents[0].update, captured):
        torch.manual_seed(3)
        for _ in range(50):
            update(buffer.sample(16))
    assert apart(start, *(parameters(agent.q_network) for agent in agents)) < 0.02
    assert "going on without" not in capsys.readouterr().out


# ---- Acting ----
def test_act_is_greedy_without_exploration_and_draws_nothing(module):
    agent = make_agent(module)
    agent.epsilon = 1.0
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    state = torch.get_rng_state()
    actions = [agent.act(each, explore=False) for each in obs]
    assert np.array_equal(actions, agent.q_network(torch.from_numpy(obs)).argmax(-1).numpy())
    assert len({int(action) for action in actions}) > 1 and ACTION_SPACE.contains(actions[0])
    assert torch.equal(state, torch.get_rng_state())


def test_a_copy_of_an_agent_acts_with_its_own_parameters(module):
    """And the original with those that load_state_dict gives it."""
    agent, obs = make_agent(module), np.ones(4, np.float32)
    greedy = int(agent.act(obs, explore=False))
    other = copy.deepcopy(agent)
    other.q_network.net[-1].bias.data[(greedy + 1) % 3] += 100
    assert other.act(obs, explore=False) != greedy == agent.act(obs, explore=False)
    agent.load_state_dict(other.state_dict())
    assert agent.act(obs, explore=False) == other.act(obs, explore=False)


def test_act_explores_with_one_coin_in_a_step(module):
    """Of random actions a third is greedy all the same: greedy with 1 - epsilon + epsilon / 3."""
    agent, obs = make_agent(module), np.ones(4, np.float32)
    greedy = int(agent.act(obs, explore=False))
    for epsilon in (0.0, 0.3, 1.0):
        agent.epsilon = epsilon
        counts = np.bincount([int(agent.act(obs, explore=True)) for _ in range(6000)], minlength=3) / 6000
        assert counts[greedy] == pytest.approx(1 - epsilon + epsilon / 3, abs=0.025)
        assert np.ptp(np.delete(counts, greedy)) < 0.03
    assert ACTION_SPACE.contains(agent.act(obs, explore=True)), "an array of no dimensions, as the greedy one"


def test_anneal_sets_epsilon_by_its_schedule(module):
    """Halfway along the line at step 5, and 0.8 · 0.5² on the curve at step 2; then the end, and no other."""
    line = make_agent(module, epsilon_duration=10, epsilon_start=0.8, epsilon_end=0.2)
    changes = {"epsilon_schedule": "exponential", "epsilon_decay": 0.5}
    curve = make_agent(module, **changes, epsilon_start=0.8, epsilon_end=0.15)
    found = {line: [], curve: []}
    for agent, values in found.items():
        values.append(agent.epsilon)
        for step in (0, 2, 5, 3, 10, 99):  # it goes back too: a resumed run sets it anew
            agent.anneal(step)
            values.append(agent.epsilon)
    assert found[line] == pytest.approx([0.8, 0.8, 0.68, 0.5, 0.62, 0.2, 0.2])
    assert found[curve] == pytest.approx([0.8, 0.8, 0.2, 0.15, 0.15, 0.15, 0.15])


# ---- Frames ----
def stamp(episode, time):
    """A frame whose pixels say from which episode and step it is."""
    return np.full((84, 84), 16 * episode + time, np.uint8)


def episodes_of_frames(lengths):
    """Transitions (obs, action, reward, next_obs, terminated); episodes end in turn by termination and time limit."""
    for episode, length in enumerate(lengths):
        stack = [stamp(episode, 0)] * 4
        for time in range(1, length + 1):
            obs, stack = np.stack(stack), [*stack[1:], stamp(episode, time)]
            yield (
                obs,
                np.array(time % 3),
                float(16 * episode + time),
                np.stack(stack),
                time == length and episode % 2 == 0,
            )


def filled_frames(module, capacity, lengths=(5, 3, 9, 1, 7, 2, 12, 4, 15, 6), device="cpu"):
    buffer = module.FrameBuffer((4, 84, 84), capacity, torch.device(device))
    for transition in episodes_of_frames(lengths):
        buffer.add(*transition)
    return buffer


@pytest.mark.parametrize("lengths", [(5, 3, 9, 1, 7, 2, 12, 4, 15, 6), (15, 1, 1, 1)], ids=["many", "short at last"])
@pytest.mark.parametrize("capacity", [1000, 40, 17, 8])
def test_stacks_are_those_of_the_environment(module, capacity, lengths):
    """At episode borders, at time limits, and where the ring begins anew; the last transitions are there.

    An episode of one step takes the room of five frames, and with it that of several transitions before it.
    """
    buffer = filled_frames(module, capacity, lengths)
    stored = {t[2]: t for t in episodes_of_frames(lengths)}  # by reward, which is different in each
    torch.manual_seed(0)
    batch = buffer.sample(600)
    assert batch.obs.dtype == torch.uint8 and batch.obs.shape == (600, 4, 84, 84)
    for obs, action, reward, next_obs, terminated in zip(*(value.numpy() for value in batch), strict=True):
        expected = stored[float(reward)]
        assert np.array_equal(obs, expected[0]) and np.array_equal(next_obs, expected[3])
        assert action[0] == expected[1] and terminated == expected[4]
    seen, rewards = set(batch.reward.tolist()), list(stored)
    assert seen == set(rewards[-len(seen) :]), "the last ones, without a gap"
    assert len(seen) <= capacity and (capacity < 1000 or len(seen) == len(rewards))


def test_episode_that_begins_with_the_last_frame_of_another_has_stacks_of_its_own(module):
    """After a lost life the picture may stand still: frames 1 2 3 4, 5, and then 5 5 5 5, 6."""
    buffer, frame = module.FrameBuffer((4, 84, 84), 10, torch.device("cpu")), [stamp(0, time) for time in range(7)]
    for obs, last in (([1, 2, 3, 4], 5), ([5, 5, 5, 5], 6)):
        obs = [frame[time] for time in obs]
        buffer.add(np.stack(obs), np.array(0), float(last), np.stack([*obs[1:], frame[last]]), last == 5)
    batch = buffer.sample(50)
    found = {tuple(stack[:, 0, 0].tolist()) for stacks in (batch.obs, batch.next_obs) for stack in stacks}
    assert found == {(1, 2, 3, 4), (2, 3, 4, 5), (5, 5, 5, 5), (5, 5, 5, 6)}


def test_long_episodes_fill_the_buffer_to_its_capacity(module):
    buffer = filled_frames(module, 60, lengths=(100, 100))
    assert len(set(buffer.sample(3000).reward.tolist())) == 60


def test_a_million_transitions_take_less_than_8_gb(module, capsys):
    buffer = module.FrameBuffer((4, 84, 84), 1_000_000, torch.device("cpu"))  # memory that is not touched costs nothing
    size = sum(v.nbytes for v in vars(buffer).values() if isinstance(v, torch.Tensor | np.ndarray))
    assert size < 8e9
    assert "7.76 GB" in capsys.readouterr().out


def test_frames_that_do_not_fit_are_refused(module):
    with pytest.raises(MemoryError, match="--buffer-size"):
        module.FrameBuffer((4, 84, 84), 10**9, torch.device("cpu"))


@pytest.mark.parametrize("capacity", [1000, 40, 17, 8])
def test_frames_come_back_from_a_checkpoint_or_are_left_out(module, capacity):
    """The last episodes are so short that some buffers have dropped transitions before their time."""
    buffer = filled_frames(module, capacity, lengths=(5, 9, 12, 15, 1, 2, 1))
    other, none = (module.FrameBuffer((4, 84, 84), capacity, torch.device("cpu")) for _ in range(2))
    other.load_state_dict(buffer.state_dict())
    *_, (*_, last, _) = episodes_of_frames((5, 9, 12, 15, 1, 2, 1))
    alike = last, np.array(0), 0.0, np.stack([*last[1:], stamp(0, 99)]), False  # an episode that begins as one ended
    for transition in [None, alike, *episodes_of_frames((3, 4))]:
        samples = []
        for both in (buffer, other):
            if transition is not None:
                both.add(*transition)
            torch.manual_seed(0)
            samples.append(both.sample(50))
        assert all(torch.equal(a, b) for a, b in zip(*samples, strict=True))
    buffer.saved_size = 1000
    none.load_state_dict(buffer.state_dict())
    assert none.num_added == 0 and "frames" not in buffer.state_dict()


def test_size_of_a_checkpoint_is_that_of_the_frames_that_are_there(module):
    """Room for 1000 frames of 7 kB, 12 are there: they are saved where 100 kB may be, and not where 50 kB may."""
    assert module.FrameBuffer.saved_size == 1e9, "a gigabyte, as README.md says"
    buffer = filled_frames(module, 1000, lengths=(8,))
    assert buffer.saved_size == 1e9, "140,000 frames"
    for size, is_saved in ((100_000, True), (50_000, False)):
        buffer.saved_size = size
        assert bool(buffer.state_dict()) == is_saved


def test_network_of_frames_is_the_paper_s_and_takes_bytes(module):
    """32, 64, 64 filters and 512 units make 1,685,667 parameters with three actions; pixels are scaled to [0, 1]."""
    agent = make_agent(module, FRAMES)
    assert sum(parameter.numel() for parameter in agent.q_network.parameters()) == 1_685_667
    frames = torch.randint(256, (2, 4, 84, 84), dtype=torch.uint8)
    cnn, last = agent.q_network.net
    x = frames / 255
    convolutions = [layer for layer in cnn if isinstance(layer, torch.nn.Conv2d)]
    for layer, stride in zip(convolutions, (4, 2, 1), strict=True):
        x = torch.conv2d(x, layer.weight, layer.bias, stride=stride).relu()
    [dense] = [layer for layer in cnn if isinstance(layer, torch.nn.Linear)]
    expected = last(dense(x.flatten(1)).relu())
    assert torch.allclose(agent.q_network(frames), expected, atol=1e-6)
    assert torch.equal(agent.q_network(frames), agent.q_network(frames.float())), "bytes and floats alike"
    assert ACTION_SPACE.contains(agent.act(frames[0].numpy(), explore=False))


# ---- Loop ----
class Film(gym.Env):
    """Episodes of 20 frames, each of another brightness, as stacks of the last four."""

    observation_space, action_space = FRAMES, gym.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.num_frames = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.stack = 0, [0, 0, 0]
        return self.obs(), {}

    def obs(self):
        self.num_frames += 1
        self.stack = [*self.stack[-3:], self.num_frames % 256]
        return np.stack([np.full((84, 84), value, np.uint8) for value in self.stack])

    def step(self, action):
        self.time += 1
        return self.obs(), 1.0, False, self.time == 20, {}


def test_run_whose_frames_were_not_saved_collects_them_anew(module, monkeypatch, tmp_path):
    """It stops at step 60 and goes on to 140: no updates until there are learning_starts transitions again."""
    gym.registry.pop("Film-v0", None)
    gym.register("Film-v0", Film, disable_env_checker=True)
    updated, buffers, true = [], [], module.Agent.update
    monkeypatch.setattr(module.FrameBuffer, "saved_size", 1000)
    make = module.make_buffer
    monkeypatch.setattr(module, "make_buffer", lambda *args: buffers.append(make(*args)) or buffers[-1])
    monkeypatch.setattr(
        module.Agent, "update", lambda agent, batch: updated.append(buffers[-1].num_added) or true(agent, batch)
    )
    args = {"env_id": "Film-v0", "total_timesteps": 60, "learning_starts": 40, "batch_size": 2, "train_interval": 10}
    args |= {"eval_interval": 0, "log_interval": 10, "cuda": False, "out_dir": str(tmp_path)}
    module.train(module.Args(**args))
    first, updated[:] = updated[:], []
    [folder] = tmp_path.iterdir()
    module.train(module.Args(resume=str(folder), total_timesteps=140))
    assert first == [50, 60], "of those that are there after the step"
    assert updated == [50, 60, 70, 80], "step 70 has 10 transitions again, step 140 has 80"


def test_epsilon_goes_on_where_it_was_though_the_frames_were_not_saved(module, monkeypatch, tmp_path):
    """It falls by a hundredth in each step of the whole run: it counts steps, not the transitions that are there."""
    gym.registry.pop("Film-v0", None)
    gym.register("Film-v0", Film, disable_env_checker=True)
    used, true = [], module.Agent.act
    monkeypatch.setattr(module.FrameBuffer, "saved_size", 1000)
    monkeypatch.setattr(
        module.Agent, "act", lambda agent, *args, **how: used.append(agent.epsilon) or true(agent, *args, **how)
    )
    args = {"env_id": "Film-v0", "total_timesteps": 40, "learning_starts": 39, "epsilon_end": 0.0}
    args |= {"epsilon_duration": 100, "eval_interval": 0, "cuda": False, "out_dir": str(tmp_path)}
    module.train(module.Args(**args))
    first, used[:] = used[:], []
    [folder] = tmp_path.iterdir()
    module.train(module.Args(resume=str(folder), total_timesteps=43))
    assert first[:3] + first[-1:] == pytest.approx([0.99, 0.98, 0.97, 0.6])
    assert used == pytest.approx([0.59, 0.58, 0.57])


class Lives(gym.Env):
    """Loses a life in each third step; the observation of a reset is 100, those of steps are their numbers."""

    observation_space, action_space = gym.spaces.Box(0, 100, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.array([100.0]), {}

    def step(self, action):
        self.time += 1
        return np.array([float(self.time)]), 1.0, self.time == 3, False, {}


@pytest.mark.parametrize("module", [dqn, ddqn, ppo_discrete], ids=["dqn", "ddqn", "ppo_discrete"])
def test_game_goes_on_after_a_lost_life_with_what_its_reset_shows(module):
    env = module.WholeGame(Lives())
    env.reset()
    seen = [env.step(0) for _ in range(7)]
    assert [obs.item() for obs, *_ in seen] == [1, 2, 100, 1, 2, 100, 1]
    assert not any(terminated or truncated for _, _, terminated, truncated, _ in seen)


class Counter(gym.Env):
    """obs = [episode, step in the episode]; episodes of 3, 7, 5 steps end by termination, time limit, both at once."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Discrete(2)
    lengths = (3, 7, 5)

    def __init__(self, render_mode=None):
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time, self.ended = self.episode + 1, 0, False
        return np.array([self.episode, 0.0], np.float32), {}

    def step(self, action):
        assert not self.ended, "stepped after the end of an episode"
        self.time += 1
        kind, self.ended = self.episode % 3, self.time == self.lengths[self.episode % 3]
        obs = np.array([self.episode, self.time], np.float32)
        return obs, 1.0, self.ended and kind != 1, self.ended and kind != 0, {}


class OneStep(gym.Env):
    """Action 1 earns 1, action 0 nothing, and either ends the episode: by termination, or by a time limit."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, limit=False, render_mode=None):
        self.limit = limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(action), not self.limit, self.limit, {}


class Movie(gym.Env):
    """Stacks of frames that say episode and step, in episodes of five steps."""

    observation_space, action_space = FRAMES, gym.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time = (self.episode + 1) % 16, 0
        self.stack = [stamp(self.episode, 0)] * 4
        return np.stack(self.stack), {}

    def step(self, action):
        self.time += 1
        self.stack = [*self.stack[1:], stamp(self.episode, self.time)]
        return np.stack(self.stack), float(16 * self.episode + self.time), False, self.time == 5, {}


for name, entry_point, kwargs in (
    ("DiscreteCounter-v0", Counter, {}),
    ("DiscreteTerminating-v0", OneStep, {}),
    ("DiscreteTruncating-v0", OneStep, {"limit": True}),
    ("Movie-v0", Movie, {}),
):
    gym.register(name, entry_point, kwargs=kwargs, disable_env_checker=True)


def run(module, tmp_path, **changes):
    args = {"cuda": False, "out_dir": str(tmp_path), "eval_interval": 0, "checkpoint_interval": 0, "batch_size": 8}
    return module.train(module.Args(**args | {"log_interval": 100} | changes))


def test_loop_stores_learns_and_copies_at_the_right_steps(module, tmp_path, monkeypatch):
    """90 steps, 40 before the first update; the target counts the steps of the run: episodes are shorter than 12."""
    added, updates, copies, epsilons = [], [], [], []
    add, update, update_target, act = (
        module.ReplayBuffer.add, module.Agent.update, module.Agent.update_target, module.Agent.act
    )  # fmt: skip

    def recording_act(agent, obs, explore):
        epsilons.append(agent.epsilon)
        assert explore
        return act(agent, obs, explore)

    def copy(agent):
        copies.append((len(added), updates[-1]))
        update_target(agent)

    monkeypatch.setattr(module.ReplayBuffer, "add", lambda buffer, *t: (added.append(t), add(buffer, *t)))
    monkeypatch.setattr(module.Agent, "update", lambda agent, b: (updates.append(len(added)), update(agent, b))[1])
    monkeypatch.setattr(module.Agent, "update_target", copy)
    monkeypatch.setattr(module.Agent, "act", recording_act)
    intervals = {"learning_starts": 40, "train_interval": 5, "target_update_interval": 12}
    run(module, tmp_path, env_id="DiscreteCounter-v0", total_timesteps=90, epsilon_duration=50, **intervals)
    assert updates == list(range(45, 91, 5)) and [step for step, _ in copies] == [48, 60, 72, 84]
    assert copies[1] == (60, 60), "the target gets what the update of the same step has made"
    assert epsilons == pytest.approx([max(0.05, 1 - 0.95 * step / 50) for step in range(1, 91)])
    expected, episode, time = [], 0, 0
    for obs, _, _, next_obs, terminated in added:
        expected.append(([episode, time], [episode, time + 1]))
        time += 1
        last = time == Counter.lengths[episode % 3]
        assert terminated == (last and episode % 3 != 1)
        episode, time = (episode + 1, 0) if last else (episode, time)
        assert (list(obs), list(next_obs)) == expected[-1]


@pytest.mark.parametrize(("env_id", "value"), [("DiscreteTerminating-v0", 1.0), ("DiscreteTruncating-v0", 2.0)])
def test_value_of_a_one_step_task(module, tmp_path, env_id, value):
    """Discount 1/2: a termination is worth its reward, 1; a time limit bootstraps, 1 / (1 - 1/2)."""
    args = {"total_timesteps": 900, "learning_starts": 100, "gamma": 0.5, "batch_size": 64, "learning_rate": 3e-3}
    agent = run(module, tmp_path, env_id=env_id, train_interval=1, target_update_interval=20, **args)
    q = agent.q_network(torch.zeros(1, 1))[0]
    assert q[1].item() == pytest.approx(value, abs=0.05) and q[0].item() == pytest.approx(value - 1, abs=0.1)
    assert agent.act(np.zeros(1, np.float32), explore=False) == 1


def test_loop_with_frames_stores_whole_stacks(module, tmp_path, monkeypatch):
    batches, update = [], module.Agent.update
    monkeypatch.setattr(module.Agent, "update", lambda agent, batch: (batches.append(batch), update(agent, batch))[1])
    lengths = {"total_timesteps": 60, "learning_starts": 20, "train_interval": 10, "buffer_size": 30}
    run(module, tmp_path, env_id="Movie-v0", **lengths)
    assert len(batches) == 4
    for batch in batches:
        for obs, next_obs, reward in zip(batch.obs, batch.next_obs, batch.reward, strict=True):
            episode, time = divmod(int(reward), 16)
            times = [max(0, t) for t in range(time - 4, time + 1)]
            assert obs[:, 0, 0].tolist() == [16 * episode + t for t in times[:-1]]
            assert next_obs[:, 0, 0].tolist() == [16 * episode + t for t in times[1:]]


# ---- Atari ----
def test_atari_has_the_preprocessing_of_the_papers_and_raw_scores(module):
    """Breakout, acted at random to the end of games: each lost life ends an episode, the score comes at the fifth."""
    env = module.make_env("BreakoutNoFrameskip-v4", training=True)
    assert env.observation_space == FRAMES and env.observation_space.dtype == np.uint8
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (4, 84, 84) and obs.dtype == np.uint8 and obs.max() > 0
    ends, rewards, scores, lengths = 0, [], [], []
    while len(scores) < 4:
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        rewards.append(reward)
        ends += terminated
        if "episode" in info:
            scores.append(float(info["episode"]["r"]))
            lengths.append(info["episode"]["l"])
        if terminated or truncated:
            env.reset()
    assert ends == 5 * 4 and set(rewards) <= {-1.0, 0.0, 1.0} and sum(scores) >= sum(rewards) > 0
    assert len(rewards) <= sum(lengths) <= len(rewards) + 4 * 5 * 10, "in steps of four frames, with those of a reset"
    evaluation = module.make_env("BreakoutNoFrameskip-v4")
    evaluation.reset(seed=0)
    for _ in range(1000):  # an agent that never presses FIRE gets its next balls all the same
        *_, terminated, truncated, info = evaluation.step(3)
        assert terminated == ("episode" in info) and not truncated
        if terminated:
            break
    assert "episode" in info and evaluation.unwrapped.ale.lives() == 0, "evaluations play whole games"


def test_compiled_update_learns_the_same(module, capsys):
    agents = make_agent(module), make_agent(module, compile=True)
    compiled = module.speed_up(agents[1].update, agents[1].args)
    for i in range(50):
        losses = agents[0].update(make_batch(i)), compiled(make_batch(i))
        for name, value in losses[0].items():  # of before a step, not of after it
            assert value.item() == pytest.approx(losses[1][name].item(), rel=1e-4, abs=1e-5), name
    for a, b in zip(parameters(agents[0].q_network), parameters(agents[1].q_network), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert "going on without" not in capsys.readouterr().out


# ---- Networks, step sizes, longer runs ----
def test_network_of_vectors_has_120_and_84_rectified_units(module):
    """Through one unit of each layer 0.5 stays 0.5 and -0.5 becomes 0."""
    network = make_agent(module).q_network.net
    linears = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [(4, 120), (120, 84), (84, 3)]
    for parameter in network.parameters():
        parameter.data.zero_()
    for sign, expected in ((1.0, [0.5, 0.0]), (-1.0, [0.0, 0.0])):
        for layer, weight in zip(linears, (1.0, sign, 1.0), strict=True):
            layer.weight.data[0, 0] = weight
        q = network(torch.tensor([[0.5, 0, 0, 0], [-0.5, 0, 0, 0]]))
        assert q[:, 0].tolist() == expected


def test_step_size_is_the_learning_rate(module):
    """The first step of Adam moves what has a clear gradient by it."""
    agent = make_agent(module, learning_rate=3e-3)
    before = parameters(agent.q_network)
    agent.update(make_batch())
    moved = [(a - b).abs().max().item() for a, b in zip(before, parameters(agent.q_network), strict=True)]
    assert moved == pytest.approx([3e-3] * 6, rel=0.05)


@pytest.mark.parametrize("lengths", [(2,) * 10, (12, 8)], ids=["ring that began anew", "ring with room"])
def test_frames_of_a_checkpoint_go_into_the_larger_buffer_of_a_longer_run(module, lengths):
    """Twenty transitions in a buffer for twenty, loaded by one for forty, to which fifteen more are added."""
    transitions = list(episodes_of_frames((*lengths, 6, 9)))
    buffer, longer = (module.FrameBuffer((4, 84, 84), capacity, torch.device("cpu")) for capacity in (20, 40))
    for transition in transitions[:20]:
        buffer.add(*transition)
    longer.load_state_dict(buffer.state_dict())
    kept = sorted(buffer.sample(400).reward.unique().tolist())
    for added in ([], transitions[20:]):
        for transition in added:
            longer.add(*transition)
            kept.append(transition[2])
        batch = longer.sample(600)
        rewards = sorted(batch.reward.unique().tolist())
        assert rewards == kept[-len(rewards) :] and len(rewards) >= len(kept) - 2, "of short episodes a few less"
        for obs, action, reward, next_obs, terminated in zip(*(value.numpy() for value in batch), strict=True):
            [expected] = [transition for transition in transitions if transition[2] == reward]
            assert np.array_equal(obs, expected[0]) and np.array_equal(next_obs, expected[3])
            assert action[0] == expected[1] and terminated == expected[4]


def test_exponential_schedule_is_as_long_as_its_help_says(module):
    """With the factor that is the default ε is at 0.05 after 150,000 steps, and not before."""
    args = module.Args(epsilon_schedule="exponential", cuda=False)
    agent = module.Agent(OBS_SPACE, ACTION_SPACE, args)
    for step, epsilon in ((0, 1.0), (75_000, 0.2231), (149_000, 0.0508), (150_000, 0.05)):
        agent.anneal(step)
        assert agent.epsilon == pytest.approx(epsilon, abs=1e-4)


@pytest.mark.parametrize("obs_space", [OBS_SPACE, FRAMES], ids=["vectors", "frames"])
def test_update_keeps_every_tensor_on_the_device(module, obs_space, monkeypatch):
    """Buffer and update on the device "meta": a tensor that is left on the CPU, or read back, raises."""
    monkeypatch.setattr(module, "pick_device", lambda args: torch.device("meta"))
    agent = make_agent(module, obs_space)
    buffer = module.make_buffer(obs_space, 10, agent.device)
    for _ in range(3):
        buffer.add(np.zeros(obs_space.shape, obs_space.dtype), np.array(1), 0.0, np.zeros(obs_space.shape), False)
    batch = buffer.sample(8)
    losses = agent.update(batch)
    agent.update_target()
    assert {value.device.type for value in (*batch, *losses.values(), *agent.state_dict().values())} == {"meta"}
