"""PPO's loss: the sign, size and effect of the entropy bonus, the clipped surrogate and the plain policy gradient."""

import math

import numpy as np
import pytest
import torch

import ppo_continuous
import ppo_discrete
import sac_continuous
from notes.helpers import NORMAL_ENTROPY, PPO, T, make_agent, peaked, ppo_step, slope


def mean_entropy(agent):
    """Of a PPO agent's policy at some observations, by torch.distributions."""
    obs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    if isinstance(agent, ppo_discrete.Agent):
        return torch.distributions.Categorical(logits=agent.network.policy(obs)).entropy().mean().item()
    mean, log_std = agent.network.policy(obs)
    return torch.distributions.Normal(mean, log_std.expand_as(mean).exp()).entropy().sum(-1).mean().item()


@pytest.mark.parametrize("module", PPO)
def test_R000_1_entropy_is_subtracted_from_the_loss(module):
    """One unit more of policy loss, value loss or entropy changes the loss by 1, c1 and -c2."""
    inputs = [T(x, requires_grad=True) for x in (3.0, 4.0, 2.0)]
    loss = module.total_loss(*inputs, 0.7, T(0.3))
    assert [x.item() for x in torch.autograd.grad(loss, inputs)] == pytest.approx([1.0, 0.7, -0.3])


@pytest.mark.parametrize("module", PPO)
def test_E002_1_plus_sign_lowers_the_entropy(module):
    """Without advantages there is only the bonus: a step must raise the entropy. With the note's + it falls."""
    agent = peaked(make_agent(module, ent_coef=0.1, norm_adv=False))
    before = mean_entropy(agent)
    ppo_step(agent, torch.zeros(8))
    assert mean_entropy(agent) > before + 1e-4
    logits = T([[0.0, 1.0, 2.0]], requires_grad=True)
    entropy = lambda x: torch.distributions.Categorical(logits=x).entropy().mean()  # noqa: E731
    (gradient,) = torch.autograd.grad(-torch.zeros(1).mean() + 0.1 * entropy(logits), [logits])
    assert entropy(logits - gradient) < entropy(logits) - 1e-3


@pytest.mark.parametrize("module", PPO)
def test_E002_2_minus_sign_ends_at_largest_entropy(module):
    """On flat rewards, 300 steps with the minus end at ln 3, the largest entropy; with the note's plus at almost 0."""
    minus = lambda entropy: module.total_loss(T(0.0), T(0.0), entropy, 0.5, T(1.0))  # noqa: E731
    ends = []
    for loss in (minus, lambda entropy: T(0.0) + 1.0 * entropy):
        logits = T([[0.0, 0.5, 1.0]], requires_grad=True)
        for _ in range(300):
            _, entropy = ppo_discrete.categorical(logits, T([0]))
            logits = (logits - torch.autograd.grad(loss(entropy.mean()), [logits])[0]).detach().requires_grad_()
        ends.append(ppo_discrete.categorical(logits, T([0]))[1].item())
    assert ends[0] == pytest.approx(1.098612, abs=1e-5)
    assert ends[1] == pytest.approx(0.003, abs=5e-4)


def test_E001_12_entropy_must_lower_the_policy_loss():
    """`loss + alpha * entropy` grows by alpha with each nat; ours fall by it, in PPO and in SAC, where H = -log π."""
    assert slope(lambda h: T(1.0) + 0.2 * h, 1.5) == pytest.approx(0.2)
    for module in PPO:
        assert slope(lambda h, m=module: m.total_loss(T(1.0), T(0.0), h, 0.5, T(0.2)), 1.5) == pytest.approx(-0.2)
    q = torch.zeros(4)
    assert slope(lambda h: sac_continuous.actor_loss(-h.expand(4), q, q, T(0.2)), 1.5) == pytest.approx(-0.2)


