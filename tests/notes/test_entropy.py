"""What the entropy of a policy is, in numbers, and which parameters its gradient reaches."""

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import ppo_continuous
import ppo_discrete
import sac_continuous
from notes.helpers import (
    NORMAL_ENTROPY,
    T,
    make_agent,
    normal_noise,
    peaked,
    ppo_step,
    sac_agent,
    sac_batch,
    sac_transitions,
    slope,
    squashed_log_prob,
)


def test_R000_2_entropy_is_mean_minus_log_prob():
    """Our H is the mean of our -log π: by quadrature over a Gaussian's actions, by adding up over discrete ones."""
    x = torch.linspace(-9, 11, 20_001, dtype=torch.float64)[:, None]
    mean, log_std = T([[1.0]]).double(), T([-0.4]).double()
    log_prob, entropy = ppo_continuous.gaussian(mean, log_std, x)
    assert torch.trapezoid(log_prob.exp() * -log_prob, x[:, 0]).item() == pytest.approx(entropy.item(), abs=1e-8)
    logits = T([[2.0, 0.0, -1.0, 0.5]]).double().expand(4, 4)
    log_prob, entropy = ppo_discrete.categorical(logits, torch.arange(4))
    assert (log_prob.exp() * -log_prob).sum().item() == pytest.approx(entropy[0].item(), abs=1e-8)


def test_R000_6_flatter_policies_have_more_entropy():
    """The flat distribution of three actions has ln 3, the most there is; a certain one has 0; wider Gaussians more."""
    action = torch.zeros(1000, dtype=torch.int64)
    _, entropy = ppo_discrete.categorical(torch.zeros(1, 3), action[:1])
    assert entropy.item() == pytest.approx(1.098612)
    torch.manual_seed(0)
    _, others = ppo_discrete.categorical(3 * torch.randn(1000, 3), action)
    assert others.max() < entropy.item() and others.min() >= 0
    assert ppo_discrete.categorical(T([[0.0, 100.0, 0.0]]), action[:1])[1].item() == pytest.approx(0, abs=1e-6)
    entropies = [ppo_continuous.gaussian(T([[0.0]]), T([x]), T([[0.0]]))[1].item() for x in (-1.0, 0.0, 1.0)]
    assert entropies == sorted(entropies)
    without = T([math.log(0.24197)])
    assert ppo_continuous.gaussian(T([[0.0]]), without, T([[0.0]]))[1].item() == pytest.approx(0, abs=1e-4)


def test_E000_4_flat_entropy_is_ln_3():
    """p = 0.33 three times sums to 0.99 and gives 1.0976; the flat distribution has 1.0986; both round to 1.10."""
    assert -3 * 0.33 * math.log(0.33) == pytest.approx(1.0976, abs=1e-4)
    _, entropy = ppo_discrete.categorical(T([[0.33] * 3]).log(), T([0]))
    assert entropy.item() == pytest.approx(1.0986, abs=1e-4) and round(entropy.item(), 2) == 1.1


def test_E000_3_rare_actions_alone_give_0_053():
    """0.0530 is what the two rare actions contribute; with the frequent one's 0.0099 it is 0.0629."""
    rare = -2 * 0.005 * math.log(0.005)
    assert rare == pytest.approx(0.0530, abs=1e-4) and round(rare, 2) == 0.05
    _, entropy = ppo_discrete.categorical(T([[0.99, 0.005, 0.005]]).log(), T([0]))
    assert entropy.item() == pytest.approx(0.062933, abs=1e-6)


def test_R000_3_gaussian_entropy_depends_on_std_alone():
    """σ = 0.7 has ln 0.7 + 1.4189 = 1.0623 nats around each mean, by quadrature too; no gradient reaches μ."""
    for mean in (0.0, 5.0, -100.0):
        mu = T([[mean]], dtype=torch.float64, requires_grad=True)
        _, entropy = ppo_continuous.gaussian(mu, T([0.7]).double().log(), mu.detach())
        assert entropy.item() == pytest.approx(1.062264, abs=1e-6) and not entropy.requires_grad
        x = torch.linspace(mean - 8, mean + 8, 20_001, dtype=torch.float64)
        density = torch.exp(-((x - mean) ** 2) / 0.98) / math.sqrt(math.pi * 0.98)  # 2σ² = 0.98
        assert torch.trapezoid(torch.special.entr(density), x).item() == pytest.approx(entropy.item(), abs=1e-6)


