"""Gradients of the actor: DDPG's deterministic one, through a sampled action, by the score function."""

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import ddpg
import sac_continuous
import td3
from notes.helpers import (
    T,
    adam,
    fill,
    gaussian_grid,
    make,
    normal_noise,
    outputs,
    sac_agent,
    sac_transitions,
    transitions,
)


def test_E003_28_objective_is_over_trajectories_not_visits():
    """Rewards 0, 1, 1, ..., discount 1/2: J is 1, but 1.5 over visited states. With Q it is the theorem's gradient."""
    value, visited = np.array([1.0, 2.0]), np.array([0.5, 0.5])
    assert value[0] == 1 and visited @ value == 1.5 and visited @ np.array([0.0, 1.0]) / (1 - 0.5) == 1
    reward = T([[1.0, 0.0], [0.5, 2.0]]).double()
    next_state = T([[[0.7, 0.3], [0.1, 0.9]], [[1.0, 0.0], [0.4, 0.6]]]).double()
    logits = T([[0.3, -0.2], [0.1, 0.5]]).double().requires_grad_()
    policy = logits.softmax(-1)
    weights = torch.linalg.inv(torch.eye(2).double() - 0.9 * torch.einsum("sa,sat->st", policy, next_state))
    value = weights @ (policy * reward).sum(-1)
    exact = torch.autograd.grad(value[0], logits, retain_graph=True)[0]
    q = (reward + 0.9 * next_state @ value).detach()
    theorem = weights[0].detach() @ (policy.detach() * policy.log() * q).sum(-1)
    assert torch.allclose(torch.autograd.grad(theorem, logits)[0], exact, atol=1e-10)


def test_R003_10_actor_gradient_is_the_chain_rule():
    """The gradient of our loss is minus the mean of dQ/da times dmu/dtheta, both by finite differences."""
    torch.manual_seed(0)
    actor, critic, obs, h = ddpg.Actor(4, 2).double(), ddpg.Critic(4, 2).double(), torch.randn(8, 4).double(), 1e-6
    grads = torch.autograd.grad(ddpg.actor_loss(critic(obs, actor(obs))), list(actor.parameters()))
    direction = [torch.randn_like(parameter) for parameter in actor.parameters()]
    with torch.no_grad():
        action, moved = actor(obs), []
        for sign in (1, -1):
            for parameter, step in zip(actor.parameters(), direction, strict=True):
                parameter += sign * h * step
            moved.append(actor(obs))
            for parameter, step in zip(actor.parameters(), direction, strict=True):
                parameter -= sign * h * step
        by_action = [
            (critic(obs, action + h * e) - critic(obs, action - h * e)) / (2 * h) for e in torch.eye(2).double()
        ]
        chain = (torch.stack(by_action, -1) * (moved[0] - moved[1]) / (2 * h)).sum(-1).mean().item()
    along = sum((grad * step).sum().item() for grad, step in zip(grads, direction, strict=True))
    assert -along == pytest.approx(chain, rel=1e-5) and abs(chain) > 1e-3


def test_R003_11_actor_descends_minus_mean_q():
    """-mean Q: -3 for values 1, 2, 6, with slope -1/3 in each; an actor that descends it climbs the critic."""
    q = T([1.0, 2.0, 6.0], requires_grad=True)
    loss = ddpg.actor_loss(q)
    loss.backward()
    assert loss.item() == -3 and q.grad.tolist() == pytest.approx([-1 / 3] * 3)
    agent, batch = make(ddpg, critic_lr=1e-12), transitions(ddpg)
    before = agent.critic(batch.obs, agent.actor(batch.obs)).mean().item()
    for _ in range(20):
        agent.update(batch)
    assert agent.critic(batch.obs, agent.actor(batch.obs)).mean().item() > before + 0.02


