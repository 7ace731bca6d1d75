"""Bellman's equations, the targets, gradients and samples of Q-learning, and its ε-greedy actions."""

import itertools
import math

import numpy as np
import pytest
import torch

import ddpg
import ddqn
import dqn
import td3
from notes.helpers import T, adam, make, spy, transitions


def test_R003_1_bellman_optimum_is_our_fixed_point():
    """The discounted sum, the Bellman equation of a policy and, over all policies, the optimal one: our fixed point."""
    reward = T([[1.0, 0.0], [0.5, 2.0]]).double()
    next_state = T([[[0.7, 0.3], [0.1, 0.9]], [[1.0, 0.0], [0.4, 0.6]]]).double()  # [state, action, next state]
    q_of_all = []
    for policy in itertools.product((0, 1), repeat=2):
        chosen = [0, 1], list(policy)
        value = torch.linalg.solve(torch.eye(2).double() - 0.9 * next_state[chosen], reward[chosen])
        summed = sum(0.9**t * next_state[chosen].matrix_power(t) @ reward[chosen] for t in range(300))
        assert torch.allclose(value, summed, atol=1e-8)
        q_of_all.append(reward + 0.9 * next_state @ value)
        assert torch.allclose(q_of_all[-1][chosen], value), "V(s) = Q(s, pi(s))"
    q = torch.zeros(2, 2).double()
    for _ in range(300):
        targets = [dqn.td_target(reward, torch.zeros(2, 2), q[s].expand(2, 2, 2), 0.9) for s in (0, 1)]
        q = next_state[..., 0] * targets[0] + next_state[..., 1] * targets[1]
    assert torch.allclose(q, torch.stack(q_of_all).amax(0), atol=1e-8)


def test_R003_2_tabular_rule_learns_from_random_actions():
    """Two states in a row, reward 1 at the end: the table's rule finds 0.81, 0.9; 0.81, 1, though it acts at random."""
    q, state, generator = torch.zeros(2, 2), 0, np.random.default_rng(0)
    for _ in range(600):
        action = int(generator.integers(2))
        next_state, terminated = action, float(state == action == 1)  # action 1 goes on, action 0 back to the start
        target = dqn.td_target(T([terminated]), T([terminated]), q[next_state][None], 0.9)
        q[state, action] += 0.5 * (target[0] - q[state, action])
        state = 0 if terminated else next_state
    assert torch.allclose(q, T([[0.81, 0.9], [0.81, 1.0]]), atol=1e-3)


def test_E003_7_target_must_be_held_fixed(monkeypatch):
    """Q(s) = theta, Q(s') = 2 theta: through y the slope at 1 is +2.88, and with y held fixed, as in ours, -3.6."""
    theta = T(1.0, requires_grad=True)
    ((1 + 0.9 * 2 * theta - theta) ** 2).backward()
    assert theta.grad.item() == pytest.approx(2.88)
    theta.grad = None
    dqn.q_loss(theta.reshape(1, 1), T([0]), dqn.td_target(T([1.0]), T([0.0]), T([[2.0]]), 0.9)).backward()
    assert theta.grad.item() == pytest.approx(-3.6)
    for module in (dqn, ddqn):
        calls, agent, other, batch = spy(monkeypatch, module, "q_loss"), make(module), make(module), transitions(module)
        agent.update(batch)
        y, losses = calls[0][0][2], []
        bias, action = other.q_network.net[-1].bias.data, batch.action.long()
        for i, h in itertools.product(range(3), (0.5, -0.5)):  # the loss is a parabola in the last bias
            bias[i] += h
            losses.append((y - other.q_network(batch.obs).gather(1, action)[:, 0]).square().mean().item())
            bias[i] -= h
        slopes = [a - b for a, b in zip(losses[::2], losses[1::2], strict=True)]
        last_bias = len(agent.optimizer.owned()) - 1
        moment = agent.optimizer.get_buffer(f"mean{last_bias}")  # Adam's first: 0.1 of the gradient
        assert (moment / 0.1).tolist() == pytest.approx(slopes, abs=1e-4)


def test_R003_3_y_is_constant_and_loss_falls(monkeypatch):
    """y has no gradient, only Q(s, a) has; the target network stays where it is, and the loss falls."""
    for module in (dqn, ddqn):
        calls, batch = spy(monkeypatch, module, "q_loss"), transitions(module)
        agent = make(module, learning_rate=1e-2)
        before = [parameter.clone() for parameter in agent.q_network_target.parameters()]
        losses = [agent.update(batch)["q_loss"].item() for _ in range(30)]
        (q, _, y), _ = calls[0]
        assert q.requires_grad and not y.requires_grad
        assert all(torch.equal(a, b) for a, b in zip(before, agent.q_network_target.parameters(), strict=True))
        assert losses[-1] < 0.1 * losses[0]


def test_E003_1_gradient_without_minus_raises_the_loss():
    """Q = 0.5, y = 2: down the note's gradient, +3, the loss goes from 2.25 to 3.24; down ours, -3, to 1.44."""
    noted = 0.5 - 0.1 * 2 * (2 - 0.5)
    assert (2 - noted) ** 2 == pytest.approx(3.24)
    for module in (dqn, ddqn):
        q = T([[0.5, 7.0]], requires_grad=True)
        module.q_loss(q, T([0]), T([2.0])).backward()
        assert q.grad.tolist() == [[-3.0, 0.0]]
        assert module.q_loss(q - 0.1 * q.grad, T([0]), T([2.0])).item() == pytest.approx(1.44)