def test_E000_6_squashed_entropy_depends_on_the_mean():
    """tanh N(0, 0.5) has 0.500 nats and tanh N(2, 0.5) -1.946, where the Gaussian has 0.726 both times."""
    assert torch.distributions.Normal(0.0, 0.5).entropy().item() == pytest.approx(0.726, abs=5e-4)
    noise = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
    density = torch.exp(-(noise[:, 0] ** 2) / 2) / math.sqrt(2 * math.pi)
    for mean, expected in ((0.0, 0.500), (2.0, -1.946)):
        mu, log_std = torch.full_like(noise, mean), torch.full_like(noise, math.log(0.5))
        _, log_prob = sac_continuous.squash(mu, log_std, noise)
        assert torch.trapezoid(-log_prob * density, noise[:, 0]).item() == pytest.approx(expected, abs=5e-4)
    agent = make_agent(sac_continuous, num_actions=1)
    with torch.no_grad():
        agent.actor.net[-1].weight.zero_()
        agent.actor.net[-1].bias.copy_(T([2.0, math.log(0.5)]))  # log σ = -0.693 leaves the smooth bound as -0.707
    assert agent.update(sac_batch(num_actions=1, size=1024))["entropy"].item() == pytest.approx(-1.95, abs=0.12)


def test_R000_4_entropy_is_summed_over_dimensions():
    """Twelve joints with σ = 1 have 12 * 1.4189 = 17.027 nats; one number for each sample."""
    torch.manual_seed(0)
    mean, log_std = torch.randn(2, 4, 12)
    _, entropy = ppo_continuous.gaussian(mean, torch.zeros(4, 12), mean)
    assert entropy.tolist() == pytest.approx([17.0273] * 4, abs=1e-4)
    _, entropy = ppo_continuous.gaussian(mean, log_std, mean)
    normal = torch.distributions.Normal(mean, log_std.exp())
    assert normal.entropy().shape == (4, 12)
    assert torch.allclose(entropy, torch.distributions.Independent(normal, 1).entropy(), atol=1e-5)


def test_R000_8_std_is_parameter_or_head():
    """log σ is a parameter, the same in all states, or an output of the network, which is not."""
    obs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    agent = make_agent(ppo_continuous)
    parameter, (_, log_std) = agent.network.log_std, agent.network.policy(obs)
    assert parameter.shape == (3,) and any(parameter is each for each in agent.optimizer.owned())
    assert torch.equal(log_std.expand(5, 3), parameter.expand(5, 3))
    _, log_std = make_agent(ppo_continuous, std="head").network.policy(obs)
    assert log_std.shape == (5, 3) and (log_std.std(0) > 0).all()


def test_E000_5_stepping_sigma_itself_makes_it_negative():
    """The notes' sigma is no parameter; made one, a step takes it from 0.05 to -0.15. Ours ends at e^-5."""
    assert not torch.ones(4, 12).requires_grad
    sigma = torch.full((3,), 0.05, requires_grad=True)
    (-torch.distributions.Normal(torch.zeros(3), sigma).log_prob(torch.zeros(3))).sum().backward()
    sigma = (sigma - 0.01 * sigma.grad).detach()
    assert sigma.tolist() == pytest.approx([-0.15] * 3)
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(torch.zeros(3), sigma, validate_args=True)
    agent = make_agent(ppo_continuous, learning_rate=100.0, norm_adv=False)
    assert any(agent.network.log_std is parameter for parameter in agent.network.parameters())
    assert agent.network.log_std.shape == (3,)
    with torch.no_grad():
        agent.network.log_std.fill_(math.log(0.05))
        mean, _ = agent.network.policy(torch.zeros(8, 4))
    log_prob, _, value = agent.evaluate_actions(torch.zeros(8, 4), mean)
    data = torch.zeros(8, 4), mean, log_prob.detach(), torch.ones(8), value.detach()
    agent.update_minibatch(ppo_continuous.Minibatch(*data))
    assert agent.network.log_std.exp().tolist() == pytest.approx([math.exp(-5)] * 3)


def test_E000_8_bonus_is_steeper_at_small_sigma():
    """Where σ is the parameter, the bonus has slope -c / σ: -2 at 0.1, -0.02 at 10 for c = 0.2; ours -c along log σ."""
    for sigma, expected in ((0.1, -2.0), (10.0, -0.02)):
        std = torch.full((12,), sigma, requires_grad=True)
        entropy = torch.distributions.Normal(torch.zeros(12), std).entropy().sum()
        assert entropy.item() == pytest.approx(12 * (math.log(sigma) + NORMAL_ENTROPY), rel=1e-5)
        assert torch.autograd.grad(-0.2 * entropy, std)[0].tolist() == pytest.approx([expected] * 12, rel=1e-5)
        zero, log_std = torch.zeros(1, 12), T(sigma).log().expand(12).clone().requires_grad_()
        _, ours = ppo_continuous.gaussian(zero, log_std, zero)
        loss = ppo_continuous.total_loss(T(0.0), T(0.0), ours.mean(), 0.5, T(0.2))
        assert ours.item() == pytest.approx(entropy.item(), rel=1e-5)
        assert torch.autograd.grad(loss, log_std)[0].tolist() == pytest.approx([-0.2] * 12, rel=1e-5)
    below = T(-0.15, requires_grad=True)  # clamped, as rsl_rl does from 5.2.0 on: no gradient brings it back
    entropy = torch.distributions.Normal(0.0, below.clamp(1e-6, 1e6)).entropy()
    assert torch.autograd.grad(entropy, below)[0].item() == 0


