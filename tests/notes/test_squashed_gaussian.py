"""SAC's actor: how it draws actions, and their log-probability after tanh."""

import math

import numpy as np
import pytest
import torch

import sac_continuous
from notes.helpers import T, sac_agent, sac_transitions, squashed_log_prob


def test_R003_30_gaussian_log_prob_from_the_noise():
    """Before tanh, our log-probability is Normal's at μ + σ ε, and so are its gradients."""
    torch.manual_seed(0)
    mean, log_std, noise = (torch.randn(3, 6, 2) / 2).double()
    gradients = []
    for ours in (True, False):
        inputs = [x.clone().requires_grad_() for x in (mean, log_std)]
        u = inputs[0] + inputs[1].exp() * noise
        if ours:
            log_prob = sac_continuous.squash(*inputs, noise)[1] + torch.log1p(-(u.tanh() ** 2)).sum(-1)
        else:
            log_prob = torch.distributions.Normal(inputs[0], inputs[1].exp()).log_prob(u).sum(-1)
        gradients.append([log_prob, *torch.autograd.grad(log_prob.sum(), inputs)])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_E003_60_noise_is_multiplied_by_std():
    """0.1 + 0.5 * 2 = 1.1 before tanh; the diagram's sign, read as a sum, would give 2.6."""
    action, _ = sac_continuous.squash(T([[0.1]]), T([[math.log(0.5)]]), T([[2.0]]))
    assert action.item() == pytest.approx(math.tanh(1.1), abs=1e-6)
    assert math.tanh(0.1 + 0.5 + 2) - action.item() > 0.18


def test_R003_31_tanh_correction_makes_a_density():
    """Our density integrates to 1 over [-1, 1], the uncorrected one to 0.56; the naive logarithm is -inf at u = 12."""
    u = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    ours = squashed_log_prob(u, 0.5, 1.0).exp()
    gaussian = torch.distributions.Normal(0.5, 1.0).log_prob(u[:, 0]).exp()
    assert torch.trapezoid(ours, u[:, 0].tanh()).item() == pytest.approx(1, abs=1e-5)
    assert torch.trapezoid(gaussian, u[:, 0].tanh()).item() == pytest.approx(0.562, abs=5e-4)
    assert torch.log(1 - T(12.0).tanh() ** 2) == -math.inf
    _, log_prob = sac_continuous.squash(T([[12.0]]), T([[0.0]]), T([[0.0]]))  # log 4 - 24, and N's -0.919
    assert log_prob.item() == pytest.approx(-0.9189 - (math.log(4) - 24), abs=1e-3)