def test_E003_39b_climbing_minus_q_lowers_q(monkeypatch):
    """Climbing "J" lowers Q, descending it raises Q."""
    true, gains, batch = td3.actor_loss, [], transitions(td3)
    for sign in (1, -1):
        monkeypatch.setattr(td3, "actor_loss", lambda q, sign=sign: sign * true(q))
        agent = make(td3, critic_lr=1e-12, policy_delay=1, actor_lr=3e-4)
        before = agent.critics[0](batch.obs, agent.actor(batch.obs)).mean().item()
        for _ in range(10):
            agent.update(batch)
        gains.append(agent.critics[0](batch.obs, agent.actor(batch.obs)).mean().item() - before)
    assert gains[0] > 0.01 and gains[1] < -0.01


def test_R003_49_wrong_slope_misleads_not_wrong_value():
    """A critic 100 too high has the right slope, 2; one that is right at 0 but has slope -1 takes -1 to -1.21."""
    true = lambda action: -((action - 1) ** 2)  # noqa: E731
    results = []
    for estimate in (true, lambda a: true(a) + 100, lambda a: true(a) - 3 * a):
        action = T([0.0], requires_grad=True)
        for module in (ddpg, td3):
            (gradient,) = torch.autograd.grad(module.actor_loss(estimate(action)), action)
        results.append((-gradient.item(), true(0 - 0.1 * gradient).item()))
    assert results == [pytest.approx((2, -0.64)), pytest.approx((2, -0.64)), pytest.approx((-1, -1.21))]


def test_E003_23_deterministic_gradient_can_be_biased():
    """A critic that is wrong by at most 0.05 has slope -0.5 instead of 2; states of old policies turn 0.6 into -0.6."""
    slopes = []
    for error in (0.0, 0.05):
        action = torch.full((1,), math.pi / 50, dtype=torch.float64, requires_grad=True)
        (-ddpg.actor_loss(2 * action + error * (50 * action).sin())).backward()
        slopes.append(action.grad.item())
    assert slopes == pytest.approx([2.0, -0.5])
    directions = []
    for visits in (8, 2):  # of ten, in the first state, where larger actions are better; in the second, smaller ones
        sign = T([1.0] * visits + [-1.0] * (10 - visits))
        theta = T(0.3, requires_grad=True)
        (-ddpg.actor_loss(sign * theta)).backward()
        directions.append(theta.grad.item())
    assert directions == pytest.approx([0.6, -0.6])


def test_R003_13_pathwise_gradient_has_less_variance():
    """Q = -(a - 1)² at mu = 0, deviation 0.1: score function 2 with variance 114.15, through the action 2 with 0.04."""
    noise, weight = gaussian_grid()
    action = (0.1 * noise).requires_grad_()
    (through,) = torch.autograd.grad(-ddpg.actor_loss(-((action - 1) ** 2)) * len(action), action)
    score = -((action.detach() - 1) ** 2) * noise / 0.1
    moments = [((weight * x).sum().item(), (weight * (x - 2) ** 2).sum().item()) for x in (score, through)]
    assert moments[0] == pytest.approx((2, 114.15), rel=1e-4) and moments[1] == pytest.approx((2, 0.04), rel=1e-4)
    mean = torch.zeros(5, requires_grad=True)
    (-5 * ddpg.actor_loss(-((mean - 1) ** 2))).backward()
    assert mean.grad.tolist() == pytest.approx([2.0] * 5), "DDPG's own gradient has no action to average over"


def test_R004_6_deterministic_gradient_needs_no_draws():
    """Q = -(a - 1)² at 0: DDPG's gradient is 2 without any draw; single draws of ∇ log π Q, σ = 0.1, by 10.7."""
    action = T([0.0], requires_grad=True)
    ddpg.actor_loss(-((action - 1) ** 2)).backward()
    assert -action.grad.item() == 2
    noise = normal_noise(100_001)[:, 0]
    score = noise / 0.1 * -((0.1 * noise - 1) ** 2)  # ∇ log N(a; 0, 0.1) times the value
    assert score.mean().item() == pytest.approx(2, abs=1e-3) and score.std().item() == pytest.approx(10.7, abs=0.05)


