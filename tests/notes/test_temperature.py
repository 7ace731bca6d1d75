"""The loss of the temperature, or of a learned coefficient: its sign, first value, step size and where it ends."""

import itertools
import math

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
    gaussian_entropy,
    make_agent,
    notes_temperature_loss,
    peaked,
    ppo_step,
    sac_agent,
    sac_batch,
    sac_transitions,
    slope,
    temperature_losses,
)


def test_E001_1_plus_target_makes_alpha_run_away():
    """The notes' loss is flat at H = +3 where it should be at -3, and alpha runs away to 0 or to infinity."""
    assert slope(lambda x: notes_temperature_loss(-3.0)(x, T(3.0)), 0.0) == 0.0
    assert closed_loop(notes_temperature_loss(-3.0), 0.2)[0] < 1e-6
    assert closed_loop(notes_temperature_loss(-3.0), 2.0)[0] > 1e6
    for loss in temperature_losses(-3.0):
        slopes = [slope(lambda x, loss=loss, h=h: loss(x, T(h)), 0.0) for h in (-5.0, -3.0, 3.0, 5.0)]
        assert slopes == pytest.approx([-2.0, 0.0, 6.0, 8.0])  # descent raises alpha while H is below -3
        for first in (0.2, 2.0):
            assert closed_loop(loss, first)[0] == pytest.approx(0.0079239, rel=1e-3)


def test_E003_43_wrong_sign_always_raises_alpha():
    """Step 5 wants H = -H₀ = 1, but no entropy in [-1, 1] is above ln 2: α rises at each; ours falls above H₀ = -1."""
    for entropy, ours in ((-5.0, 1), (-1.0, 0), (0.0, -1), (math.log(2), -1)):
        log_prob = torch.full((4,), -entropy)
        alpha = T(0.2, requires_grad=True)
        (-alpha * (log_prob - -1)).mean().backward()  # as printed
        assert alpha.grad < 0
        log_alpha = T(math.log(0.2), requires_grad=True)
        sac_continuous.alpha_loss(log_alpha, log_prob, T(-1.0)).backward()
        assert -log_alpha.grad.sign().item() == ours


def test_R001_7_alpha_falls_above_the_target():
    """At H = +5, above its target of -3, descending our losses lowers alpha; descending the notes' raises it."""
    assert slope(lambda x: notes_temperature_loss(-3.0)(x, T(5.0)), 0.0) == pytest.approx(-2.0)
    for loss in temperature_losses(-3.0):
        assert slope(lambda x, loss=loss: loss(x, T(5.0)), 0.0) == pytest.approx(8.0)


def test_R003_29_alpha_rises_only_below_its_target():
    """σ = exp(-5) has the entropy -3.58: the temperature rises towards H₀ = -1, and falls for H₀ = -5."""
    for target_entropy, step in ((-1.0, 0.01), (-5.0, -0.01)):
        agent = sac_agent(mean=0.0, log_std=-50.0, target_entropy=target_entropy, alpha_lr=0.01)
        entropy = agent.update(sac_transitions(4096))["entropy"].item()
        assert entropy == pytest.approx(-3.58, abs=0.04)
        assert agent.log_alpha.item() == pytest.approx(math.log(0.2) + step, abs=1e-4)


def test_E001_8_alpha_does_not_fall_with_entropy():
    """While H falls from its target of -3 to -8, alpha rises in every step; it does not fall with it."""
    for loss in temperature_losses(-3.0):
        values = [math.log(0.2)]
        for entropy in torch.linspace(-3.05, -8, 100):
            values.append(values[-1] - 0.01 * slope(lambda x, loss=loss, h=entropy: loss(x, h), values[-1]))
        assert all(b > a for a, b in itertools.pairwise(values)) and values[-1] > 0


def test_R001_5_entropy_ends_at_its_target():
    """In a closed loop with the best policy for each alpha, the entropy ends at its target of -3."""
    for loss in temperature_losses(-3.0):
        alpha, entropy = closed_loop(loss)
        assert entropy == pytest.approx(-3.0, abs=1e-3) and alpha == pytest.approx(0.0079239, rel=1e-3)