def test_E003_41_log_prob_summed_once():
    """The listing sums twice: it stops for d > 1 or, repaired, counts the Gaussian d times; d = 1 hides it."""

    def listing(mean, log_std, noise, repaired):
        log_prob = (-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(1, keepdim=True)
        gaussian = log_prob.clone()
        correction = torch.log(1 - (mean + log_std.exp() * noise).tanh() ** 2 + 1e-6)
        if repaired:
            log_prob = log_prob - correction
        else:
            log_prob -= correction
        return log_prob.sum(1), gaussian[:, 0]

    for action_dim in (1, 2, 3):
        torch.manual_seed(0)
        mean, log_std, noise = torch.randn(3, 5, action_dim) / 2
        base = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
        transform = torch.distributions.TanhTransform(cache_size=1)
        action = transform(mean + log_std.exp() * noise)
        right = torch.distributions.TransformedDistribution(base, [transform]).log_prob(action)
        assert torch.allclose(sac_continuous.squash(mean, log_std, noise)[1], right, atol=1e-4)
        repaired, gaussian = listing(mean, log_std, noise, repaired=True)
        assert torch.allclose(repaired, right + (action_dim - 1) * gaussian, atol=1e-3)
        if action_dim > 1:
            assert not torch.allclose(repaired, right, atol=0.5)
            with pytest.raises(RuntimeError, match="broadcast"):
                listing(mean, log_std, noise, repaired=False)


def test_E003_46_constant_in_logarithm_distorts_large_u():
    """With 1e-6 in the logarithm it is wrong by 0.26 at u = 7, by 8.8 at 12, and its slope is 0 instead of -2 at 12."""
    for u, error in ((3.0, 0.0001), (5.0, 0.0055), (7.0, 0.2629), (9.0, 2.8573), (12.0, 8.7983)):
        exact = -2 * math.log(math.cosh(u))  # 1 - tanh² = 1 / cosh²
        assert math.log(1 - math.tanh(u) ** 2 + 1e-6) - exact == pytest.approx(error, abs=5e-5)
        mean = T([[u]], requires_grad=True)
        _, log_prob = sac_continuous.squash(mean, T([[0.0]]), T([[0.0]]))
        assert -0.9189385 - log_prob.item() == pytest.approx(exact, abs=1e-5)
    notes = torch.log(1 - mean.tanh() ** 2 + 1e-6)
    assert torch.autograd.grad(notes, mean)[0].item() == 0
    assert torch.autograd.grad(log_prob, mean)[0].item() == pytest.approx(2)


def test_E003_42_log_prob_is_part_of_gradient():
    """Q = a, α = 0.2, μ = 0.5, σ = 0.6, ε = 0.8: the note has -0.433 and -0.346, with log π it is -0.132 and -0.439.

    And where Q is flat, only the part that the note leaves out can raise the entropy.
    """

    def loss(mean, std):  # in another form: 1 - tanh² = 1 / cosh²
        u = mean + std * 0.8
        return 0.2 * (-math.log(std) + 2 * math.log(math.cosh(u))) - math.tanh(u)

    mean, std = (T([[x]], dtype=torch.float64, requires_grad=True) for x in (0.5, 0.6))
    action, log_prob = sac_continuous.squash(mean, std.log(), T([[0.8]]))
    ours = sac_continuous.actor_loss(log_prob, action[:, 0], action[:, 0], T(0.2))
    by_mean, by_std = (gradient.item() for gradient in torch.autograd.grad(ours, [mean, std]))
    assert by_mean == pytest.approx((loss(0.5 + 1e-5, 0.6) - loss(0.5 - 1e-5, 0.6)) / 2e-5, abs=1e-6)
    assert by_std == pytest.approx((loss(0.5, 0.6 + 1e-5) - loss(0.5, 0.6 - 1e-5)) / 2e-5, abs=1e-6)
    slope = 1 - math.tanh(0.98) ** 2
    assert (by_mean, by_std) == pytest.approx((-0.132, -0.439), abs=5e-4)
    assert (-slope, -slope * 0.8) == pytest.approx((-0.433, -0.346), abs=5e-4)
    agent = sac_agent(mean=0.0, log_std=-1.5, q=(0.0, 0.0), critic_lr=1e-9, actor_lr=0.01)
    agent.update(sac_transitions(256))
    assert agent.actor.net[-1].bias[1].item() == pytest.approx(-1.5 + 0.01, abs=1e-4)


def test_E003_45_undefined_input_and_bounded_log_std():
    """The note's forward stops at `x`, which nothing defines; ours has bounds for log σ too: -5 and 2."""

    def forward(mean_layer, state):
        return mean_layer(x)  # noqa: F821

    with pytest.raises(NameError):
        forward(torch.nn.Identity(), torch.zeros(5, 3))
    for value, bound in ((0.0, None), (50.0, 2.0), (-50.0, -5.0)):
        agent = sac_agent(action_dim=2, mean=0.4, log_std=value)
        mean, log_std = agent.actor(torch.zeros(5, 3))
        assert mean.shape == log_std.shape == (5, 2) and torch.allclose(mean, T(0.4))
        assert bound is None or torch.allclose(log_std, T(bound))


def test_E003_47_clamped_log_std_gets_no_gradient():
    """1 beyond its bounds a clamp has no gradient, and log σ is stuck; ours has 1 / cosh²(4.5 / 3.5) = 0.264."""
    for value in (-6.0, 3.0):
        clamped = T(value, requires_grad=True)
        clamped.clamp(-5, 2).backward()
        assert clamped.grad.item() == 0
        agent = sac_agent(mean=0.0, log_std=value)
        agent.actor(torch.zeros(1, 3))[1].sum().backward()
        assert agent.actor.net[-1].bias.grad[1].item() == pytest.approx(0.2638, abs=1e-4)


def test_R003_33_actions_are_sampled_only_to_explore():
    """To explore, the action is drawn: arctanh a has the policy's deviation exp(-1.5) = 0.223; else it is tanh μ."""
    agent = sac_agent(mean=0.3, log_std=-1.5)
    drawn = np.arctanh([agent.act(np.zeros(3), explore=True)[0] for _ in range(1000)])
    assert drawn.mean() == pytest.approx(0.3, abs=0.03) and drawn.std() == pytest.approx(0.223, rel=0.1)
    assert agent.act(np.zeros(3), explore=False)[0] == pytest.approx(math.tanh(0.3), abs=1e-6)


def test_E004_6_actions_do_not_ask_the_critics():
    """A softmax over Q changes with Q; our actions have a squashed Gaussian's quantiles whatever the critics."""
    agent = sac_agent(mean=0.3, log_std=-1.5)
    drawn = []
    for value in (0.0, 100.0):
        for critic in agent.critics:
            critic.net[-1].bias.data.fill_(value)
            critic.net[-1].weight.data.normal_()
        torch.manual_seed(0)
        drawn.append(np.array([agent.act(np.zeros(3), explore=True)[0] for _ in range(1000)]))
    assert np.array_equal(*drawn)
    for quantile, z in ((0.1, -1.2816), (0.5, 0.0), (0.9, 1.2816)):
        assert np.quantile(drawn[0], quantile) == pytest.approx(math.tanh(0.3 + math.exp(-1.5) * z), abs=0.03)