def test_E000_2_bonus_never_makes_std_smaller():
    """The bonus never makes σ smaller: its slope along log σ is -c at e^-3, 1 and e^3, in each dimension."""
    zero = torch.zeros(1, 3)
    for start in (-3.0, 0.0, 3.0):
        log_std = torch.full((3,), start, requires_grad=True)
        _, entropy = ppo_continuous.gaussian(zero, log_std, zero)
        ppo_continuous.total_loss(T(0.0), T(0.0), entropy.mean(), 0.5, T(0.2)).backward()
        assert log_std.grad.tolist() == pytest.approx([-0.2] * 3)


def test_R000_5_bonus_raises_std_to_the_bound():
    """With the bonus alone log σ rises in every step, until it meets our bound; the push would be as strong beyond."""
    agent = make_agent(ppo_continuous, ent_coef=0.1, learning_rate=0.1, norm_adv=False)
    values = [agent.network.log_std.max().item()]
    for _ in range(30):
        ppo_step(agent, torch.zeros(8))
        values.append(agent.network.log_std.max().item())
    assert all(b > a or b == 2 for a, b in itertools.pairwise(values)) and values[-1] == 2
    zero = torch.zeros(1, 1)
    bonus = lambda x: ppo_continuous.total_loss(  # noqa: E731
        T(0.0), T(0.0), ppo_continuous.gaussian(zero, x.expand(1), zero)[1], 0.5, T(0.1)
    )
    assert slope(bonus, 50.0) == pytest.approx(-0.1)


def test_R000_9_advantages_shrink_or_widen_std():
    """Actions at 0.5 σ and 2 σ: σ shrinks if the near one is better, and grows, by as much, if the far one is."""
    mean, action = torch.zeros(2, 1), T([[0.5], [2.0]])

    def surrogate(log_std, advantage):
        log_prob, _ = ppo_continuous.gaussian(mean, log_std.expand(1), action)
        return ppo_continuous.policy_loss(log_prob, log_prob.detach(), T(advantage), 0.2)

    assert slope(lambda x: surrogate(x, [1.0, -1.0]), 0.0) == pytest.approx(1.875)
    assert slope(lambda x: surrogate(x, [-1.0, 1.0]), 0.0) == pytest.approx(-1.875)


def test_E000_1_entropy_gradient_reaches_trunk_through_head():
    """The trunk gets nothing from H through a parameter, but something through a head, a softmax and tanh."""

    def gradients(agent, entropy):
        actor = agent.network.actor
        return torch.autograd.grad(entropy.mean(), [actor[0].weight, actor[-1].weight], allow_unused=True)

    obs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    agent = make_agent(ppo_continuous)
    assert gradients(agent, agent.evaluate_actions(obs, torch.zeros(8, 3))[1]) == (None, None)
    agent = make_agent(ppo_continuous, std="head")
    trunk, last = gradients(agent, agent.evaluate_actions(obs, torch.zeros(8, 3))[1])
    assert trunk.norm() > 1e-3 and last[3:].norm() > 1 and (last[:3] == 0).all()  # rows of μ, then of log σ
    agent = peaked(make_agent(ppo_discrete))
    trunk, last = gradients(agent, agent.evaluate_actions(obs, torch.zeros(8, dtype=torch.int64))[1])
    assert trunk.norm() > 1e-3 and last.norm() > 1e-3
    mean = T([[1.0]], requires_grad=True)
    _, log_prob = sac_continuous.squash(mean, torch.zeros(1, 1), torch.zeros(1, 1))
    assert torch.autograd.grad(-log_prob, [mean])[0].item() == pytest.approx(-1.5232, abs=1e-4)  # -2 tanh 1