def test_R001_3_bonus_alone_raises_log_std_only():
    """With learned c and no advantages a step raises log σ in each dimension and leaves μ to the bit as it was."""
    agent = make_agent(ppo_continuous, ent_autotune=True, ent_coef=0.2, norm_adv=False)
    obs = torch.randn(8, 4)
    before, metrics = agent.network.policy(obs)[0], ppo_step(agent, torch.zeros(8))
    assert metrics["total_loss"].item() == pytest.approx(-0.2 * 3 * (NORMAL_ENTROPY - 0.5), rel=1e-5)
    assert (agent.network.log_std + 0.5).tolist() == pytest.approx([3e-4] * 3, rel=1e-3)
    assert torch.equal(agent.network.policy(obs)[0], before)
    assert not any(agent.log_ent_coef is parameter for parameter in agent.optimizer.owned())


def test_E002_3_mean_over_dimensions_shrinks_the_bonus():
    """For a Gaussian of four dimensions the mean over all gives a quarter of the bonus: -0.05 instead of -0.2."""
    log_std, zero = torch.zeros(4, requires_grad=True), torch.zeros(8, 4)
    normal = torch.distributions.Normal(zero, log_std.exp())
    (notes,) = torch.autograd.grad(-0.2 * normal.entropy().mean(), [log_std])
    assert notes.tolist() == pytest.approx([-0.05] * 4)
    for shape in ((4,), (8, 4)):  # a parameter, a head
        log_std = torch.zeros(shape, requires_grad=True)
        _, entropy = ppo_continuous.gaussian(zero, log_std, zero)
        ppo_continuous.total_loss(T(0.0), T(0.0), entropy.mean(), 0.5, T(0.2)).backward()
        assert log_std.grad.reshape(-1, 4).sum(0).tolist() == pytest.approx([-0.2] * 4)


def test_E001_7_unsummed_log_prob_mixes_up_samples():
    """Not summed, log π [B, 3] meets A [B]: an error for B = 5, a third of the loss for A [B, 1]; B = 3 mixes all."""
    torch.manual_seed(0)
    mean, action, log_std, advantage = torch.randn(5, 3), torch.randn(5, 3), torch.zeros(3), torch.randn(5)
    log_prob, _ = ppo_continuous.gaussian(mean, log_std, action)
    assert log_prob.shape == (5,)
    notes = torch.distributions.Normal(mean, torch.ones(3)).log_prob(action)
    with pytest.raises(RuntimeError):
        advantage * notes
    right = (advantage * notes.sum(-1)).mean().item()
    assert (advantage * log_prob).mean().item() == pytest.approx(right, rel=1e-5)
    assert 3 * (advantage[:, None] * notes).mean().item() == pytest.approx(right, rel=1e-5)
    of_three = (advantage[:3] * notes[:3]).mean().item()
    assert abs(3 * of_three - (advantage[:3] * log_prob[:3]).mean().item()) > 0.1


@pytest.mark.parametrize("module", PPO)
def test_E000_7_entropy_is_in_sac_targets_only(module):
    """SAC's entropy is in the target of Q, 0.9 * 0.2 * 1 = 0.18 here; PPO's advantages and targets are free of c."""
    one, zero = torch.ones(1), torch.zeros(1)
    assert sac_continuous.td_target(zero, zero, zero, zero, 0.9, -one, T(0.2)).item() == pytest.approx(0.18)
    seen = {0.0: [], 0.5: []}
    for ent_coef, minibatches in seen.items():
        agent = make_agent(module, ent_coef=ent_coef, num_envs=1, num_minibatches=1, update_epochs=1)
        obs, next_obs = torch.randn(2, 8, 1, 4)
        action = torch.as_tensor(np.stack([agent.act(each.numpy(), explore=False) for each in obs]))
        step = agent.update_minibatch
        record = lambda data, step=step, kept=minibatches: kept.append(data) or step(data)  # noqa: E731
        agent.update(
            module.Batch(obs, action, torch.randn(8, 1), next_obs, torch.zeros(8, 1), torch.zeros(8, 1)), record
        )
    (without,), (with_bonus,) = seen[0.0], seen[0.5]
    assert torch.equal(without.advantage, with_bonus.advantage) and torch.equal(without.target, with_bonus.target)