def test_E001_2_dual_is_minimised_over_alpha():
    """The dual, the best E[-|a|² / 2] + alpha (H + 3) over all σ, is least at alpha = 0.0079, and our slope is its own.

    What the notes want to maximise, alpha (H - 3), has no maximum.
    """
    sigma = torch.linspace(0.01, 3, 200_001, dtype=torch.float64)
    entropies = 3 * (sigma.log() + NORMAL_ENTROPY)

    def dual(alpha):
        values = -1.5 * sigma**2 + alpha * (entropies + 3)
        return values.max().item(), entropies[values.argmax()].item()

    alphas = np.linspace(0.002, 0.02, 181)
    assert alphas[np.argmin([dual(alpha)[0] for alpha in alphas])] == pytest.approx(0.0079, abs=1e-4)
    for alpha in (0.004, 0.2):
        by_difference = (dual(alpha * 1.001)[0] - dual(alpha * 0.999)[0]) / (0.002 * alpha)
        _, entropy = dual(alpha)
        for loss in temperature_losses(-3.0):
            ours = slope(lambda x, loss=loss, h=entropy: loss(x, T(h)), math.log(alpha))
            assert ours == pytest.approx(by_difference, abs=0.01)
    wanted = [alpha * (gaussian_entropy(alpha) - 3) for alpha in (1e1, 1e2, 1e3)]
    assert wanted[0] < wanted[1] / 10 < wanted[2] / 100


def test_R003_26_temperature_loss_descends_the_dual():
    """The slope of our loss is that of the dual D(α) = max_π E[Q] + α (H - H₀), and descent ends where H = H₀."""
    q, target_entropy = T([1.0, 0.2, -0.5, 0.9], dtype=torch.float64), 0.8

    def dual(alpha):  # the inner maximum in closed form
        return alpha * (q / alpha).logsumexp(0).item() - alpha * target_entropy

    def slope(alpha):
        log_alpha = T(math.log(alpha), dtype=torch.float64, requires_grad=True)
        entropy = torch.distributions.Categorical(logits=q / alpha).entropy()
        sac_continuous.alpha_loss(log_alpha, -entropy.expand(4), T(target_entropy)).backward()
        return log_alpha.grad.item()

    for alpha in (0.1, 0.3, 1.0, 3.0):
        assert slope(alpha) == pytest.approx((dual(alpha + 1e-5) - dual(alpha - 1e-5)) / 2e-5, abs=1e-5)
    log_alpha = 0.0
    for _ in range(200):
        log_alpha -= 0.5 * slope(math.exp(log_alpha))
    alpha = math.exp(log_alpha)
    entropy = torch.distributions.Categorical(logits=q / alpha).entropy().item()
    assert entropy == pytest.approx(target_entropy, abs=1e-3)
    assert dual(alpha) < min(dual(0.8 * alpha), dual(1.2 * alpha))


def test_E003_53_normalised_visits_shrink_alpha():
    """One state, rewards 1 and 0, α = 1: a normalised ρ turns α into 0.1 α, and P(1) from our 0.731 to 0.99995."""
    gamma, rewards = 0.9, T([1.0, 0.0], dtype=torch.float64)
    p = torch.linspace(-12, 12, 24_001, dtype=torch.float64).sigmoid()
    entropy = torch.distributions.Bernoulli(p).entropy()
    as_printed = p / (1 - gamma) + entropy  # E[Σ γ^t r] + α E_ρ[-log π]
    assert p[as_printed.argmax()].item() == pytest.approx(0.99995, abs=5e-6)
    assert p[(as_printed + (1 / (1 - gamma) - 1) * entropy).argmax()].item() == pytest.approx(0.7311, abs=2e-4)
    q = torch.zeros(2, dtype=torch.float64)
    for _ in range(200):  # a uniform policy's values
        q = 0.5 * sum(sac_continuous.td_target(rewards, T(0.0), v, v, gamma, T(math.log(0.5)), T(1.0)) for v in q)
    assert best_policy(q, 1.0)[0].item() == pytest.approx(0.7311, abs=2e-4)


def test_E001_11_alpha_for_log_alpha_rescales_slope():
    """The comment has alpha, the code log alpha: the slopes differ by the factor alpha, not in sign or zero."""
    for loss in temperature_losses(-3.0):
        for log_alpha in (-2.0, 0.0, 1.0):
            for entropy in (-6.0, -3.0001, -2.0, 4.0):
                ours = slope(lambda x, loss=loss, h=entropy: loss(x, T(h)), log_alpha)
                of_alpha = slope(lambda x, h=entropy: x.exp() * (h + 3), log_alpha)
                assert ours == pytest.approx(entropy + 3, abs=1e-5)
                assert of_alpha / ours == pytest.approx(math.exp(log_alpha), rel=1e-2)


