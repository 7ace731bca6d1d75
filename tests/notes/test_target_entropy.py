"""The target entropy: its default, its size, how it moves, one for each head, and what it does."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

import ppo_continuous
import ppo_discrete
import sac_continuous
from notes.helpers import (
    NORMAL_ENTROPY,
    PPO,
    T,
    best_policy,
    closed_loop,
    fill,
    make_agent,
    notes_temperature_loss,
    peaked,
    sac_batch,
    slope,
    temperature_losses,
)


def softmax_entropy(rewards):
    """H of the policy that maximises E[r] + c H over actions with these rewards, softmax(r / c), as a function of c."""
    return lambda c: torch.distributions.Categorical(logits=T(rewards, dtype=torch.float64) / c).entropy().item()


def test_E001_9_default_target_is_minus_dimension():
    """The default is -dim, -3 and -6 here, and not the -2.94 and -5.88 of 0.98 dim."""
    for num_actions in (3, 6):
        assert make_agent(sac_continuous, num_actions).target_entropy().item() == -num_actions
        assert make_agent(ppo_continuous, num_actions).target_entropy.item() == -num_actions


def test_E001_4_discrete_target_must_be_positive():
    """No entropy is below -log n: even a certain policy, H = 0, lowers alpha, by either sign. Ours raises it."""
    for n in (2, 4, 18):
        agent = make_agent(ppo_discrete, n)
        assert 0 < agent.target_entropy.item() < math.log(n)
        right = slope(lambda x, agent=agent: ppo_discrete.ent_coef_loss(x, T(0.0), agent.target_entropy), 0.0)
        wrong = slope(lambda x, n=n: ppo_discrete.ent_coef_loss(x, T(0.0), T(-math.log(n))), 0.0)
        notes = slope(lambda x, n=n: notes_temperature_loss(-math.log(n))(x, T(0.0)), 0.0)
        assert right < 0 and wrong == pytest.approx(math.log(n)) == notes
    for likelier, share in ((0.5831, 0.98), (0.8900, 0.5)):
        _, entropy = ppo_discrete.categorical(T([[likelier, 1 - likelier]]).log(), T([0]))
        assert entropy.item() == pytest.approx(share * math.log(2), abs=1e-4)
    with pytest.raises(ppo_discrete.UsageError):
        ppo_discrete.check_args(ppo_discrete.Args(ent_autotune=True, target_entropy=-1.0))


def test_E001_3_mean_over_dimensions_misses_the_target():
    """A policy of three dimensions with -3 nats is at its target; the mean over dimensions, -1, says 2 too many."""
    log_std = torch.full((3,), -1 - NORMAL_ENTROPY)
    assert log_std.exp().tolist() == pytest.approx([0.0890] * 3, abs=1e-4)
    notes = torch.distributions.Normal(torch.zeros(3), log_std.exp()).entropy().mean()
    zero = torch.zeros(1, 3)
    _, ours = ppo_continuous.gaussian(zero, log_std, zero)
    residual = lambda entropy: slope(lambda x: ppo_continuous.ent_coef_loss(x, entropy, T(-3.0)), 0.0)  # noqa: E731
    assert residual(notes) == pytest.approx(2.0, abs=1e-5) and residual(ours) == pytest.approx(0.0, abs=1e-5)
    assert math.exp(-3 - NORMAL_ENTROPY) == pytest.approx(0.0120, abs=1e-4)  # σ where the notes' residual is 0


def test_E001_17_minus_two_explores_more_in_3d():
    """-2 explores more than -3 in three dimensions, σ 0.124 and 0.089; in two it is the default: 0.089 again."""
    zero = torch.zeros(1, 3)
    for num_actions, target, sigma in ((3, None, 0.0890), (3, -2.0, 0.1242), (2, None, 0.0890), (2, -2.0, 0.0890)):
        agent = make_agent(ppo_continuous, num_actions, target_entropy=target)
        log_std = T(sigma).log().expand(num_actions)
        _, entropy = ppo_continuous.gaussian(zero[:, :num_actions], log_std, zero[:, :num_actions])
        assert entropy.item() == pytest.approx(agent.target_entropy.item(), abs=1e-3)


def test_R001_4_larger_target_gives_larger_entropy():
    """With our sign the larger target, -2, ends at the larger entropy and at the larger alpha."""
    for low, high in zip(temperature_losses(-3.0), temperature_losses(-2.0), strict=True):
        (alpha_low, entropy_low), (alpha_high, entropy_high) = closed_loop(low), closed_loop(high)
        assert [entropy_low, entropy_high] == pytest.approx([-3.0, -2.0], abs=1e-3)
        assert alpha_high / alpha_low == pytest.approx(math.exp(2 / 3), rel=1e-3)


def test_E001_16_target_is_floor_not_set_point():
    """Where all four actions pay the same, H is ln 4 for any alpha and stays above its target: alpha goes to 0."""
    _, entropy = ppo_discrete.categorical(torch.zeros(1, 4), T([0]))
    for loss in temperature_losses(0.5):
        alpha, _ = closed_loop(loss, best_entropy=lambda alpha: entropy.item())
        assert alpha < 1e-4
    assert entropy.item() == pytest.approx(1.386294)


def test_R001_8_target_moves_along_a_line():
    """A target that goes from -1 to -3 within two updates or 100 steps, and stays; for softmax in shares of ln n."""
    agent = make_agent(sac_continuous, target_entropy=-1.0, target_entropy_end=-3.0, target_entropy_duration=2)
    targets = [agent.update(sac_batch())["target_entropy"].item() for _ in range(4)]
    assert targets == pytest.approx([-1.0, -2.0, -3.0, -3.0])
    for module, ends, expected in (
        (ppo_continuous, (-1.0, -3.0), [-1.0, -2.0, -3.0, -3.0]),
        (ppo_discrete, (0.9, 0.1), [0.988751, 0.549306, 0.109861, 0.109861]),
    ):
        moves = dict(zip(("target_entropy", "target_entropy_end"), ends, strict=True))
        agent = make_agent(module, ent_autotune=True, ent_coef=0.1, target_entropy_duration=100, **moves)
        targets = []
        for step in (0, 50, 100, 500):
            agent.anneal(step)
            targets.append(agent.target_entropy.item())
        assert targets == pytest.approx(expected, abs=1e-5)
    lower, higher = (closed_loop(temperature_losses(target)[0])[0] for target in (-3.0, -2.0))
    assert math.log(higher / lower) == pytest.approx(2 / 3, rel=1e-3)


def test_R001_12_target_ignores_rewards_until_set():
    """Rewards of 0 and of 100 leave the target where its line has it; a rule of one's own moves it at once, 0.693."""
    agent = make_agent(ppo_discrete, 4, ent_autotune=True, ent_coef=0.1, target_entropy=0.9)
    assert agent.target_entropy.item() == pytest.approx(1.2477, abs=5e-5)  # 0.9 ln 4
    for episodic_return, expected in ((10.0, 1.2477), (480.0, 0.6931), (20.0, 0.6931)):
        if episodic_return > 475:  # the rule: once the task is solved
            agent.set_target_entropy(0.5)
        agent.anneal(1_000)
        assert agent.target_entropy.item() == pytest.approx(expected, abs=5e-5)
    line = {"target_entropy": -1.0, "target_entropy_end": -3.0, "target_entropy_duration": 4}
    for reward in (0.0, 100.0):
        sac, batch = make_agent(sac_continuous, **line), sac_batch()
        batch = batch._replace(reward=torch.full_like(batch.reward, reward))
        assert [sac.update(batch)["target_entropy"].item() for _ in range(3)] == pytest.approx([-1.0, -1.5, -2.0])
        sac.set_target_entropy(-2.5)
        assert sac.update(batch)["target_entropy"].item() == -2.5