def test_R002_1_ppo_loss_by_hand():
    """By hand, for π = (0.2, 0.3, 0.5), ratios 1 and 1.25, A = 1 and 2: -1.7 + 0.5 * 0.5 - 0.1 * 1.029653."""
    agent = make_agent(ppo_discrete, ent_coef=0.1, norm_adv=False)
    with torch.no_grad():
        for network, bias in ((agent.network.actor, T([0.2, 0.3, 0.5]).log()), (agent.network.critic, T([0.5]))):
            network[-1].weight.zero_()
            network[-1].bias.copy_(bias)
    old_log_prob, target = T([0.2, 0.4]).log(), T([1.5, -0.5])
    data = torch.randn(2, 4), T([0, 2]), old_log_prob, T([1.0, 2.0]), target
    metrics = agent.update_minibatch(ppo_discrete.Minibatch(*data))
    names = ("policy_loss", "value_loss", "entropy", "total_loss")
    expected = [-1.7, 0.5, 1.029653, -1.7 + 0.25 - 0.1029653]
    assert [metrics[name].item() for name in names] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("module", PPO)
def test_R002_2_slope_vanishes_beyond_the_clip(module):
    """By finite differences: no slope where the ratio has left [0.8, 1.2] in the direction of A, else -ratio A."""
    for advantage in (1.0, -2.0):
        for ratio in (0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 1.5):

            def loss(log_ratio, advantage=advantage):
                pair = T([log_ratio, 0.0], dtype=torch.float64), T([0.0, 0.0], dtype=torch.float64)
                return module.policy_loss(*pair, T([advantage, 0.0], dtype=torch.float64), 0.2).item()

            x, h = math.log(ratio), 1e-6
            by_difference = (loss(x + h) - loss(x - h)) / (2 * h)
            is_cut = ratio > 1.2 if advantage > 0 else ratio < 0.8
            assert by_difference == pytest.approx(0.0 if is_cut else -ratio * advantage / 2, abs=1e-6)


@pytest.mark.parametrize("module", PPO)
def test_E001_13_plain_gradient_pulls_beyond_the_clip(module):
    """The plain policy gradient is PPO's where the ratio is 1; at 1.5 it pulls on with A = 1, where PPO's is 0."""
    advantage = T([1.0, -1.0])
    for ratio, expected in ((1.0, [-0.5, 0.5]), (1.5, [0.0, 0.75])):
        log_prob = torch.full((2,), math.log(ratio), requires_grad=True)
        (plain,) = torch.autograd.grad(-(advantage * log_prob).mean(), [log_prob])
        (ours,) = torch.autograd.grad(module.policy_loss(log_prob, torch.zeros(2), advantage, 0.2), [log_prob])
        assert plain.tolist() == [-0.5, 0.5] and ours.tolist() == pytest.approx(expected)


def test_R002_3_coefficient_is_small_and_never_negative():
    """0.01 is our default for discrete actions, as in the paper's Atari; continuous ones have 0; below 0 is refused."""
    assert ppo_discrete.Args().ent_coef == 0.01 and ppo_continuous.Args().ent_coef == 0.0
    for module in PPO:
        assert make_agent(module).ent_coef.item() == pytest.approx(module.Args().ent_coef)
        with pytest.raises(module.UsageError):
            module.check_args(module.Args(ent_coef=-0.01))


