"""The loop of `train` on scripted environments: what is stored, when it learns, where it bootstraps, what is saved."""

import copy
import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch

import ddpg
import ddqn
import dqn
import ppo_continuous
import ppo_discrete
import sac_continuous
import td3

MODULES = [ddpg, td3, sac_continuous]
OFF_POLICY = [*MODULES, dqn, ddqn]
PPO = [ppo_discrete, ppo_continuous]
DISCRETE = [dqn, ddqn, ppo_discrete]
# arguments with which a script learns the one-step task in a second: little exploration, so that Q knows the value
ONE_STEP = {
    "ddpg": {"actor_lr": 1e-3},
    "td3": {"actor_lr": 1e-3, "target_noise": 0.02},
    "sac_continuous": {"autotune": False, "alpha": 1e-3},
}


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


class DiscreteCounter(Counter):
    action_space = gym.spaces.Discrete(2)


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
    ("CounterOfChoices-v0", DiscreteCounter, {}),
    ("Terminating-v0", OneStep, {}),
    ("Truncating-v0", OneStep, {"limit": True}),
):
    gym.register(name, entry_point, kwargs=kwargs, disable_env_checker=True)


class Recording:
    """What went through a run: environments, added transitions, updates, actions of the agent."""

    def __init__(self, module, monkeypatch):
        self.envs, self.added, self.num_updates, self.filled, self.acts = [], [], 0, [], []
        self.batches = []
        make_env, add = module.make_env, module.ReplayBuffer.add
        update, act = module.Agent.update, module.Agent.act

        def recording_make_env(*args, **kwargs):
            self.envs.append(make_env(*args, **kwargs))
            return self.envs[-1]

        def recording_add(buffer, obs, action, reward, next_obs, terminated):
            self.added.append((np.array(obs), np.array(action), reward, np.array(next_obs), terminated))
            add(buffer, obs, action, reward, next_obs, terminated)

        def recording_update(agent, batch):
            self.num_updates += 1
            self.filled.append(len(self.added))
            self.batches.append(batch.obs.flatten().tolist())
            return update(agent, batch)

        def recording_act(agent, obs, explore):
            self.acts.append((np.array(obs), explore))
            return act(agent, obs, explore)

        monkeypatch.setattr(module, "make_env", recording_make_env)
        monkeypatch.setattr(module.ReplayBuffer, "add", recording_add)
        monkeypatch.setattr(module.Agent, "update", recording_update)
        monkeypatch.setattr(module.Agent, "act", recording_act)


def run(module, tmp_path, **changes):
    args = {"cuda": False, "compile": False, "out_dir": str(tmp_path), "eval_interval": 0, "checkpoint_interval": 0}
    args |= {"log_interval": 100} | ({} if module in PPO else {"batch_size": 8})
    return module.train(module.Args(**args | changes))


def counter(module):
    """The environment that counts, with actions that suit the script."""
    return "CounterOfChoices-v0" if module in DISCRETE else "Counter-v0"


def name_of(module):
    return module.__name__


@pytest.fixture(scope="module", params=MODULES, ids=name_of)
def module(request):
    return request.param


def record_saves(module, monkeypatch, num_failures=0):
    """The files that are written from now on, with their steps; the first ones fail, as on a full disk."""
    attempts, save = [], module.save

    def recording_save(state, path):
        attempts.append((path.name, state["step"]))
        if len(attempts) <= num_failures:
            raise OSError("No space left on device")
        save(state, path)

    monkeypatch.setattr(module, "save", recording_save)
    return attempts