def test_R001_1_log_alpha_keeps_alpha_positive():
    """H = 0.5 above a target of -1: raw alpha is negative after 14 steps of 0.01 * 1.5; exp(log alpha) never is."""
    raw = 0.2 - 0.01 * 1.5 * np.arange(20)
    assert int((raw < 0).argmax()) == 14
    for loss in temperature_losses(-1.0):
        log_alpha = T(math.log(0.2), requires_grad=True)
        for _ in range(400):
            (gradient,) = torch.autograd.grad(loss(log_alpha, T(0.5)), [log_alpha])
            log_alpha = (log_alpha - 0.01 * gradient).detach().requires_grad_()
        assert 0 < log_alpha.exp().item() == pytest.approx(0.2 * math.exp(-6), rel=1e-3)


def test_E003_44_stepping_alpha_itself_makes_it_negative():
    """From 0.2, with H - H₀ = 1.5 and steps of 0.01, α itself is negative after 14 steps; our exp(log α) never is."""
    alphas = [0.2 - 0.01 * 1.5 * k for k in range(15)]
    assert alphas[13] > 0 > alphas[14]
    agent = sac_agent(target_entropy=-50.0, alpha_lr=0.1)  # an entropy far below any that is met: α always falls
    for _ in range(20):
        alpha = agent.update(sac_transitions(8))["alpha"].item()
        assert alpha > 0
    assert alpha == pytest.approx(0.2 * math.exp(-1.9), rel=0.02)


def test_E001_6_entropy_must_be_detached_for_alpha():
    """Not detached, the loss of alpha eats the graph of the entropy and pulls σ down; ours leaves it to the policy."""
    for detached in (False, True):
        log_alpha, log_std = T(math.log(0.2), requires_grad=True), torch.zeros(3, requires_grad=True)
        entropy = torch.distributions.Normal(torch.zeros(3), log_std.exp()).entropy().sum()
        if detached:
            ppo_continuous.ent_coef_loss(log_alpha, entropy, T(-3.0)).backward()
            assert log_std.grad is None
            (-0.2 * entropy).backward()
            assert log_std.grad.tolist() == pytest.approx([-0.2] * 3)
        else:
            notes_temperature_loss(-3.0)(log_alpha, entropy).backward()
            assert log_std.grad.tolist() == pytest.approx([1.609] * 3, abs=1e-3)  # -log 0.2: descent lowers log σ
            with pytest.raises(RuntimeError, match="second time"):
                (-0.2 * entropy).backward()


def test_R001_2_temperature_loss_reaches_log_alpha_alone():
    """Our losses of the temperature take entropy and log-probabilities as constants, and reach log alpha alone."""
    log_alpha, log_prob = T(0.0, requires_grad=True), torch.zeros(4, requires_grad=True)
    sac_continuous.alpha_loss(log_alpha, log_prob, T(-3.0)).backward()
    assert log_prob.grad is None and log_alpha.grad.item() == pytest.approx(3.0)
    for module in PPO:
        log_ent_coef, entropy = T(0.0, requires_grad=True), T(0.0, requires_grad=True)
        module.ent_coef_loss(log_ent_coef, entropy, T(-3.0)).backward()
        assert entropy.grad is None and log_ent_coef.grad.item() == pytest.approx(3.0)


def test_E003_50_policy_loss_must_not_move_alpha(monkeypatch):
    """α with its graph: a second backward raises, and the policy's loss moves α; ours has no path to α."""
    log_alpha = T(0.0, requires_grad=True)
    alpha, log_prob = log_alpha.exp(), T([2.0], requires_grad=True)
    (alpha * log_prob).mean().backward()
    assert log_alpha.grad.item() == pytest.approx(2.0)  # into the temperature, from the policy's loss
    with pytest.raises(RuntimeError, match="second time"):
        (alpha * log_prob).mean().backward()
    paths, true, agent = [], sac_continuous.actor_loss, sac_agent()

    def actor_loss(*args):
        loss = true(*args)
        paths.append(torch.autograd.grad(loss, agent.log_alpha, retain_graph=True, allow_unused=True)[0])
        return loss

    monkeypatch.setattr(sac_continuous, "actor_loss", actor_loss)
    for _ in range(2):
        agent.update(sac_transitions())
    assert paths == [None, None]