@pytest.mark.parametrize("module", PPO)
def test_R001_6_coefficient_follows_its_schedule(module):
    """From 0.01 to 0.0001: the ends are exact, nothing happens after the last step, halfway 0.00505 or 0.001."""
    halfway = {"linear": 0.00505, "exponential": 0.001}
    for schedule, expected in halfway.items():
        moves = {"ent_coef": 0.01, "ent_coef_end": 0.0001, "ent_coef_duration": 1000, "ent_coef_schedule": schedule}
        agent = make_agent(module, **moves)
        values = []
        for step in (0, 250, 500, 750, 1000, 2000):
            agent.anneal(step)
            values.append(agent.ent_coef.item())
        assert [values[i] for i in (0, 2, 4, 5)] == pytest.approx([0.01, expected, 0.0001, 0.0001])
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("module", PPO)
def test_E001_14_reward_scale_matters_to_sac_alone(module):
    """PPO's c meets advantages of deviation 1, whatever the rewards are; SAC's alpha must grow with the rewards."""
    losses = [ppo_step(make_agent(module), scale * torch.arange(8.0) ** 2)["total_loss"] for scale in (1.0, 100.0)]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)

    def sac_gradient(reward, alpha):
        """Of SAC's loss of a policy over two actions, the first of which is worth `reward` and the other nothing."""
        logits = T([0.3, -0.2], requires_grad=True)
        log_prob, q = logits.log_softmax(0), T([reward, 0.0])
        loss = sum(log_prob[i].exp() * sac_continuous.actor_loss(log_prob[i], q[i], q[i], T(alpha)) for i in (0, 1))
        return torch.autograd.grad(loss, [logits])[0]

    assert torch.allclose(sac_gradient(100.0, 20.0), 100 * sac_gradient(1.0, 0.2), rtol=1e-4)
    assert not torch.allclose(sac_gradient(100.0, 0.2), 100 * sac_gradient(1.0, 0.2), rtol=0.01)


def test_E002_4_advantages_decide_whether_entropy_falls():
    """No law: without advantages the entropy stays as it is with c = 0; it falls where likely actions prove better."""
    changes = []
    obs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    for likely_is_better in (0.0, 1.0, -1.0):
        agent = peaked(make_agent(ppo_discrete, ent_coef=0.0, norm_adv=False))
        before, logits = mean_entropy(agent), agent.network.policy(obs)
        ppo_step(agent, torch.full((8,), likely_is_better), actions=logits.argmax(-1))
        changes.append(mean_entropy(agent) - before)
    assert changes[0] == 0.0 and changes[1] < -1e-4 and changes[2] > 1e-4


def test_R000_7_large_enough_bonus_keeps_actions_alive():
    """Two arms, rewards 1 and 0: without a bonus P(second) falls on and on; with c = 0.5 it ends at 1 / (1 + e²).

    What is kept alive is softmax(r / c), for c = 0.1 0.00005. With normalised advantages c = 1.5 keeps nothing alive.
    """
    reward, action = T([1.0, 0.0]), T([0, 1])

    def second_arm(c, steps, normalised=False):
        logits = torch.zeros(2, requires_grad=True)
        for _ in range(steps):
            log_prob, entropy = ppo_discrete.categorical(logits.expand(2, 2), action)
            p = log_prob.detach().exp()
            advantage = (reward - p[0]) / (p[0] * p[1]).sqrt() if normalised else reward  # of mean 0 and deviation 1
            advantage = 2 * p * advantage  # each arm once, weighted by how often it is pulled
            surrogate = ppo_discrete.policy_loss(log_prob, log_prob.detach(), advantage, 0.2)
            loss = ppo_discrete.total_loss(surrogate, T(0.0), entropy.mean(), 0.5, T(c))
            logits = (logits - torch.autograd.grad(loss, [logits])[0]).detach().requires_grad_()
        return logits.softmax(0)[1].item()

    assert 0.0 < second_arm(0.0, 600) < 0.3 * second_arm(0.0, 150) < 0.002
    assert second_arm(0.5, 150) == pytest.approx(0.1192, abs=1e-4)
    assert T([1.0, 0.0]).div(0.1).softmax(0)[1].item() == pytest.approx(4.5e-5, rel=0.02)
    assert ppo_discrete.Args().norm_adv
    assert second_arm(1.5, 600, normalised=True) < 1e-4
    assert second_arm(1.52, 600, normalised=True) == pytest.approx(0.1029, abs=1e-4)  # 2 cosh(z / 2) = 1.52 z