def test_E001_21_defaults_stay_whatever_the_task():
    """The published default asks for no difficulty: -1, -3 and -17 for so many dimensions, and it stays there."""
    for num_actions in (1, 3, 17):  # Pendulum, Hopper, Humanoid
        agent, batch = make_agent(sac_continuous, num_actions), sac_batch(num_actions)
        targets = [agent.update(batch)["target_entropy"].item() for _ in range(3)]
        assert targets == [-num_actions] * 3
    for module in PPO:  # and a fixed coefficient stays where it is, unless it is told to move
        agent = make_agent(module, ent_coef=0.01)
        agent.anneal(400_000)
        assert agent.ent_coef.item() == pytest.approx(0.01)


def test_R001_11_each_head_has_its_own_target():
    """Heads of 3, 2, 4 actions: log-probabilities that sum, a largest entropy, a target and a coefficient of each."""
    torch.manual_seed(0)
    sizes, shares, obs = [3, 2, 4], (0.5, 0.3, 0.7), torch.randn(6, 4)
    spaces = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32), gym.spaces.MultiDiscrete(sizes)
    args = ppo_discrete.Args(cuda=False, ent_autotune=True, ent_coef=(0.1, 0.2, 0.3), target_entropy=shares)
    agent = ppo_discrete.Agent(*spaces, args)
    action = torch.stack([torch.randint(n, (6,)) for n in sizes], -1)
    log_prob, entropy, _ = peaked(agent).evaluate_actions(obs, action)
    heads = [torch.distributions.Categorical(logits=x) for x in agent.network.policy(obs).split(sizes, -1)]
    by_torch = sum(head.log_prob(a) for head, a in zip(heads, action.T, strict=True))
    assert torch.allclose(log_prob, by_torch, atol=1e-5) and log_prob.shape == (6,)
    assert torch.allclose(entropy, torch.stack([head.entropy() for head in heads], -1), atol=1e-5)
    fill(agent.network.actor[-1], 0.0)  # every head uniform
    _, largest, _ = agent.evaluate_actions(obs, action)
    assert largest[0].tolist() == pytest.approx([1.0986, 0.6931, 1.3863], abs=5e-5)
    assert agent.target_entropy.tolist() == pytest.approx([0.5493, 0.2079, 0.9704], abs=5e-5)
    slopes = []
    for k in range(3):  # by differences: each log c is pulled by its own head alone
        up, down = (agent.log_ent_coef.detach() + sign * 0.5 * torch.eye(3)[k] for sign in (1, -1))
        losses = [ppo_discrete.ent_coef_loss(x, largest[0], agent.target_entropy).item() for x in (up, down)]
        slopes.append(losses[0] - losses[1])
    assert slopes == pytest.approx([1.0986 - 0.5493, 0.6931 - 0.2079, 1.3863 - 0.9704], abs=2e-4)


def test_R001_13_learned_coefficient_adapts_to_reward_scale():
    """Rewards times ten: c = 0.5 leaves 1.3e-7 of 0.918 nats; a target of 0.693 is met, with c = 0.392 and 3.917."""
    for scale, fixed, learned in ((1.0, 0.9183, 0.3917), (10.0, 1.2985e-7, 3.9166)):
        rewards = [scale, 0.0, 0.0, 0.0]
        best = torch.distributions.Categorical(best_policy(rewards, 0.5)).entropy().item()
        assert best == pytest.approx(fixed, rel=1e-4)
        for loss in temperature_losses(0.5 * math.log(4)):
            coef, entropy = closed_loop(loss, best_entropy=softmax_entropy(rewards))
            assert coef == pytest.approx(learned, abs=1e-3) and entropy == pytest.approx(0.6931, abs=1e-3)
        assert softmax_entropy(rewards)(learned) == pytest.approx(0.6931, abs=1e-3)  # not just where the loop stops
