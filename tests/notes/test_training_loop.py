"""When the training loops reset, store, learn and move the actor, and the noise and range of their actions."""

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import ddpg
import ddqn
import dqn
import sac_continuous
import td3
from notes.conftest import Clock, Log
from notes.helpers import OFF_POLICY, T, gaussian_grid, make, outputs, spy, squashed_log_prob, transitions


def smoothed_value(q, action, noise, weight, clip):
    """E[q(a')] with our target action, for noise on a grid with its probabilities."""
    smoothed = td3.smooth_target_action(T(action, dtype=torch.float64), noise, clip)
    return (weight * q(smoothed)).sum().item()


def test_E003_4_state_advances_before_learning_starts(logs):
    """An s that waits for learning to start gives (0, 1), (0, 2), (0, 3); ours starts where the last step ended."""
    stored, s = [], 0
    for step in range(1, 6):
        stored.append((s, step))
        s = step if len(stored) >= 3 else s
    assert stored == [(0, 1), (0, 2), (0, 3), (3, 4), (4, 5)]
    for module in OFF_POLICY:
        for (*_, next_obs, _), (obs, *_) in itertools.pairwise(logs[module].added):
            assert np.array_equal(obs, next_obs) or obs.tolist() == [next_obs[0] + 1, 0]
        assert all((next_obs - obs).tolist() == [0, 1] for obs, _, _, next_obs, _ in logs[module].added)


def test_E003_5_episodes_are_reset_at_their_end(logs):
    """T = 20 steps in each of three episodes of 3, 7, 5 steps are 45 too many; ours resets at an end of either kind."""
    env = Clock(discrete=True)
    for _ in range(3):
        env.reset()
        for _ in range(20):
            env.step(0)
    assert env.num_illegal == 45
    for module in OFF_POLICY:
        env = logs[module].env.unwrapped
        assert env.num_illegal == 0 and env.episode == 90 // 15 * 3, "90 steps: six times all three episodes"


def test_R003_46_learning_waits_for_learning_starts(logs):
    """Nothing is learned before learning_starts transitions are stored, 40 here: five times a batch."""
    for module in (dqn, ddqn):
        assert logs[module].updates == list(range(45, 91, 5))


def test_E003_26_sampling_too_early_repeats_one_transition(logs):
    """At t = 1 all N samples are the same transition; ours learns from the 41st on, of rows that were written."""
    buffer = ddpg.ReplayBuffer(1, 1, 100, torch.device("cpu"))
    buffer.add(np.zeros(1), np.zeros(1), 1.0, np.zeros(1), False)
    assert len(buffer.sample(64).reward.unique()) == 1
    buffer.rows[1:] = math.nan
    for reward in (2.0, 3.0):
        buffer.add(np.zeros(1), np.zeros(1), reward, np.zeros(1), False)
    assert set(buffer.sample(64).reward.tolist()) == {1.0, 2.0, 3.0}
    for module in (ddpg, td3):
        assert logs[module].updates == list(range(41, 91))
        assert module.Args().learning_starts == 25_000


def test_E003_3_copies_are_counted_over_the_run(logs):
    """t of the episode: 500 episodes of 20 steps and C = 100 make no copy. Ours comes in every 12th step of the run."""
    assert sum(t % 100 == 0 for _ in range(500) for t in range(1, 21)) == 0
    assert sum(t % 100 == 0 for t in range(1, 500 * 20 + 1)) == 100
    for module in (dqn, ddqn):
        assert max(Clock.lengths) < 12 and logs[module].copies == [48, 60, 72, 84]


def test_E003_33_delay_counts_updates_of_the_run(logs):
    """In episodes of at most 7 steps a tenth one never comes; ours moves the actor in every tenth update of the run."""
    assert not any(t % 10 == 0 for length in Clock.lengths for t in range(1, length + 1))
    moved = logs[td3].moved
    assert [("actor" in each) for each in moved] == [i % 10 == 0 for i in range(1, 51)]
    assert all(("actor_target" in each) == ("actor" in each) == ("critics_target" in each) for each in moved)
    assert all("critics" in each for each in moved)


def test_R003_17_actor_and_targets_move_together_delayed():
    """Actor and all targets move in every third update, together, and not in between; the critics move in each."""
    agent = make(td3, policy_delay=3)
    slow = [agent.actor, agent.actor_target, agent.critics_target[0], agent.critics_target[1]]
    for i in range(1, 8):
        before = [network.net[-1].bias.clone() for network in [*slow, *agent.critics]]
        agent.update(transitions(td3))
        after = [network.net[-1].bias for network in [*slow, *agent.critics]]
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert moved == [i % 3 == 0] * 4 + [True] * 2


