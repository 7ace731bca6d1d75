"""Mathematics of the equations, against numbers, limits, brute force and torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

import ddpg
import ddqn
import dqn
import ppo_continuous
import sac_continuous as sac
import td3

T = torch.tensor


# ---- polyak_update ----
@pytest.mark.parametrize(("tau", "expected"), [(0.01, 0.01), (1.0, 1.0), (0.0, 0.0)])
def test_polyak_update_moves_the_target_by_tau(tau, expected):
    source, target = [torch.ones(3)], [torch.zeros(3)]
    sac.polyak_update(source, target, tau)
    assert torch.allclose(target[0], torch.full((3,), expected))
    assert torch.equal(source[0], torch.ones(3))


def test_polyak_update_approaches_the_source_geometrically():
    """The notes lost a prime, which makes the update a hard copy: 1 after one step instead of 1 - (1 - tau)^k."""
    source, target = [T([1.0])], [T([0.0])]
    for _ in range(100):
        sac.polyak_update(source, target, 0.01)
    assert target[0].item() == pytest.approx(0.6340, abs=1e-4)


def test_polyak_update_takes_parameters_and_builds_no_graph():
    source, target = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    sac.polyak_update(source.parameters(), target.parameters(), 1.0)
    assert torch.equal(source.weight, target.weight) and target.weight.is_leaf


# ---- squash ----
@pytest.mark.parametrize("action_dim", [1, 2, 3, 17])
def test_squash_has_the_density_of_a_squashed_gaussian(action_dim):
    """More than one dimension: the notes' second sum cannot be seen with one."""
    torch.manual_seed(0)
    mean, log_std, noise = torch.randn(3, 5, action_dim)
    action, log_prob = sac.squash(mean, log_std, noise)
    base = Independent(Normal(mean.double(), log_std.double().exp()), 1)
    u = mean.double() + log_std.double().exp() * noise.double()
    transform = TanhTransform(cache_size=1)
    expected = TransformedDistribution(base, [transform])
    assert log_prob.shape == (5,)
    assert torch.allclose(action.double(), u.tanh(), atol=1e-6)
    assert torch.allclose(log_prob.double(), expected.log_prob(transform(u)), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("u", [-20.0, -12.0, -7.0, -1.0, 0.0, 3.0, 9.0, 15.0, 20.0])
def test_squash_is_exact_where_tanh_saturates(u):
    """Value and gradient; with 1e-6 inside the logarithm the gradient is 1.5 instead of 2 at |u| = 7 and 0 at 10."""
    mean = T([[u]], requires_grad=True)
    _, log_prob = sac.squash(mean, torch.zeros(1, 1), torch.zeros(1, 1))
    log_prob.sum().backward()
    # log(1 - tanh² u) = log 4 - 2 |u| - 2 log(1 + exp(-2 |u|)), in double precision
    log_slope = math.log(4) - 2 * abs(u) - 2 * math.log1p(math.exp(-2 * abs(u)))
    assert log_prob.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - log_slope, rel=1e-5)
    assert mean.grad.item() == pytest.approx(2 * math.tanh(u), abs=1e-5)


def test_squash_density_integrates_to_one():
    u = torch.linspace(-9, 9, 200_001, dtype=torch.float64)[:, None]
    mean, log_std = T([[0.4]]).double(), T([[-0.3]]).double()
    action, log_prob = sac.squash(mean, log_std, (u - mean) / log_std.exp())
    assert torch.trapezoid(log_prob.exp(), action[:, 0]).item() == pytest.approx(1, abs=1e-5)


def test_squash_gradient_reaches_mean_and_log_std_through_the_density():
    """Against finite differences of a quadrature: the notes leave the density's part out of the chain rule."""

    def entropy(mean, log_std):
        noise = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
        _, log_prob = sac.squash(mean, log_std, noise)
        return -torch.trapezoid(log_prob * Normal(0, 1).log_prob(noise[:, 0]).exp(), noise[:, 0])

    mean, log_std = (T([[x]], dtype=torch.float64, requires_grad=True) for x in (0.5, math.log(0.6)))
    gradients = torch.autograd.grad(entropy(mean, log_std), [mean, log_std])
    with torch.no_grad():
        h = 1e-5
        by_mean = (entropy(mean + h, log_std) - entropy(mean - h, log_std)) / (2 * h)
        by_log_std = (entropy(mean, log_std + h) - entropy(mean, log_std - h)) / (2 * h)
    assert gradients[0].item() == pytest.approx(by_mean.item(), abs=1e-6)
    assert gradients[1].item() == pytest.approx(by_log_std.item(), abs=1e-6)