def test_E001_5_first_alpha_is_not_its_logarithm():
    """log 0.2, given as the notes' comment says, has no logarithm; our arguments are alpha and c, which are above 0."""
    assert torch.log(T(math.log(0.2))).isnan()
    assert make_agent(sac_continuous, alpha=0.2).log_alpha.exp().item() == pytest.approx(0.2)
    assert make_agent(ppo_continuous, ent_autotune=True, ent_coef=0.2).log_ent_coef.exp().item() == pytest.approx(0.2)
    for wrong in (math.log(0.2), 0.0):
        with pytest.raises(sac_continuous.UsageError):
            sac_continuous.check_args(sac_continuous.Args(alpha=wrong))
        for module in PPO:
            with pytest.raises(module.UsageError):
                module.check_args(module.Args(ent_autotune=True, ent_coef=wrong))


def test_E001_20_small_first_alpha_rises_again():
    """A temperature of 0.001 at first rises, where the entropy is below its target, and ends where others do."""
    for loss in temperature_losses(-3.0):
        assert slope(lambda x, loss=loss: loss(x, T(gaussian_entropy(0.001))), math.log(0.001)) < 0  # descended
        assert closed_loop(loss, 0.001)[0] == pytest.approx(0.0079239, rel=1e-3)


def test_R001_10_last_alpha_is_independent_of_first():
    """From 0.01, 0.2 and 2 our losses end at the same alpha; the notes' own end apart, by the start alone."""
    for loss in temperature_losses(-3.0)[:2]:
        assert [closed_loop(loss, first)[0] for first in (0.01, 0.2, 2.0)] == pytest.approx([0.0079239] * 3, rel=1e-3)
    low, high = (closed_loop(notes_temperature_loss(-3.0), first)[0] for first in (0.2, 2.0))
    assert high / low > 1e12


def test_E001_15_adam_step_size_moves_log_alpha():
    """A step of Adam moves log alpha by its step size: 0.001 of the notes' class, 0.0001 of their example."""
    for lr in (1e-3, 1e-4):
        agent = make_agent(sac_continuous, alpha_lr=lr)
        agent.update(sac_batch())
        assert abs(agent.log_alpha.item() - math.log(0.2)) == pytest.approx(lr, rel=2e-3)
        for module in PPO:
            agent = peaked(make_agent(module, ent_autotune=True, ent_coef=0.1, ent_coef_lr=lr))
            ppo_step(agent, torch.zeros(8))
            assert abs(agent.log_ent_coef.item() - math.log(0.1)) == pytest.approx(lr, rel=2e-3)


def test_E001_18_alpha_steps_ignore_distance_to_target():
    """Adam takes log alpha 0.0003 further in an update, be H 2 or 50 nats too large: 10,761 from 0.2 to 0.0079."""
    for distance in (2.0, 50.0):
        agent = make_agent(sac_continuous)
        for _ in range(100):
            log_prob = torch.full((4,), 3 - distance)  # the target is -3
            loss = sac_continuous.alpha_loss(agent.log_alpha, log_prob, agent.target_entropy())
            agent.alpha_optimizer.minimize(loss)
        assert math.log(0.2) - agent.log_alpha.item() == pytest.approx(100 * 3e-4, rel=1e-3)
    assert math.log(0.2 / 0.007923858) / 3e-4 == pytest.approx(10_761, abs=0.5)
    assert math.log(0.2 / 0.007923858) / 1e-4 == pytest.approx(32_284, abs=0.5)


@pytest.mark.parametrize("module", [*PPO, sac_continuous])
def test_R001_9_coefficient_rises_below_falls_above_target(module):
    """An update of the whole agent raises the coefficient below the target and lowers it above, in PPO as in SAC."""
    for direction, target in ((1, 0.9), (-1, 0.5)) if module is ppo_discrete else ((1, 5.0), (-1, 1.0)):
        if module is sac_continuous:
            agent = make_agent(sac_continuous, target_entropy=target)
            agent.update(sac_batch())
            assert direction * (agent.log_alpha.item() - math.log(0.2)) == pytest.approx(3e-4, rel=1e-3)
        else:
            agent = make_agent(module, ent_autotune=True, ent_coef=0.2, target_entropy=target)
            with torch.no_grad():
                agent.network.actor[-1].bias.copy_(T([0.0, 1.0, 2.0]))  # as logits: H = 0.76 ln 3
            ppo_step(agent, torch.zeros(8))
            assert direction * (agent.log_ent_coef.item() - math.log(0.2)) == pytest.approx(1e-3, rel=1e-3)