def test_E003_24_critic_gradient_has_factor_of_two():
    """Q = 0.5, y = 2: the note's gradient is -1.5; the loss itself, and ours, fall with slope -3."""
    slope = ((2 - 0.51) ** 2 - (2 - 0.49) ** 2) / 0.02
    assert -(2 - 0.5) == -1.5 and slope == pytest.approx(-3)
    q = T([0.5], requires_grad=True)
    ddpg.critic_loss(q, T([2.0])).backward()
    assert q.grad.item() == pytest.approx(-3)


def test_E003_32_summed_losses_grow_with_the_batch():
    """The same row eight times: the gradient of a sum is eight times as large, ours the same; Adam hides it."""
    slopes, steps = {}, {}
    for copies, reduce in itertools.product((1, 8), ("sum", "ours")):
        q, mu = (torch.nn.Parameter(T(0.5)) for _ in range(2))
        rows, y, actions = q.expand(copies), torch.full((copies,), 2.0), mu.expand(copies)
        if reduce == "sum":
            losses = 2 * (rows - y).square().sum(), -(3 * actions).sum()
        else:
            losses = td3.critic_loss(rows, rows, y), td3.actor_loss(3 * actions)
        pairs = zip(losses, (q, mu), strict=True)
        slopes[reduce, copies] = [torch.autograd.grad(loss, x, retain_graph=True)[0].item() for loss, x in pairs]
        adam(td3, q, 0.1).minimize(losses[0])
        steps[reduce, copies] = q.item()
    assert slopes["sum", 1] == slopes["ours", 1] == slopes["ours", 8] == pytest.approx([-6.0, -3.0])
    assert slopes["sum", 8] == pytest.approx([-48.0, -24.0])
    assert list(steps.values()) == pytest.approx([0.6] * 4)


def test_R003_4_uniform_samples_and_mean_loss():
    """Each of 100 stored transitions equally often, neighbours without correlation; the loss is the mean, 5, not 10."""
    torch.manual_seed(0)
    buffer = dqn.ReplayBuffer(1, 1, 200, torch.device("cpu"))
    for i in range(100):
        buffer.add(np.array([i]), np.array(0), 0.0, np.array([i + 1]), False)
    index = buffer.sample(50_000).obs[:, 0]
    counts = index.long().bincount(minlength=100)
    assert 60 < ((counts - 500) ** 2 / 500).sum() < 148, "0.1 and 99.9 percent of chi-square with 99 degrees of freedom"
    assert np.corrcoef(index[:-1], index[1:])[0, 1] == pytest.approx(0, abs=0.015)  # of the stream itself: 1
    assert dqn.q_loss(T([[1.0], [3.0]]), T([0, 0]), T([0.0, 0.0])).item() == pytest.approx(5)


def test_R003_42_random_action_may_be_greedy():
    """Of three actions the greedy one has probability 1 - epsilon + epsilon / 3, as a random one may be greedy too."""
    for module in (dqn, ddqn):
        agent, obs = make(module), np.ones(4, np.float32)
        greedy = int(agent.q_network(torch.ones(4)).argmax())
        for epsilon, expected in ((0.0, 1.0), (0.3, 0.8), (1.0, 1 / 3)):
            agent.epsilon = epsilon
            share = np.mean([int(agent.act(obs, explore=True)) == greedy for _ in range(3000)])
            assert share == pytest.approx(expected, abs=0.03)


def test_E003_8_epsilon_starts_at_one():
    """A listing that never sets epsilon leaves it to chance; ours starts with 1 in both scripts: all actions alike."""
    for module in (dqn, ddqn):
        agent = make(module)
        counts = np.bincount([int(agent.act(np.ones(4, np.float32), explore=True)) for _ in range(3000)], minlength=3)
        assert agent.epsilon == 1 and counts / 3000 == pytest.approx([1 / 3] * 3, abs=0.03)


def test_R003_6_epsilon_falls_to_exactly_its_floor():
    """The rule, step by step, is our closed form: it falls, and has its floor exactly from step 919 on."""
    epsilon, values = 1.0, []
    for step in range(1, 1200):
        epsilon = max(0.01, epsilon * 0.995)
        values.append(dqn.exponential_schedule(1.0, 0.01, 0.995, step))
        assert values[-1] == pytest.approx(epsilon) == ddqn.exponential_schedule(1.0, 0.01, 0.995, step)
    assert all(a > b for a, b in itertools.pairwise(values[:919])) and values[917] > 0.01
    assert set(values[918:]) == {0.01}


def test_E003_6_epsilon_decays_per_environment_step(logs):
    """A factor of 0.995 gets to 0.01 in 919 steps, or in 919 episodes; ours counts steps, those before learning too."""
    per_step = math.ceil(math.log(0.01) / math.log(0.995))
    assert per_step == 919 and 20 * per_step == 18_380  # in steps, with episodes of 20
    for module in (dqn, ddqn):
        epsilons = [epsilon for _, epsilon in logs[module].acts]
        assert epsilons == pytest.approx([max(0.05, 0.9**step) for step in range(1, 91)])
        agent, epsilons = make(module, epsilon_schedule="exponential"), []
        for step in (149_785, 149_786):
            agent.anneal(step)
            epsilons.append(agent.epsilon)
        assert epsilons[0] > agent.args.epsilon_end == epsilons[1]