@pytest.mark.parametrize("module", [sac, ppo_continuous], ids=["sac", "ppo_continuous"])
def test_log_std_is_bounded_smoothly_and_hardly_changed_in_the_middle(module):
    """Between -5 and 2, with slope 1 in the middle, and with a slope above 0 far outside of the bounds too."""
    x = torch.linspace(-30, 30, 6001, dtype=torch.float64, requires_grad=True)
    y = module.bound_log_std(x)
    (slope,) = torch.autograd.grad(y.sum(), [x])
    assert y[0].item() == pytest.approx(-5) and y[-1].item() == pytest.approx(2) and y.min() >= -5 and y.max() <= 2
    middle = 2850  # x = -1.5
    assert y[middle].item() == pytest.approx(-1.5) and slope[middle].item() == pytest.approx(1)
    assert (slope > 0).all() and slope.argmax() == middle and slope.max() <= 1
    assert (y - x)[middle - 100 : middle + 101].abs().max() < 0.03, "for one unit to either side"


# ---- td_target ----
def test_sac_td_target_on_a_table():
    """Running: 1 + 0.9 (3 + 0.5 * 2) = 4.6; ended: the reward alone, whatever Q, entropy and temperature say."""
    target = sac.td_target(
        reward=T([1.0, 2.0]), terminated=T([0.0, 1.0]), next_q1=T([3.0, 9.0]), next_q2=T([4.0, 8.0]),
        gamma=0.9, next_log_prob=T([-2.0, 1.0]), alpha=T(0.5),
    )  # fmt: skip
    assert target.tolist() == pytest.approx([4.6, 2.0])


def test_sac_td_target_takes_the_smaller_value_of_each_sample():
    zero = torch.zeros(2)
    target = sac.td_target(zero, zero, T([1.0, 5.0]), T([2.0, 3.0]), 1.0, zero, T(0.0))
    assert target.tolist() == [1.0, 3.0]