def same_states(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def counted(module, tmp_path_factory):
    """90 steps, 40 of them random, in the environment that counts."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        recording = Recording(module, monkeypatch)
        run(module, tmp_path_factory.mktemp("counted"), env_id="Counter-v0", total_timesteps=90, learning_starts=40)
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


def test_evaluation_is_separate_deterministic_and_repeats(module, tmp_path, monkeypatch):
    recording = Recording(module, monkeypatch)
    args = {"env_id": "Pendulum-v1", "total_timesteps": 30, "learning_starts": 20, "eval_interval": 30}
    agent = run(module, tmp_path, **args, eval_episodes=2)
    assert len(recording.added) == 30, "evaluation must store nothing"
    assert sum(not explore for _, explore in recording.acts) == 400
    args = module.Args(env_id="Pendulum-v1", cuda=False, eval_episodes=3)
    first = module.evaluate(agent, args)
    assert len(first) == 3 and len(set(first)) == 3 and first == module.evaluate(agent, args)


@pytest.mark.parametrize(("env_id", "value"), [("Terminating-v0", 1.0), ("Truncating-v0", 2.0)])
def test_value_of_a_one_step_task(module, tmp_path, env_id, value):
    """Discount 1/2: a termination is worth its reward, 1; a time limit bootstraps, 1 / (1 - 1/2). And a* = 0.5."""
    args = {"total_timesteps": 450, "learning_starts": 100, "gamma": 0.5, "tau": 0.1, "batch_size": 64}
    lrs = {"actor_lr": 3e-3, "critic_lr": 3e-3, **ONE_STEP[module.__name__]}
    agent = run(module, tmp_path, env_id=env_id, **args, **lrs)
    action = agent.act(np.zeros(1), explore=False)
    critic = agent.critic if module is ddpg else agent.critics[0]
    q = critic(torch.zeros(1, 1), torch.from_numpy(action)[None]).item()
    assert action[0] == pytest.approx(0.5, abs=0.12)
    assert q == pytest.approx(value, abs=0.08)


@pytest.mark.slow
def test_pendulum_is_solved(module, tmp_path):
    agent = run(module, tmp_path, env_id="Pendulum-v1", total_timesteps=10_000, learning_starts=1_000, batch_size=256)
    assert np.mean(module.evaluate(agent, module.Args(env_id="Pendulum-v1", cuda=False))) > -200


# ---- Intervals ----
@pytest.mark.parametrize(("train_interval", "gradient_steps"), [(1, 1), (3, 1), (1, 3), (4, 2)])
@pytest.mark.parametrize("module", OFF_POLICY, ids=name_of)
def test_each_train_interval_makes_its_gradient_steps(module, train_interval, gradient_steps, tmp_path, monkeypatch):
    """At the multiples of train_interval in the steps of the run, not of the episode; none during the first steps.

    Of these there are more than the buffer has places: they count all the same.
    """
    recording = Recording(module, monkeypatch)
    lengths = {"total_timesteps": 60, "learning_starts": 20, "log_interval": 12, "buffer_size": 15}
    intervals = {"train_interval": train_interval, "gradient_steps": gradient_steps}
    run(module, tmp_path, env_id=counter(module), **lengths, **intervals)
    expected = [step for step in range(21, 61) if step % train_interval == 0 for _ in range(gradient_steps)]
    assert recording.filled == expected and len(recording.added) == 60
    assert all(one != other for one, other in itertools.pairwise(recording.batches)), "each has a batch of its own"
    assert {len(batch) for batch in recording.batches} == {8 * 2}, "of batch_size transitions, with two numbers each"


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_actions_are_random_until_learning_starts_whatever_the_interval(module, tmp_path, monkeypatch):
    recording = Recording(module, monkeypatch)
    run(module, tmp_path, env_id="Counter-v0", total_timesteps=60, learning_starts=25, train_interval=10)
    assert [list(obs) for obs, explore in recording.acts if explore] == [list(obs) for obs, *_ in recording.added[25:]]


@pytest.mark.parametrize("module", [*OFF_POLICY, *PPO], ids=name_of)
def test_loop_learns_by_the_update_that_was_made_faster(module, tmp_path, monkeypatch):
    """What speed_up makes of the agent's own, with the arguments of the run, is what every batch goes to."""
    made, batches = [], []

    def speed_up(update, args):
        made.append((update.__name__, args.seed))
        return lambda batch: batches.append(batch) or update(batch)

    monkeypatch.setattr(module, "speed_up", speed_up)
    if module in PPO:
        lengths = {"total_timesteps": 24, "num_envs": 1, "num_steps": 12, "num_minibatches": 3, "update_epochs": 2}
    else:
        lengths = {"total_timesteps": 32, "learning_starts": 20, "train_interval": 1}
    run(module, tmp_path, env_id=counter(module), seed=4, **lengths)
    assert made == [("update_minibatch" if module in PPO else "update", 4)] and len(batches) == 12


# ---- Checkpoints ----
@pytest.mark.parametrize("module", OFF_POLICY, ids=name_of)
def test_checkpoints_come_at_ends_of_episodes_and_begin_anew(module, tmp_path, monkeypatch):
    """At the first end that is 20 steps after the last one, or more; then comes the first episode of a new environment.

    Ends are after 3, 10, 15, 18, 25 steps of an environment: checkpoints at 25 and 50, and the last.
    """
    recording, attempts = Recording(module, monkeypatch), record_saves(module, monkeypatch)
    args = {"total_timesteps": 60, "learning_starts": 20, "checkpoint_interval": 20, "train_interval": 10}
    run(module, tmp_path, env_id=counter(module), **args)
    assert attempts == [(name, step) for step in (25, 50, 60) for name in ("agent.pt", "checkpoint.pt")]
    expected = []
    for start, steps in ((0, 25), (25, 25), (50, 10)):
        episode, time = 0, 0
        while len(expected) < start + steps:
            expected.append(([episode, time], [episode, time + 1]))
            time += 1
            if time == Counter.lengths[episode % 3]:
                episode, time = episode + 1, 0
    assert [(list(obs), list(next_obs)) for obs, _, _, next_obs, _ in recording.added] == expected


@pytest.mark.parametrize("module", PPO, ids=name_of)
def test_ppo_cuts_its_episodes_at_a_checkpoint(module, tmp_path, monkeypatch):
    """As a time limit would: done, not terminated, with the true successor; then come new episodes. None is logged.

    Two environments and rollouts of 16 steps: a checkpoint at 48, after 24 steps of each, in an episode's middle.
    """
    batches, update, logged, log = [], module.Agent.update, [], module.Run.log_episode
    attempts = record_saves(module, monkeypatch)

    def recording_update(agent, batch, *rest):
        batches.append(copy.deepcopy(batch))
        return update(agent, batch, *rest)

    def recording_log(run, episodic_return, length):
        logged.append((run.step, int(length)))
        log(run, episodic_return, length)

    monkeypatch.setattr(module.Agent, "update", recording_update)
    monkeypatch.setattr(module.Run, "log_episode", recording_log)
    sizes = {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "update_epochs": 1}
    run(module, tmp_path, env_id=counter(module), total_timesteps=80, checkpoint_interval=40, **sizes)
    assert attempts == [(name, step) for step in (48, 80) for name in ("agent.pt", "checkpoint.pt")]
    obs, next_obs, terminated, done = (
        torch.cat([getattr(batch, name) for batch in batches]) for name in ("obs", "next_obs", "terminated", "done")
    )
    ends = []
    for n in range(2):
        episode = time = 0
        for t in range(40):
            assert obs[t, n].tolist() == [episode, time]
            time += 1
            assert next_obs[t, n].tolist() == [episode, time]
            kind, ended = episode % 3, time == Counter.lengths[episode % 3]
            assert (done[t, n], terminated[t, n]) == (ended or t == 23, ended and kind != 1)
            if ended:
                ends.append((2 * (t + 1), time))
                episode, time = episode + 1, 0
            if t == 23:
                assert not ended, "or this would not be a cut"
                episode = time = 0
    assert sorted(logged) == sorted(ends)


@pytest.mark.parametrize("module", [*OFF_POLICY, *PPO], ids=name_of)
def test_checkpoint_that_cannot_be_written_costs_a_warning_and_no_more(module, tmp_path, monkeypatch, capsys):
    """The next one is tried a whole interval later; and training is that of a run whose disk has room."""
    args = {"env_id": counter(module), "total_timesteps": 96, "checkpoint_interval": 20}
    if module in PPO:
        args |= {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "update_epochs": 1}
    else:
        args |= {"learning_starts": 20, "train_interval": 10}
    expected = run(module, tmp_path / "roomy", **args)
    capsys.readouterr()
    attempts = record_saves(module, monkeypatch, num_failures=2)
    agent = run(module, tmp_path / "full", **args)
    [*warnings, rest] = capsys.readouterr().err.split("\n")
    assert rest == "" and len(warnings) == 2 and all("No space left on device" in line for line in warnings)
    first, second, third, last = (32, 64, 96, 96) if module in PPO else (25, 50, 75, 96)
    assert attempts[:2] == [("agent.pt", first), ("agent.pt", second)]
    assert attempts[2:] == [(name, step) for step in (third, last) for name in ("agent.pt", "checkpoint.pt")]
    assert same_states(agent, expected)
    assert [path.name for path in tmp_path.glob("full/*/*.tmp")] == []


def test_last_checkpoint_that_cannot_be_written_ends_with_an_error(module, tmp_path, monkeypatch, capsys):
    """For the run is not saved: a line with the command that goes on from the checkpoint before."""
    saves = record_saves(module, monkeypatch, num_failures=1)
    with pytest.raises(SystemExit) as stop:
        run(module, tmp_path, env_id="Counter-v0", total_timesteps=40, learning_starts=20)
    assert saves == [("agent.pt", 40)] and "No space left on device" in capsys.readouterr().err
    assert "cannot be written" in stop.value.code and "--resume" in stop.value.code


@pytest.mark.parametrize("module", [dqn, ddqn], ids=name_of)
def test_frames_go_into_the_larger_buffer_of_a_run_made_longer(module):
    """A buffer is no larger than the run: made longer, it has more places, and frames that lay in a ring move."""

    def transitions(first, last):
        for number in range(first, last):  # episodes of one step, the stack of which is its number
            obs = np.full((4, 84, 84), number, np.uint8)
            yield obs, number % 2, float(number), np.concatenate([obs[1:], obs[:1] + 100]), True

    small, large = (module.FrameBuffer((4, 84, 84), capacity, torch.device("cpu")) for capacity in (40, 100))
    for transition in transitions(0, 40):
        small.add(*transition)
    large.load_state_dict(small.state_dict())
    for transition in transitions(40, 60):
        large.add(*transition)
    batch = large.sample(500)
    assert {50.0, 59.0} < set(batch.reward.tolist())
    assert (batch.obs == batch.reward[:, None, None, None]).all()
    assert (batch.next_obs[:, -1] == 100 + batch.reward[:, None, None]).all()


class OneArray(gym.Env):
    """Writes each obs, the step in the episode, into the same array, that of a reset too."""

    observation_space, action_space = gym.spaces.Box(-np.inf, np.inf, (1,)), gym.spaces.Box(-1, 1, (1,))

    def __init__(self, render_mode=None):
        self.obs = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.obs[:] = 0
        return self.obs, {}

    def step(self, action):
        self.obs += 1
        return self.obs, 0.0, False, bool(self.obs[0] == 3), {}


class OneArrayOfChoices(OneArray):
    action_space = gym.spaces.Discrete(2)


gym.register("OneArray-v0", OneArray, disable_env_checker=True)
gym.register("OneArrayOfChoices-v0", OneArrayOfChoices, disable_env_checker=True)


@pytest.mark.parametrize("module", PPO, ids=name_of)
def test_last_observation_in_an_array_that_the_reset_writes_into_is_the_true_one(module, tmp_path, monkeypatch):
    """Or the value at a time limit would be that of the first observation of the next episode."""
    batches, update = [], module.Agent.update
    monkeypatch.setattr(
        module.Agent, "update", lambda agent, batch, *f: (batches.append(batch), update(agent, batch, *f))[1]
    )
    env_id = "OneArrayOfChoices-v0" if module is ppo_discrete else "OneArray-v0"
    sizes = {"num_envs": 1, "num_steps": 6, "num_minibatches": 2, "update_epochs": 1}
    run(module, tmp_path, env_id=env_id, total_timesteps=6, **sizes)
    assert batches[0].obs.flatten().tolist() == [0, 1, 2, 0, 1, 2]
    assert batches[0].next_obs.flatten().tolist() == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("module", [ddpg, td3, sac_continuous], ids=lambda module: module.__name__)
def test_array_that_an_environment_writes_into_again_is_copied(module, tmp_path, monkeypatch):
    """From the first step of the run, of an episode, and of what follows a checkpoint, in step 6, on."""
    stored, add = [], module.ReplayBuffer.add
    monkeypatch.setattr(
        module.ReplayBuffer,
        "add",
        lambda buffer, *t: (stored.append((float(t[0][0]), float(t[3][0]))), add(buffer, *t)),
    )
    lengths = {"total_timesteps": 12, "learning_starts": 11, "checkpoint_interval": 6}
    run(module, tmp_path, env_id="OneArray-v0", **lengths)
    assert stored == [(0, 1), (1, 2), (2, 3)] * 4


# ---- One by one ----
def test_camera_follows_a_runner(module):
    """Ten metres from where it started, Hopper is still in the picture: by the colour of its limbs."""
    env = module.make_env("Hopper-v5", render=True)
    env.reset(seed=0)
    state = env.unwrapped
    try:
        env.render()
    except Exception as error:
        pytest.skip(f"MuJoCo cannot draw here: {error}")
    state.set_state(np.append(10.0, state.data.qpos[1:]), state.data.qvel)
    frame = env.render().astype(int)
    assert (frame[..., 0] - frame[..., 2] > 60).sum() > 1000


def test_ddpg_noise_restarts_with_each_episode(tmp_path, monkeypatch):
    """An Ornstein-Uhlenbeck process that has drifted far away is at zero where an episode begins."""
    before = []
    act = ddpg.Agent.act

    def recording_act(agent, obs, explore):
        before.append((obs[1], agent.noise.clone()))
        return act(agent, obs, explore)

    monkeypatch.setattr(ddpg.Agent, "act", recording_act)
    run(ddpg, tmp_path, env_id="Counter-v0", total_timesteps=60, learning_starts=20, noise_process="ou")
    assert len(before) == 40
    for time, noise in before[1:]:
        assert (noise == 0).all() == (time == 0)


def test_td3_delay_is_counted_over_the_whole_run(tmp_path, monkeypatch):
    """The actor moves in each tenth update: a count within the episode, of 3, 7 or 5 steps, never gets there."""
    moved, update = [], td3.Agent.update

    def recording_update(agent, batch):
        before = [parameter.clone() for parameter in (*agent.actor.parameters(), *agent.critics_target.parameters())]
        metrics = update(agent, batch)
        after = (*agent.actor.parameters(), *agent.critics_target.parameters())
        moved.append([not torch.equal(a, b) for a, b in zip(before, after, strict=True)])
        return metrics

    monkeypatch.setattr(td3.Agent, "update", recording_update)
    run(td3, tmp_path, env_id="Counter-v0", total_timesteps=65, learning_starts=20, policy_delay=10)
    assert [all(each) for each in moved] == [i % 10 == 0 for i in range(1, 46)]
    assert [any(each) for each in moved] == [i % 10 == 0 for i in range(1, 46)]


@pytest.mark.parametrize("module", [ddpg, td3], ids=["ddpg", "td3"])
def test_noise_stays_in_an_asymmetric_box_and_reaches_its_bounds(module, tmp_path, monkeypatch):
    """Noise ten times as large as the range: what is executed is inside in each dimension, and on both bounds."""
    recording = Recording(module, monkeypatch)
    args = {"total_timesteps": 220, "learning_starts": 20, "exploration_noise": 10.0}
    run(module, tmp_path, env_id="Counter-v0", **args)
    executed = np.array(recording.envs[-1].unwrapped.executed)[20:]
    stored = np.array([action for _, action, *_ in recording.added])[20:]
    low, high = Counter.action_space.low, Counter.action_space.high
    assert (executed >= low).all() and (executed <= high).all()
    assert np.allclose(executed.min(0), low) and np.allclose(executed.max(0), high)
    assert np.allclose(executed, low + (stored + 1) / 2 * (high - low), atol=1e-6), "the buffer has what was executed"