def test_E003_65_deterministic_gradient_costs_more_per_sample():
    """For Hopper the deterministic gradient takes 1.253 times the operations of the score function's, per sample."""

    def count(gradient):
        """Floating-point operations of matrix products, forward and backward, as PyTorch counts them."""
        with FlopCounterMode(display=False) as counter:
            gradient()
        return counter.get_total_flops()

    actor, critic, obs = ddpg.Actor(11, 3), ddpg.Critic(11, 3), torch.randn(32, 11)
    for network in (actor, critic):
        for layer in network.net:
            if isinstance(layer, torch.nn.Linear):
                layer.__class__ = torch.nn.Linear  # whose products the counter sees
    parameters = list(actor.parameters())

    def deterministic():
        with ddpg.frozen(critic):
            torch.autograd.grad(ddpg.actor_loss(critic(obs, actor(obs))), parameters)

    def score_function():
        policy = torch.distributions.Normal(actor(obs), 0.1)
        action = policy.sample()
        with torch.no_grad():
            value = critic(obs, action)
        torch.autograd.grad(-(policy.log_prob(action).sum(-1) * value).mean(), parameters)

    assert count(deterministic) / count(score_function) == pytest.approx(1.253, abs=5e-4)
    both = 11 * 256 + 256 * 256 + 256 * 3, 14 * 256 + 256 * 256 + 256  # weights of actor and critic
    assert count(score_function) == 2 * 32 * (3 * both[0] - 11 * 256 + both[1])


def test_R004_13_flat_critic_stops_the_actor():
    """tanh has slope 0.00018 at 5; and where the critic is flat along the action, no reward moves the actor at all."""
    agent = make(ddpg, actor_lr=0.1, critic_lr=0.1)
    outputs(agent.actor.net[-1], [5.0, 0.0])
    agent.actor(torch.zeros(1, 4)).sum().backward()
    saturated, free = agent.actor.net[-1].bias.grad.tolist()
    assert saturated == pytest.approx((math.tanh(5.001) - math.tanh(4.999)) / 0.002, abs=5e-6)
    assert saturated == pytest.approx(0.00018, abs=5e-6) and free == 1
    agent.zero_grad(set_to_none=True)
    fill(agent.critic, 0.0)
    outputs(agent.critic.net[-1], [1.0])  # Q = 1 everywhere, and right: each transition has reward 1 and ends the task
    before = [parameter.clone() for parameter in agent.actor.parameters()]
    for _ in range(5):
        agent.update(transitions(ddpg, reward=torch.ones(16), terminated=torch.ones(16)))
    assert all(torch.equal(a, b) for a, b in zip(before, agent.actor.parameters(), strict=True))


def test_E004_8_deterministic_action_can_be_better():
    """On Q = -a² the deterministic action has 0, the stochastic policy -0.045: not better everywhere."""
    noise, zero = normal_noise(4001), T([[0.0]], dtype=torch.float64)
    action, _ = sac_continuous.squash(zero, zero - 1.5, noise)  # σ = exp(-1.5) = 0.2231
    assert -(action**2).mean().item() == pytest.approx(-0.045, abs=5e-4)
    agent = sac_agent(mean=0.0, log_std=-1.5)
    assert agent.act(np.zeros(3), explore=False)[0] == 0
    drawn = np.array([agent.act(np.zeros(3), explore=True)[0] for _ in range(1000)])
    assert -(drawn**2).mean() == pytest.approx(-0.045, abs=0.006)