def test_sac_td_target_has_the_fixed_point_of_the_soft_bellman_equation():
    """Two states, two actions, a uniform policy: iterating the target ends where a linear solve says."""
    gamma, alpha, log_prob = 0.9, T(0.3), T(math.log(0.5))
    reward = T([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    next_state = T([[0, 1], [1, 0]])
    q = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(600):
        rows = q[next_state]  # [state, action, next action]
        over_actions = [
            sac.td_target(reward, torch.zeros(2, 2), rows[..., a], rows[..., a], gamma, log_prob, alpha) for a in (0, 1)
        ]
        q = 0.5 * (over_actions[0] + over_actions[1])
    # q = r + gamma (P q + alpha log 2) over the four pairs
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    for pair in range(4):
        for action in (0, 1):
            matrix[pair, 2 * next_state.flatten()[pair] + action] += 0.5
    solved = torch.linalg.solve(
        torch.eye(4).double() - gamma * matrix, reward.flatten() + gamma * 0.3 * math.log(2)
    ).reshape(2, 2)
    assert torch.allclose(q, solved, atol=1e-6)


# ---- losses ----
def test_critic_loss_is_the_sum_of_two_means():
    assert sac.critic_loss(T([1.0, 3.0]), T([0.0, 0.0]), T([1.0, 1.0])).item() == 3.0  # (0 + 4) / 2 + (1 + 1) / 2


def test_critic_loss_gradient_descends_towards_the_target():
    """The notes print d/dQ (y - Q)² with the wrong sign."""
    q = T([0.5], requires_grad=True)
    sac.critic_loss(q, T([0.0]), T([2.0])).backward()
    assert q.grad.item() == pytest.approx(-3.0)


@pytest.mark.parametrize("copies", [1, 8])
def test_losses_do_not_grow_with_the_batch(copies):
    q1, q2, target, log_prob = (T(x).repeat(copies) for x in ([1.0, 2.0], [0.0, 4.0], [3.0, 3.0], [-1.0, 0.5]))
    assert sac.critic_loss(q1, q2, target).item() == pytest.approx(2.5 + 5.0)
    assert sac.actor_loss(log_prob, q1, q2, T(0.2)).item() == pytest.approx((-0.2 - 0 + 0.1 - 2) / 2)
    assert sac.alpha_loss(T(2.0), log_prob, T(-3.0)).item() == pytest.approx(-2 * (-0.25 - 3))


def test_actor_loss_is_least_at_the_boltzmann_policy():
    """Over all policies on a grid of actions, the minimum is softmax(Q / alpha), its value -alpha log Z."""
    q, alpha = T([1.0, 0.2, -0.5, 0.9]).double(), T(0.4).double()
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def expected_loss():
        optimizer.zero_grad()
        log_policy = logits.log_softmax(0)
        loss = sum(log_policy[i].exp() * sac.actor_loss(log_policy[i], q[i], q[i], alpha) for i in range(4))
        loss.backward()
        return loss

    optimizer.step(expected_loss)
    assert torch.allclose(logits.softmax(0), (q / alpha).softmax(0), atol=1e-4)
    assert expected_loss().item() == pytest.approx(-0.4 * torch.logsumexp(q / alpha, 0).item(), abs=1e-6)


def test_actor_loss_prefers_more_entropy_and_more_value():
    def slope(position):
        inputs = [T([0.0], requires_grad=True) for _ in range(3)]
        return torch.autograd.grad(sac.actor_loss(*inputs, T(0.2)), inputs[position])[0].item()

    assert slope(0) == pytest.approx(0.2)  # a smaller log-probability lowers the loss
    assert slope(1) + slope(2) == pytest.approx(-1)  # a larger value lowers it


# ---- temperature ----
@pytest.mark.parametrize(("entropy", "direction"), [(-5.0, 1), (-3.0, 0), (5.0, -1), (0.0, -1)])
def test_alpha_rises_exactly_when_the_entropy_is_below_the_target(entropy, direction):
    log_alpha = T(math.log(0.2), requires_grad=True)
    sac.alpha_loss(log_alpha, torch.full((6,), -entropy), T(-3.0)).backward()
    assert -log_alpha.grad.sign().item() == direction


def test_alpha_loss_has_no_gradient_to_the_policy():
    log_prob = torch.zeros(4, requires_grad=True)
    loss = sac.alpha_loss(T(0.0, requires_grad=True), log_prob, T(-1.0))
    loss.backward()
    assert log_prob.grad is None


@pytest.mark.parametrize("first_alpha", [0.01, 0.2, 2.0])
def test_temperature_settles_where_the_entropy_is_the_target(first_alpha):
    """Closed loop with a Gaussian on Q = -|a|² / 2 in three dimensions, where the best entropy is known for each alpha.

    The optimum is sigma² = alpha per dimension: H = 3/2 log(2 pi e alpha) = -3 at alpha = 0.00792. With either of
    the notes' signs alpha ends at 0 or at infinity.
    """
    log_alpha = T(math.log(first_alpha), requires_grad=True)
    optimizer = torch.optim.Adam([log_alpha], 0.01)
    for _ in range(3000):
        entropy = 1.5 * (math.log(2 * math.pi * math.e) + log_alpha.detach())
        optimizer.zero_grad()
        sac.alpha_loss(log_alpha, -entropy.expand(4), T(-3.0)).backward()
        optimizer.step()
    assert log_alpha.exp().item() == pytest.approx(0.00792, rel=0.02)


# ---- DDPG and TD3 ----
def test_ddpg_td_target_on_a_table():
    """Running: 1 + 0.9 * 3; ended: the reward alone. The notes, without the mask, get 2 + 0.9 * 9."""
    target = ddpg.td_target(T([1.0, 2.0]), T([0.0, 1.0]), T([3.0, 9.0]), 0.9)
    assert target.tolist() == pytest.approx([3.7, 2.0])


def test_td3_td_target_takes_the_smaller_twin_and_the_mask():
    target = td3.td_target(T([1.0, 1.0, 2.0]), T([0.0, 0.0, 1.0]), T([3.0, 5.0, 9.0]), T([4.0, 2.0, 8.0]), 0.9)
    assert target.tolist() == pytest.approx([3.7, 2.8, 2.0])


def test_td3_smaller_twin_underestimates_by_a_known_amount():
    """With independent errors of deviation 1, E[min] = -1 / sqrt(pi): the smaller twin is not unbiased either."""
    torch.manual_seed(0)
    q1, q2 = torch.randn(2, 400_000)
    zero = torch.zeros(400_000)
    assert td3.td_target(zero, zero, q1, q2, 1.0).mean().item() == pytest.approx(-1 / math.sqrt(math.pi), abs=0.005)


def test_td3_target_action_is_smoothed_within_clip_and_range():
    next_action = T([[0.0, 0.9], [-0.9, 0.2]])
    noise = T([[0.8, 0.3], [-0.4, -0.1]])
    expected = T([[0.5, 1.0], [-1.0, 0.1]])
    assert torch.allclose(td3.smooth_target_action(next_action, noise, 0.5), expected)
    assert torch.equal(td3.smooth_target_action(next_action, torch.zeros(2, 2), 0.5), next_action)


@pytest.mark.parametrize("copies", [1, 8])
def test_deterministic_losses_are_means(copies):
    """The notes print sums, whose gradient grows with the batch."""
    q1, q2, target = (T(x).repeat(copies) for x in ([1.0, 2.0], [0.0, 4.0], [3.0, 3.0]))
    assert ddpg.critic_loss(q1, target).item() == pytest.approx(2.5)
    assert td3.critic_loss(q1, q2, target).item() == pytest.approx(2.5 + 5.0)
    assert ddpg.actor_loss(q1).item() == td3.actor_loss(q1).item() == pytest.approx(-1.5)


def test_ddpg_critic_loss_gradient_has_the_sign_and_the_factor_of_the_square():
    q = T([0.5], requires_grad=True)
    ddpg.critic_loss(q, T([2.0])).backward()
    assert q.grad.item() == pytest.approx(-3.0)


# ---- DQN and DDQN ----
@pytest.mark.parametrize("module", [dqn, ddqn], ids=["dqn", "ddqn"])
def test_linear_schedule_goes_along_a_line_and_stays(module):
    values = [module.linear_schedule(1.0, 0.1, 10, step) for step in (0, 1, 5, 10, 11, 10**9)]
    assert values == pytest.approx([1.0, 0.91, 0.55, 0.1, 0.1, 0.1])
    assert module.linear_schedule(0.2, 0.6, 4, 1) == pytest.approx(0.3)


@pytest.mark.parametrize("module", [dqn, ddqn], ids=["dqn", "ddqn"])
def test_exponential_schedule_is_the_notes_rule_in_each_step(module):
    """With a factor of 0.995 and an end of 0.01: after 919 steps."""
    epsilon = 1.0
    for step in range(1, 1500):
        epsilon = max(0.01, epsilon * 0.995)
        assert module.exponential_schedule(1.0, 0.01, 0.995, step) == pytest.approx(epsilon)
    floor = [module.exponential_schedule(1.0, 0.01, 0.995, step) == 0.01 for step in range(1500)]
    assert floor.index(True) == 919 and all(floor[919:])


def test_dqn_td_target_on_a_table():
    """Rows running, terminated, cut by a time limit (which is not terminated): 1 + 0.9 * 10, 1, 1 + 0.9 * 10."""
    q = T([[10.0, 3.0], [10.0, 3.0], [3.0, 10.0]])
    assert dqn.td_target(torch.ones(3), T([0.0, 1.0, 0.0]), q, 0.9).tolist() == pytest.approx([10.0, 1.0, 10.0])


def test_ddqn_target_is_judged_by_the_target_network_at_the_choice_of_the_online_one():
    online, target = T([[1.0, 2.0, 0.0], [5.0, 0.0, 0.0]]), T([[9.0, 3.0, 7.0], [-1.0, 8.0, 8.0]])
    assert ddqn.td_target(T([1.0, 1.0]), T([0.0, 0.0]), online, target, 0.5).tolist() == pytest.approx([2.5, 0.5])
    assert ddqn.td_target(T([1.0, 1.0]), T([1.0, 1.0]), online, target, 0.5).tolist() == [1.0, 1.0]


def test_ddqn_target_is_dqn_s_where_both_networks_agree():
    torch.manual_seed(0)
    q, reward, terminated = torch.randn(50, 6), torch.randn(50), (torch.rand(50) < 0.3).float()
    expected = dqn.td_target(reward, terminated, q, 0.97)
    assert torch.equal(ddqn.td_target(reward, terminated, q, q, 0.97), expected)


def test_ddqn_overestimates_less_than_dqn():
    """Four actions of value 0, independent errors of deviation 1: E[max] = 1.03 for DQN, 0 for DDQN."""
    torch.manual_seed(0)
    online, target = torch.randn(2, 200_000, 4)
    zero = torch.zeros(200_000)
    assert dqn.td_target(zero, zero, target, 1.0).mean().item() == pytest.approx(1.029, abs=0.01)
    assert ddqn.td_target(zero, zero, online, target, 1.0).mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("copies", [1, 8])
@pytest.mark.parametrize("module", [dqn, ddqn], ids=["dqn", "ddqn"])
def test_q_loss_looks_at_the_actions_taken_and_descends_to_the_target(module, copies):
    q = T([[0.5, 9.0], [9.0, 1.0]]).repeat(copies, 1).requires_grad_(True)
    loss = module.q_loss(q, T([0, 1]).repeat(copies), T([2.0, 0.0]).repeat(copies))
    loss.backward()
    assert loss.item() == pytest.approx((2.25 + 1) / 2)
    assert torch.allclose(q.grad * copies, T([[-1.5, 0.0], [0.0, 1.0]]).repeat(copies, 1))