def test_E003_22_noisy_actions_are_clipped_before_storing(logs):
    """0.95 + noise of 0.2 is above 1 in two of five steps; ours stays inside, and stores what was executed."""
    noise, weight = gaussian_grid()
    assert weight[0.95 + 0.2 * noise > 1].sum().item() == pytest.approx(0.40, abs=0.005)
    agent = make(ddpg, exploration_noise=10.0)
    actions = np.stack([agent.act(np.ones(4, np.float32), explore=True) for _ in range(100)])
    assert np.abs(actions).max() <= 1 and (np.abs(actions) == 1).mean() > 0.8, "the noise is larger than the range"
    stored, executed = np.array([each[1] for each in logs[ddpg].added]), np.array(logs[ddpg].env.unwrapped.executed)
    assert np.allclose(executed, np.array([-1, 0]) + (stored + 1) / 2 * np.array([3, 5]), atol=1e-6)


def test_E003_35_asymmetric_range_needs_both_bounds(logs):
    """In a Box from [-1, 0] to [2, 5], a cut at ±a_max lets [-2, -5] through; ours stays inside, up to both ends."""
    box = Clock(discrete=False).action_space
    assert not box.contains(np.clip(np.full(2, -9, np.float32), -box.high, box.high))
    for module in (ddpg, td3):
        assert all(box.contains(action) for action in logs[module].env.unwrapped.executed)
        env = module.make_env("BoxClock-v0")
        env.reset(seed=0)
        for sign in (-1, 1):
            env.step(np.full(2, sign, np.float32))
        assert np.allclose(env.unwrapped.executed, [box.low, box.high], atol=1e-6)
    assert td3.smooth_target_action(T([-0.9, 0.9]), T([-0.5, 0.5]), 0.5).tolist() == [-1.0, 1.0]


def test_E003_34_noise_scales_with_the_action_range(monkeypatch):
    """An absolute 0.2 is 0.13 and 0.08 of half ranges of 1.5 and 2.5; ours is a fifth of each: 0.3 and 0.5 executed."""
    assert (0.2 / np.array([1.5, 2.5])).tolist() == pytest.approx([0.133, 0.08], abs=1e-3)
    for module in (ddpg, td3):
        env = module.make_env("BoxClock-v0")
        env.reset(seed=0)
        for action in (0.0, 0.2):
            env.step(np.full(2, action, np.float32))
        first, second = env.unwrapped.executed
        assert second - first == pytest.approx([0.3, 0.5], abs=1e-6) and first == pytest.approx([0.5, 2.5])
    calls, agent = spy(monkeypatch, td3, "smooth_target_action"), make(td3, target_noise=0.3, noise_clip=0.1)
    agent.update(transitions(td3, size=4000))
    (next_action, noise, clip), smoothed = calls[0]
    assert noise.std().item() == pytest.approx(0.3, rel=0.03) and clip == 0.1
    assert (smoothed - next_action).abs().max().item() == pytest.approx(0.1, abs=1e-6)


def test_E003_52_actions_are_rescaled_to_the_environment():
    """Pendulum's torque goes to 2, a bare tanh to 1, ours to 2; in torques log π is less by log 2 per dimension."""
    env = sac_continuous.make_env("Pendulum-v1")
    env.reset(seed=0)
    for action in (-1.0, 1.0):
        assert env.action_space.contains(np.array([action], np.float32))
        env.step(np.array([action], np.float32))
        assert env.unwrapped.last_u == pytest.approx(2 * action)
    env.close()
    u = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    density = squashed_log_prob(u, 0.4, 0.7).exp()
    assert torch.trapezoid(density, u[:, 0].tanh()).item() == pytest.approx(1, abs=1e-5)
    assert torch.trapezoid(density, 2 * u[:, 0].tanh()).item() == pytest.approx(2, abs=1e-5)
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    steps = [torch.distributions.TanhTransform(cache_size=1), torch.distributions.AffineTransform(0, 2, cache_size=1)]
    scaled = torch.distributions.TransformedDistribution(base, steps)
    action, log_prob = sac_continuous.squash(torch.zeros(1, 2), torch.zeros(1, 2), T([[0.3, -0.6]]))
    assert (log_prob - scaled.log_prob(2 * action)).item() == pytest.approx(2 * math.log(2), abs=1e-4)


def test_E003_11_noise_size_is_a_deviation(monkeypatch):
    """0.2 is the deviation; as the variance it would make noise of 0.447, a quarter of which is cut at c = 0.5."""
    cut = math.erfc(0.5 / math.sqrt(2 * 0.2))
    assert math.sqrt(0.2) == pytest.approx(0.447, abs=1e-3) and cut == pytest.approx(0.264, abs=1e-3)
    calls, agent = spy(monkeypatch, td3, "smooth_target_action"), make(td3)
    agent.update(transitions(td3, size=4000))
    assert calls[0][0][1].std().item() == pytest.approx(0.2, rel=0.03)
    mean = agent.act(np.zeros(4, np.float32), explore=False)
    noise = [agent.act(np.zeros(4, np.float32), explore=True) - mean for _ in range(1000)]
    assert np.std(noise) == pytest.approx(0.1, rel=0.05)


