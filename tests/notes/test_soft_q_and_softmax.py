"""SAC's soft values and losses, and the softmax of Q / α that they aim at."""

import itertools
import math

import numpy as np
import pytest
import torch

import ddpg
import ppo_discrete
import sac_continuous
from notes.helpers import (
    T,
    adam,
    best_policy,
    discrete_actor_loss,
    normal_noise,
    sac_agent,
    sac_transitions,
    squashed_log_prob,
    two_peaks,
)


def test_R003_19_soft_q_omits_first_step_entropy():
    """Our target's fixed point is the discounted sum over all paths, in which a pair's own step has no entropy."""
    gamma, alpha = 0.9, T(0.3, dtype=torch.float64)
    policy = T([[0.2, 0.8], [0.6, 0.4]], dtype=torch.float64)
    reward = T([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    next_state = T([[0, 1], [1, 0]])
    q = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(300):
        args = [(q[next_state][..., a], policy[next_state][..., a]) for a in (0, 1)]
        q = sum(p * sac_continuous.td_target(reward, 0 * reward, v, v, gamma, p.log(), alpha) for v, p in args)
    entropy = torch.distributions.Categorical(policy).entropy()
    for state, action in itertools.product((0, 1), (0, 1)):
        total, visits = reward[state, action].item(), torch.eye(2, dtype=torch.float64)[next_state[state, action]]
        for t in range(1, 300):
            pairs = visits[:, None] * policy
            total += gamma**t * ((pairs * reward).sum() + alpha * visits @ entropy).item()
            visits = torch.zeros(2, dtype=torch.float64).index_add_(0, next_state.flatten(), pairs.flatten())
        assert q[state, action].item() == pytest.approx(total, abs=1e-6)
    assert q[0, 0].item() == pytest.approx(9.378, abs=5e-4)
    assert (alpha * entropy > 0.14).all(), "what Q would have too much with its own step's entropy"


def test_R003_25_sac_target_on_numbers():
    """0.5 + 0.8 (min(5, 2) - 0.2 * 1.5) = 1.86, and 0.5 + 0.8 (min(-1, 3) + 0.2 * 1) = -0.14."""
    args = T([5.0, -1.0]), T([2.0, 3.0]), 0.8, T([1.5, -1.0]), T(0.2)
    assert sac_continuous.td_target(torch.full((2,), 0.5), torch.zeros(2), *args).tolist() == pytest.approx(
        [1.86, -0.14]
    )


def test_E003_57_next_action_is_drawn_from_policy():
    """With Q = r = 0 and alpha = gamma = 1 the target is -log π(a'): its mean square is one over actions drawn from π.

    With σ = exp(-1.5) = 0.2231 and a' = tanh μ in place of a draw, it is 0.338 instead of 0.426.
    """
    values = {"q": (0.0, 0.0), "q_target": (0.0, 0.0), "gamma": 1.0, "alpha": 1.0, "autotune": False}
    loss = sac_agent(mean=0.0, log_std=-1.5, **values).update(sac_transitions(4096))["critic_loss"].item()
    u, normal = torch.linspace(-3, 3, 6001).double(), torch.distributions.Normal(0, math.exp(-1.5))
    log_prob = normal.log_prob(u) + 2 * u.cosh().log()  # 1 - tanh² = 1 / cosh²
    expected = torch.trapezoid(normal.log_prob(u).exp() * log_prob**2, u).item()
    assert loss / 2 == pytest.approx(expected, rel=0.05)
    assert math.exp(-1.5) == pytest.approx(0.2231, abs=5e-5) and expected == pytest.approx(0.426, abs=5e-4)
    assert normal.log_prob(T(0.0)).item() ** 2 == pytest.approx(0.338, abs=5e-4)


def test_R003_28_actor_loss_uses_smaller_online_critic():
    """0.5 * 1 - min(2, 1) = -0.5 and 0.5 * (-3) - min(0, 5) = -1.5; in the agent, min(2, 1) of the online critics."""
    assert sac_continuous.actor_loss(T([1.0, -3.0]), T([2.0, 0.0]), T([1.0, 5.0]), T(0.5)).item() == pytest.approx(-1.0)
    agent = sac_agent(q=(2.0, 1.0), q_target=(7.0, 7.0), critic_lr=1e-9, autotune=False, alpha=0.3)
    metrics = agent.update(sac_transitions())
    assert metrics["actor_loss"].item() == pytest.approx(-0.3 * metrics["entropy"].item() - 1, abs=1e-5)


def test_E003_54_critic_step_is_not_the_temperature():
    """The critics' step has a size of its own: another temperature, and they move by the same."""
    batch, moved = (
        sac_transitions(reward=1.0, terminated=1.0),
        [],
    )  # ended, so that the temperature is not in the target
    for alpha in (0.2, 0.4):
        agent = sac_agent(alpha=alpha, critic_lr=1e-3)
        before = agent.critics[0].net[-1].bias.item()
        agent.update(batch)
        moved.append(agent.critics[0].net[-1].bias.item() - before)
    assert moved[0] == moved[1] and abs(moved[0]) == pytest.approx(1e-3, rel=0.01)


def test_E003_55_adam_ignores_the_factor_one_half():
    """Without the factor 1/2 the slope is -3.0 instead of -1.5, and our Adam makes the same step of both."""
    q = T([0.5], requires_grad=True)
    sac_continuous.critic_loss(q, T([2.0]), T([2.0])).backward()
    assert q.grad.item() == pytest.approx(-3.0)
    ends = []
    for factor in (1.0, 0.5):
        value = torch.nn.Parameter(T([0.5]))
        optimizer = adam(sac_continuous, value, 0.1)
        for _ in range(5):
            optimizer.minimize(factor * sac_continuous.critic_loss(value, T([2.0]), T([2.0])))
        ends.append(value.item())
    assert ends[0] == pytest.approx(ends[1], abs=1e-5) and ends[0] > 0.9


def test_E003_62_mixed_shapes_broadcast_silently():
    """(B,) less (B, 1) is (B, B): critics that are exactly right get a loss of 50; ours 0, as all shapes are (B,)."""
    value = T([0.0, 10.0])
    assert ((value[:, None] - value) ** 2).mean().item() == 50
    assert (value[:, None] - value).mean() == (value - value).mean()  # the actor's loss would not notice
    agent, batch = sac_agent(action_dim=2), sac_transitions(4, action_dim=2)
    q1, q2 = (critic(batch.obs, batch.action) for critic in agent.critics)
    _, log_prob = agent.sample(batch.obs)
    assert q1.shape == q2.shape == log_prob.shape == (4,)
    assert sac_continuous.critic_loss(q1, q1, q1.detach()).item() == 0
    buffer = sac_continuous.ReplayBuffer(3, 2, 8, torch.device("cpu"))
    buffer.add(np.zeros(3), np.zeros(2), 1.0, np.ones(3), True)
    sampled = buffer.sample(4)
    assert sampled.reward.shape == sampled.terminated.shape == (4,)
    assert sac_continuous.td_target(sampled.reward, sampled.terminated, q1, q2, 0.9, log_prob, T(0.2)).shape == (4,)


def test_R003_20_boltzmann_policy_is_the_optimum():
    """Our actor's loss is least, -alpha log Z, at exp(Q / alpha) / Z: no random policy gets below."""
    q, alpha = T([1.0, 0.2, -0.5, 0.9], dtype=torch.float64), 0.4
    log_z = math.log(sum(math.exp(x / alpha) for x in q.tolist()))
    boltzmann = [math.exp(x / alpha - log_z) for x in q.tolist()]
    assert best_policy(q, alpha).tolist() == pytest.approx(boltzmann, abs=1e-4)
    assert boltzmann == pytest.approx([0.516, 0.070, 0.012, 0.402], abs=5e-4)
    assert discrete_actor_loss(boltzmann, q, alpha).item() == pytest.approx(-alpha * log_z)
    torch.manual_seed(0)
    for policy in (2 * torch.randn(50, 4).double()).softmax(-1):
        assert discrete_actor_loss(policy, q, alpha).item() > -alpha * log_z


def test_R003_52_one_multiplier_for_all_actions():
    """At the optimum the slope of our loss, less its sign, is the same for every action: the multiplier, 0.8646."""
    q, alpha = T([1.0, 0.2, -0.5, 0.9], dtype=torch.float64), 0.4
    policy = best_policy(q, alpha).requires_grad_()
    (gradient,) = torch.autograd.grad(discrete_actor_loss(policy, q, alpha), policy)
    assert (-gradient).tolist() == pytest.approx([0.8646] * 4, abs=1e-4)
    log_z = math.log(sum(math.exp(x / alpha) for x in q.tolist()))
    assert math.exp(-(alpha + 0.8646) / alpha) == pytest.approx(math.exp(-log_z), rel=1e-3)  # 1 / Z, as the note has it


def test_R003_50_partition_function_is_an_integral():
    """Q = -a²: Z is the integral, 1.196 at α = 0.5 and 0.560 at 0.1, where the density at 0 is 1.784; sums grow."""
    grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    for alpha, z, peak in ((0.5, 1.1963, 0.8359), (0.1, 0.5605, 1.7841)):
        log_pi = -(grid**2) / alpha - math.log(z)
        assert torch.trapezoid(log_pi.exp(), grid).item() == pytest.approx(1, abs=1e-4)
        assert log_pi.exp().max().item() == pytest.approx(peak, abs=1e-4)
        q, temperature = -(grid**2), T(alpha, dtype=torch.float64)
        ends = [sac_continuous.actor_loss(log_pi[i], q[i], q[i], temperature).item() for i in (0, 5_000, 10_000)]
        assert ends == pytest.approx([-alpha * math.log(z)] * 3)  # the same at every action: no policy does better
    sums = [(-(torch.linspace(-1, 1, n) ** 2) / 0.5).exp().sum().item() for n in (21, 201)]
    assert sums == pytest.approx([12.1, 119.8], abs=0.05)


def test_R003_51_log_z_easy_in_one_dimension():
    """21 points are enough for Z in one dimension; log-softmax has it for discrete actions; 3 dimensions ask 9,261."""
    coarse, fine = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (21, 20_001))
    by_points = [torch.trapezoid((-(x**2) / 0.5).exp(), x).item() for x in (coarse, fine)]
    assert by_points == pytest.approx([1.1954, 1.1963], abs=5e-5)
    agent, obs = sac_agent(), torch.zeros(1, 3)
    with torch.no_grad():
        values = [agent.critics[0](obs.expand(len(x), 3), x.float()[:, None]).double() for x in (coarse, fine)]
    log_z = [torch.trapezoid((q / 0.2).exp(), x).log().item() for q, x in zip(values, (coarse, fine), strict=True)]
    assert log_z[0] == pytest.approx(log_z[1], abs=1e-3)  # of a critic as it begins
    q, alpha = [1.0, 0.2, -0.5, 0.9], 0.4
    log_prob, _ = ppo_discrete.categorical(T([q]) / alpha, T([2]))
    assert -0.5 / alpha - log_prob.item() == pytest.approx(math.log(sum(math.exp(x / alpha) for x in q)), abs=1e-5)
    assert len(list(itertools.product(range(21), repeat=3))) == 9261


def test_R004_15_policy_iteration_reaches_soft_optimum():
    """Evaluated to the end and improved, Q goes 9.378, 11.132, 11.152, the soft optimum; with single sweeps too.

    For γ = 0.99 an evaluation takes 459 sweeps to come within a hundredth.
    """
    gamma, alpha = 0.9, T(0.3, dtype=torch.float64)
    reward, next_state = T([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64), T([[0, 1], [1, 0]])

    def sweep(q, policy):
        pairs = [(q[next_state][..., a], policy[next_state][..., a]) for a in (0, 1)]
        return sum(p * sac_continuous.td_target(reward, 0 * reward, v, v, gamma, p.log(), alpha) for v, p in pairs)

    optimum = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(500):  # soft value iteration, in which there is no policy
        optimum = reward + gamma * 0.3 * (optimum / 0.3).logsumexp(-1)[next_state]
    for num_sweeps, num_rounds in ((300, 4), (1, 300)):
        policy, q = T([[0.2, 0.8], [0.6, 0.4]], dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
        rounds = []
        for _ in range(num_rounds):
            for _ in range(num_sweeps):
                q = sweep(q, policy)
            policy = torch.stack([best_policy(row, 0.3) for row in q]) if num_sweeps > 1 else (q / 0.3).softmax(-1)
            rounds.append(q)
        assert torch.allclose(q, optimum, atol=1e-4)
        if num_sweeps == 300:
            assert [each[0, 0].item() for each in rounds[:3]] == pytest.approx([9.378, 11.132, 11.152], abs=5e-4)
            assert all((b > a - 1e-6).all() for a, b in itertools.pairwise(rounds))
    value, count = T(0.0, dtype=torch.float64), 0
    while 100 - value > 1:  # 1 in each step for ever is worth 100
        value, count = ddpg.td_target(T(1.0, dtype=torch.float64), T(0.0), value, 0.99), count + 1
    assert count == 459


def test_E003_64_reward_scale_decides_what_is_explored():
    """Values 1 and 0: the optimum of our loss keeps 0.0067 for the second action, of 10 and 0 it keeps 1.9e-22."""
    for scale, kept in ((1.0, 0.0067), (10.0, 1.9287e-22)):
        policy = best_policy([scale, 0.0], 0.2)
        assert policy[1].item() == pytest.approx(kept, rel=5e-3)
    better = discrete_actor_loss([0.5, 0.5], [10.0, 0.0], 0.2) - discrete_actor_loss(policy, [10.0, 0.0], 0.2)
    assert better > 4.8  # to try the other as often costs 5 and brings no more than 0.2 ln 2


def test_R003_47_softmax_keeps_both_gaussian_takes_one():
    """Of two equal actions softmax keeps both: 0, not -1, once the first is worth -1. A Gaussian takes one of two."""
    policy = best_policy([1.0, 1.0, 0.0], 0.2)
    assert policy.tolist() == pytest.approx([0.498, 0.498, 0.003], abs=5e-4)
    after = T([-1.0, 1.0, 0.0], dtype=torch.float64)
    assert (policy @ after).item() == pytest.approx(0, abs=1e-6) and after[0] == -1
    noise, losses = normal_noise(401), {}
    for mean, std in ((-3.0, 0.5), (0.0, 0.5), (0.0, 3.0), (3.0, 0.5)):  # best at one hump, between, over both
        u = mean + std * noise
        losses[mean, std] = sac_continuous.actor_loss(
            squashed_log_prob(u, mean, std), two_peaks(u), two_peaks(u), T(1.0)
        ).item()
    assert min(losses, key=losses.get) in ((-3.0, 0.5), (3.0, 0.5))


def test_R003_48_temperature_steadies_the_best_policy():
    """Q from (0.01, 0) to (-0.01, 0): a greedy policy flips; ours moves 0.512 to 0.488, but flips at α = 0.001."""
    for alpha, expected in ((0.2, (0.5125, 0.4875)), (0.001, (0.99995, 0.00005))):
        moved = [best_policy([q, 0.0], alpha)[0].item() for q in (0.01, -0.01)]
        assert moved == pytest.approx(expected, abs=5e-6 if alpha < 0.01 else 5e-5)
    assert [T([q, 0.0]).argmax().item() for q in (0.01, -0.01)] == [0, 1]


def test_E004_4_softmax_is_of_q_not_policy():
    """The softmax of an old policy (0.9, 0.1) is (0.69, 0.31) whatever Q says; ours is the softmax of Q / α."""
    q, alpha = [0.0, 1.0], 0.5
    of_policy = T([0.9, 0.1]).softmax(0).tolist()
    assert of_policy == pytest.approx([0.690, 0.310], abs=5e-4)
    assert best_policy(q, alpha).tolist() == pytest.approx([0.1192, 0.8808], abs=1e-4)  # 1 / (1 + e²)
    assert discrete_actor_loss(of_policy, q, alpha) > discrete_actor_loss([0.1192, 0.8808], q, alpha) + 0.4


def test_E004_5_softmax_needs_q_over_alpha():
    """Q = (1, 0), α = 0.5: a softmax of Q itself has 0.731, our loss 0.881 = softmax(Q / α); they agree for α = 1."""
    assert T([1.0, 0.0]).softmax(0)[0].item() == pytest.approx(0.731, abs=5e-4)
    assert best_policy([1.0, 0.0], 0.5)[0].item() == pytest.approx(0.881, abs=5e-4)
    assert best_policy([1.0, 0.0], 1.0)[0].item() == pytest.approx(0.731, abs=5e-4)


def test_R004_7_temperature_decides_softness():
    """Our optimum sums to 1, gives each action a share, and is winner-take-all only as the temperature goes to 0."""
    q = [1.0, 0.9, 0.2]
    warm, cold, hot = (best_policy(q, alpha) for alpha in (0.5, 0.01, 1e3))
    for policy in (warm, cold, hot):
        assert policy.sum().item() == pytest.approx(1)
    assert warm.tolist() == pytest.approx([0.495, 0.405, 0.100], abs=5e-4)
    assert cold[0] > 0.999 and hot.tolist() == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_E004_10_single_action_alone_has_probability_one():
    """Of several actions none has probability 1; a single one has."""
    actions = torch.arange(3)
    several, _ = ppo_discrete.categorical(T([1.0, 2.0, 3.0]).expand(3, 3), actions)
    assert several.exp().tolist() == pytest.approx([0.0900, 0.2447, 0.6652], abs=1e-4)
    single, _ = ppo_discrete.categorical(T([[5.0]]), T([0]))
    assert single.exp().item() == 1


def test_R004_14_softmax_makes_actions_compete():
    """Raising one input of three lowers the other two probabilities, and by the same factor: their ratio stays e."""
    shares = []
    for third in (3.0, 4.0):
        log_prob, _ = ppo_discrete.categorical(T([1.0, 2.0, third]).expand(3, 3), torch.arange(3))
        shares.append(log_prob.exp())
        assert shares[-1].sum().item() == pytest.approx(1) and shares[-1][1] / shares[-1][0] == pytest.approx(math.e)
    assert shares[0].tolist() == pytest.approx([0.0900, 0.2447, 0.6652], abs=5e-5)
    assert shares[1].tolist() == pytest.approx([0.0420, 0.1142, 0.8438], abs=5e-5)