def test_E000_1b_bonus_crowds_out_actor_when_clipped():
    """All gradients are cut together: beside a norm of 1, c = 1 in three dimensions leaves half, if anything is cut."""

    def gradient_of_mean(scale, ent_coef, max_grad_norm):
        """Norm of what a step takes for the actor's parameters, from Adam's first moments, 0.1 of the gradients."""
        agent = make_agent(ppo_continuous, ent_coef=ent_coef, max_grad_norm=max_grad_norm, norm_adv=False)
        obs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
        mean, log_std = agent.network.policy(obs)
        action = mean.detach() + log_std.detach().exp()  # one σ away, where log π has no slope along log σ
        ppo_step(agent, scale * torch.arange(8.0), actions=action)
        owned = agent.optimizer.owned()
        indices = [i for i, one in enumerate(owned) if any(one is each for each in agent.network.actor.parameters())]
        moments = torch.cat([agent.optimizer.get_buffer(f"mean{i}").flatten() for i in indices])
        return moments.norm().item() / 0.1

    scale = 1 / gradient_of_mean(1.0, 0.0, 1e9)
    sizes = [gradient_of_mean(scale, ent_coef, norm) for norm in (1e9, 0.1) for ent_coef in (0.0, 1.0)]
    assert sizes[0] == sizes[1] and sizes == pytest.approx([1.0, 1.0, 0.1, 0.05], rel=1e-4)  # 1 / √(1 + 3)


def test_E004_9_squashed_gaussian_stays_in_range():
    """σ = exp(2): of a Gaussian 89% are outside of [-1, 1], its entropy is 3.4; ours stays inside, and below ln 2."""
    std, noise = math.exp(2.0), normal_noise(4001)
    normal = torch.distributions.Normal(0.0, std)
    assert 2 * normal.cdf(T(-1.0)).item() == pytest.approx(0.892, abs=1e-3)
    assert normal.entropy().item() == pytest.approx(3.419, abs=1e-3)
    action, log_prob = sac_continuous.squash(T([[0.0]]), T([[2.0]]), noise)
    assert action.abs().max() <= 1 and -log_prob.mean().item() < math.log(2)
    agent = sac_agent(mean=0.0, log_std=50.0)  # at the bound, 2
    assert all(abs(agent.act(np.zeros(3), explore=True)[0]) <= 1 for _ in range(20))


def test_R003_27_minus_dimension_is_within_reach():
    """-dim(A) by default, within reach: one dimension of tanh N(0, σ) has from -1.6 (σ = 0.05) to ln 2."""
    for action_dim in (1, 3, 6):
        metrics = sac_agent(action_dim).update(sac_transitions(8, action_dim))
        assert metrics["target_entropy"].item() == -action_dim
    noise = normal_noise(2001)
    entropy = {std: -squashed_log_prob(std * noise, 0.0, std).mean().item() for std in (0.05, 0.5, 0.87, 2.0, 7.0)}
    assert entropy[0.05] < -1 < entropy[0.5] and max(entropy.values()) < math.log(2)
    assert entropy[0.05] == pytest.approx(-1.58, abs=5e-3)


def test_R000_10_disturbances_like_the_policy_s_own_noise():
    """Returns of the policies of benchmark/notes/robustness.py, from its data, as its README has them too."""
    data = Path(sac_continuous.__file__).parent / "benchmark" / "notes" / "data" / "robustness"

    def returns(kind, task="Pendulum-v1", mode=" deterministic"):
        values = {}
        for seed in range(1, 6):
            with open(data / f"{task}-{kind}__{seed}.csv", newline="") as file:
                for row in csv.DictReader(file):
                    values.setdefault(row["name"], []).append(float(row["value"]))
        assert all(len(seeds) == 5 for seeds in values.values())
        return {name.removesuffix(mode): x for name, x in values.items() if name.endswith(mode)}

    bonus, without = returns("ppo"), returns("ppo-0")
    assert [np.mean(of["action 1"]) for of in (bonus, without)] == pytest.approx([-223, -435], abs=0.5)
    assert [np.mean(of["none 0"]) for of in (bonus, without)] == pytest.approx([-329, -240], abs=0.5)
    assert max(without["action 1"]) < min(bonus["action 1"]), "in every seed"
    learned, fixed = returns("sac"), returns("sac-0")
    assert [np.mean(of["action 1"]) for of in (learned, fixed)] == pytest.approx([-429, -387], abs=0.5)
    for name in learned:
        error = math.sqrt((np.var(learned[name], ddof=1) + np.var(fixed[name], ddof=1)) / 5)
        assert abs(np.mean(learned[name]) - np.mean(fixed[name])) < 2 * error, name
    sampled = [np.mean(returns(kind, mode=" sampled")["none 0"]) for kind in ("ppo", "ppo-0")]
    assert sampled == pytest.approx([-235, -222], abs=0.5)
    inverted = [
        np.mean(returns(kind, "InvertedPendulum-v5")["action 0.6"]) for kind in ("ppo", "ppo-0", "sac", "sac-0")
    ]
    assert inverted == pytest.approx([664, 279, 26, 40], abs=0.5)
    assert sum(value == 1000 for value in returns("td3", "InvertedPendulum-v5")["none 0"]) == 3