def test_R003_45_ou_noise_restarts_each_episode(logs):
    """Zero where an episode begins, and nowhere else; within an episode 0.85 of the process stays: 0.85, 0.7225."""
    assert len(logs[ddpg].acts) == 50
    for time, noise in logs[ddpg].acts[1:]:
        assert noise.any().item() == (time != 0)
    agent = make(ddpg, noise_process="ou", exploration_noise=0.0)
    agent.noise.fill_(1)
    for expected in (0.85, 0.7225):
        agent.act(np.zeros(4, np.float32), explore=True)
        assert agent.noise.tolist() == pytest.approx([expected] * 2)


def test_R003_15_td3_target_clips_minimises_and_masks(monkeypatch):
    """Noise cut to c, action cut to its range, the smaller twin of each row, and no value after an end."""
    next_action, noise = T([[0.0, 0.9], [-0.9, 0.2]]), T([[0.8, 0.3], [-0.4, -0.1]])
    smoothed = td3.smooth_target_action(next_action, noise, 0.5)
    assert torch.allclose(smoothed, T([[0.5, 1.0], [-1.0, 0.1]]))
    y = td3.td_target(T([1.0, 1.0, 2.0]), T([0.0, 0.0, 1.0]), T([3.0, 5.0, 9.0]), T([4.0, 2.0, 8.0]), 0.9)
    assert y.tolist() == pytest.approx([3.7, 2.8, 2.0])
    calls, agent = spy(monkeypatch, td3, "td_target"), make(td3)
    for critic, value in zip(agent.critics_target, ([7.0], [4.0]), strict=True):
        outputs(critic.net[-1], value)
    agent.update(transitions(td3, reward=torch.ones(16), terminated=T([1.0] + [0.0] * 15)))
    assert calls[0][1].tolist() == pytest.approx([1.0] + [1 + 0.99 * 4] * 15)


def test_R003_16_smoothing_error_is_of_fourth_order():
    """Q = cos 2a at 0: the error of 1 - 2 sigma² is of fourth order, with half the noise 15.7 times smaller."""
    x, weight = gaussian_grid()
    errors = []
    for sigma in (0.2, 0.1):
        mean = smoothed_value(lambda a: (2 * a[:, 0]).cos(), [0.0], sigma * x[:, None], weight, 1.0)
        assert mean == pytest.approx(math.exp(-2 * sigma**2), abs=1e-6)
        errors.append(mean - (1 - sigma**2 / 2 * 4))
    assert errors[0] / errors[1] == pytest.approx(15.7, abs=0.05)


def test_E003_36_smoothing_follows_the_laplacian():
    """Q = -a² - 3b² + ab: -0.1564, 0.9776 sigma² / 2 times a trace of -8; plain sigma² -0.16, all entries -0.117."""
    x, weight = gaussian_grid()
    noise, weights = 0.2 * torch.cartesian_prod(x[::4], x[::4]), torch.cartesian_prod(weight[::4], weight[::4]).prod(-1)
    weights = weights / weights.sum()
    mean = smoothed_value(lambda a: -(a[:, 0] ** 2) - 3 * a[:, 1] ** 2 + a.prod(-1), [0.0, 0.0], noise, weights, 0.5)
    z, density = 2.5, math.exp(-(2.5**2) / 2) / math.sqrt(2 * math.pi)
    tails = math.erfc(z / math.sqrt(2))
    kept = 1 - tails - 2 * z * density + z**2 * tails  # variance of a normal variable cut at 2.5 deviations
    assert kept == pytest.approx(0.9776, abs=1e-4)
    assert mean == pytest.approx(0.2**2 * kept / 2 * -8, abs=1e-5)
    assert mean == pytest.approx(-0.1564, abs=5e-5)  # without 0.9776: -0.16
    assert 0.2**2 * kept / 2 * (-2 - 6 + 1 + 1) == pytest.approx(-0.117, abs=5e-4)
    assert smoothed_value(lambda a: a[:, 0], [0.9], 0.2 * x[:, None], weight, 0.5) == pytest.approx(0.861, abs=5e-4)


def test_R003_53_updates_in_each_step(tmp_path):
    """Three in each of ten steps; and when Pendulum stands for good (above -200) in the experiment, by its data."""
    arguments = {"env_id": "BoxClock-v0", "total_timesteps": 50, "learning_starts": 40, "log_interval": 100}
    log = Log(sac_continuous, gradient_steps=3, batch_size=8, out_dir=str(tmp_path), **arguments)
    assert log.updates == [step for step in range(41, 51) for _ in range(3)]
    data = Path(sac_continuous.__file__).parent / "benchmark" / "notes" / "data" / "gradient_steps"
    for number, steps, seconds in ((1, 6_000, 79), (2, 3_750, 89), (4, 2_667, 115)):
        stood = []
        for seed in (1, 2, 3):
            with open(data / f"{number}__{seed}.csv", newline="") as file:
                rows = [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]
            low = max(step for step, name, value in rows if name == "eval/episodic_return" and value <= -200)
            stood.append(next((step, value) for step, name, value in rows if name == "seconds" and step > low))
        assert np.mean(stood, 0) == pytest.approx([steps, seconds], abs=0.5)