def test_R003_24_gradient_passes_through_the_sample():
    """The gradient through the noise is the finite difference of the integral over actions."""
    alpha, u = 0.2, torch.linspace(-10, 10, 20_001, dtype=torch.float64)

    def integral(mean, log_std):
        normal = torch.distributions.Normal(mean, math.exp(log_std))
        log_prob = normal.log_prob(u) + 2 * u.cosh().log()  # 1 - tanh² = 1 / cosh²
        return torch.trapezoid(normal.log_prob(u).exp() * (alpha * log_prob + (u.tanh() - 0.3) ** 2), u).item()

    mean, log_std = (T([[x]], dtype=torch.float64, requires_grad=True) for x in (0.5, -0.4))
    action, log_prob = sac_continuous.squash(mean, log_std, normal_noise(20_001))
    q = -((action[:, 0] - 0.3) ** 2)
    sac_continuous.actor_loss(log_prob, q, q, T(alpha)).backward()
    by_mean = (integral(0.5 + 1e-4, -0.4) - integral(0.5 - 1e-4, -0.4)) / 2e-4
    by_log_std = (integral(0.5, -0.4 + 1e-4) - integral(0.5, -0.4 - 1e-4)) / 2e-4
    assert mean.grad.item() == pytest.approx(by_mean, abs=1e-3)
    assert log_std.grad.item() == pytest.approx(by_log_std, abs=1e-3)


def test_E003_59_score_function_works_with_more_variance():
    """The gradient that cannot pass the sample exists without it: ∇ log π(a) f(a) has our mean, with more variance."""
    noise = normal_noise(4001)
    means = torch.zeros(4001, 1, dtype=torch.float64, requires_grad=True)
    log_std = T([[math.log(0.1)]], dtype=torch.float64)
    action, _ = sac_continuous.squash(means, log_std, noise)
    through = torch.autograd.grad(-((action - 1) ** 2).sum(), means)[0]
    drawn = 0.1 * noise  # u, of which the log-probability is asked while it stays where it is
    value = -((drawn.tanh() - 1) ** 2)[:, 0]
    _, log_prob = sac_continuous.squash(means, log_std, (drawn - means) / log_std.exp())
    score = torch.autograd.grad((log_prob * value).sum(), means)[0]
    assert through.mean().item() == pytest.approx(score.mean().item(), abs=0.01)
    assert (score.var() / through.var()).item() == pytest.approx(3007, rel=0.01)


def test_E003_29_actor_loss_spares_the_critic_step(monkeypatch):
    """Q = w a, w = 2, mu = 3: backward leaves -3 in w's gradient, and the critic's 4 becomes 1; ours stays 4."""
    w, mu = (torch.nn.Parameter(T(x)) for x in (2.0, 3.0))
    (-w * mu).backward()
    ((0 - w * 1) ** 2).backward()
    assert w.grad.item() == 1
    w.grad = mu.grad = None
    optimizer = adam(ddpg, w, 0.0)
    adam(ddpg, mu, 0.0).minimize(-w * mu)
    optimizer.minimize((0 - w * 1) ** 2)
    assert w.grad is None and optimizer.mean0.item() == pytest.approx(0.1 * 4)  # Adam's first moment
    agents = []
    for factor in (-1, 1000):
        monkeypatch.setattr(ddpg, "actor_loss", lambda q, factor=factor: factor * q.mean())
        agents.append(make(ddpg))
        agents[-1].update(transitions(ddpg))
    one, other = agents
    assert not torch.equal(one.actor.net[-1].bias, other.actor.net[-1].bias)
    assert all(torch.equal(a, b) for a, b in zip(one.critic.parameters(), other.critic.parameters(), strict=True))


def test_E003_63_actor_step_leaves_no_critic_gradients():
    """The listing's backward leaves a gradient in the critics that would raise Q; ours leaves none, and they stay."""
    critic, action = torch.nn.Linear(1, 1), torch.nn.Parameter(T([[0.5]]))
    (-critic(action)).mean().backward()
    assert critic.weight.grad.item() == -0.5 and critic.bias.grad.item() == -1
    agent = sac_agent(critic_lr=1e-9, actor_lr=0.1)
    before = {name: value.clone() for name, value in agent.critics.state_dict().items()}
    agent.update(sac_transitions())
    assert all(parameter.grad is None for parameter in agent.critics.parameters())
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in agent.critics.state_dict().items())
