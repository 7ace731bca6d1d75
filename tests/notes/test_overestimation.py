"""The bias of a maximum or a minimum of noisy values, Double DQN and TD3's twins, and what an actor makes of errors."""

import itertools
import math

import pytest
import torch

import ddpg
import ddqn
import dqn
import sac_continuous
import td3
from notes.helpers import T, fill, make, outputs, sac_agent, sac_transitions, spy, transitions


def test_R003_7_maximum_of_noisy_values_overestimates():
    """Errors of mean 0 and deviation 1 have maxima of mean 0.564, 1.029, 1.539; values 0, 0.5, 1 with them, 1.449.

    By the maximum's distribution, the product of those of its parts, and by our target of drawn errors.
    """
    torch.manual_seed(0)
    x, zero = torch.linspace(-8, 9, 17_001, dtype=torch.float64), torch.zeros(200_000)
    normal = torch.distributions.Normal(0.0, 1.0)
    cases = ([0.0] * 2, 0.564), ([0.0] * 4, 1.029), ([0.0] * 10, 1.539), ([0.0, 0.5, 1.0], 1.449)
    for values, known in cases:
        below = torch.stack([normal.cdf(x - value) for value in values]).prod(0)
        mean = 9 - torch.trapezoid(below, x).item()
        assert mean == pytest.approx(known, abs=5e-4)
        noisy = T(values) + torch.randn(200_000, len(values))
        assert dqn.td_target(zero, zero, noisy, 1.0).mean().item() == pytest.approx(mean, abs=0.006)


def test_E003_9_maximum_may_take_a_negative_error():
    """The maximum takes a negative error where that value is largest all the same; of 4 equal ones, 1 of 16 times."""
    zero = torch.zeros(1)
    assert dqn.td_target(zero, zero, T([[0.0, 1.0]]) + T([[0.3, -0.1]]), 1.0).item() == pytest.approx(0.9)
    assert dqn.td_target(zero, zero, T([[-0.2, -0.1, -0.3, -0.4]]), 1.0).item() == pytest.approx(-0.1)
    torch.manual_seed(0)
    y = dqn.td_target(torch.zeros(200_000), torch.zeros(200_000), torch.randn(200_000, 4), 1.0)
    assert (y < 0).float().mean().item() == pytest.approx(1 / 16, abs=0.002) and y.mean() > 1


def test_E003_30_maximum_is_sometimes_too_low():
    """Two actions of value 0 with independent errors: a quarter of the maxima is below 0, their mean is 0.564."""
    torch.manual_seed(0)
    y = dqn.td_target(torch.zeros(200_000), torch.zeros(200_000), torch.randn(200_000, 2), 1.0)
    assert (y < 0).float().mean().item() == pytest.approx(1 / 4, abs=0.005)
    assert y.mean().item() == pytest.approx(0.564, abs=0.006)  # 1 / √π


def test_R003_8_online_chooses_and_target_evaluates(monkeypatch):
    """The online network chooses action 2, the target network says 1 of it, where DQN takes its 7; never above DQN."""
    for module, expected in ((dqn, 3.5), (ddqn, 0.5)):
        calls, agent = spy(monkeypatch, module, "q_loss"), make(module, gamma=0.5)
        outputs(agent.q_network.net[-1], [0.0, 0.0, 9.0])
        outputs(agent.q_network_target.net[-1], [5.0, 7.0, 1.0])
        agent.update(transitions(module, reward=torch.zeros(16)))
        assert calls[0][0][2].tolist() == pytest.approx([expected] * 16)
    torch.manual_seed(0)
    online, target = torch.randn(2, 1000, 6)
    zero = torch.zeros(1000)
    y = ddqn.td_target(zero, zero, online, target, 1.0)
    rows = zip(online.tolist(), target.tolist(), strict=True)
    assert y.tolist() == [judged[max(range(6), key=chosen.__getitem__)] for chosen, judged in rows]
    gap = dqn.td_target(zero, zero, target, 1.0) - y
    assert (gap >= 0).all() and 0.1 < (gap == 0).float().mean() < 0.25  # equal where both choose alike: 1 of 6


def test_E003_10_correlated_networks_still_overestimate(monkeypatch):
    """Right after a copy the target is DQN's; with errors that correlate by rho, rho times DQN's 1.029 is left."""
    calls = {module: spy(monkeypatch, module, "q_loss") for module in (dqn, ddqn)}
    for module in (dqn, ddqn):
        agent, batch = make(module), transitions(module)
        fill(agent.q_network_target, 0.0)
        agent.update_target()
        agent.update(batch)
    assert torch.equal(calls[dqn][0][0][2], calls[ddqn][0][0][2])
    torch.manual_seed(0)
    online, other = torch.randn(2, 200_000, 4)
    zero = torch.zeros(200_000)
    for rho, expected in ((0.0, 0.0), (0.5, 0.515), (0.9, 0.926), (1.0, 1.029)):
        target = rho * online + math.sqrt(1 - rho**2) * other
        assert ddqn.td_target(zero, zero, online, target, 1.0).mean().item() == pytest.approx(expected, abs=0.006)
    values = T([0.0, 0.5, 1.0])  # independent errors on unequal values: 0.3 too little
    y = ddqn.td_target(zero, zero, values + online[:, :3], values + other[:, :3], 1.0)
    assert y.mean().item() - 1 == pytest.approx(-0.301, abs=0.006)


def test_R003_14_mean_minimum_is_never_above_zero():
    """E[min] = -sqrt((1 - rho) / pi) for errors that correlate by rho: never above 0, also without independence."""
    torch.manual_seed(0)
    first, other = torch.randn(2, 400_000)
    zero = torch.zeros(400_000)
    for rho, known in ((-1.0, -0.798), (0.0, -0.564), (0.5, -0.399), (0.9, -0.178), (1.0, 0.0)):
        second = rho * first + math.sqrt(1 - rho**2) * other
        mean = td3.td_target(zero, zero, first, second, 1.0).mean().item()
        assert known == pytest.approx(-math.sqrt((1 - rho) / math.pi), abs=5e-4)
        assert mean == pytest.approx(known, abs=0.004)
    wider = first + 2 * other  # neither independent nor alike: E|first - wider| / 2 = sqrt(2 / pi)
    assert td3.td_target(zero, zero, first, wider, 1.0).mean().item() == pytest.approx(-0.798, abs=0.006)


def test_E003_38_minimum_underestimates_a_fixed_action():
    """Of two estimates right on average, one is too low half the time; ours of both, three times in four, by 1.128."""
    torch.manual_seed(0)
    q1, q2 = 5 + 2 * torch.randn(2, 400_000)
    assert q1.mean().item() == pytest.approx(5, abs=0.01)
    y = td3.td_target(torch.zeros(400_000), torch.zeros(400_000), q1, q2, 1.0)
    assert y.mean().item() == pytest.approx(5 - 1.128, abs=0.008)
    assert (y < 5).float().mean().item() == pytest.approx(0.75, abs=0.003)


def test_E003_39_critic_learns_values_of_the_policy():
    """A critic learns the policy's values: 0 and 1, not 9 and 10, those of the best policy."""
    q = torch.zeros(2)  # one state, reward = action, and a policy that always takes action 0
    for _ in range(300):
        q = td3.td_target(T([0.0, 1.0]), torch.zeros(2), q[[0, 0]], q[[0, 0]], 0.9)
    assert q.tolist() == [0.0, 1.0]


def test_R003_18_actor_ignores_the_second_critic():
    """By default the actor's loss does not see the second critic, even where that is NaN."""
    losses = []
    for value in (None, math.nan):
        agent = make(td3, policy_delay=1)
        fill(agent.critics[1], value) if value is not None else None
        losses.append(agent.update(transitions(td3))["actor_loss"].item())
    assert losses[0] == losses[1] and td3.Args().actor_objective == "q1"


def test_E003_37_minimum_is_another_actor_objective():
    """Q1 = -(a - 0.5)², Q2 = -(a + 0.5)²: at 0.25 Q1 pulls by +0.5, the minimum by -1.5. In ours it is an option."""
    slopes = []
    for smaller in (False, True):
        a = T([0.25], requires_grad=True)
        q1, q2 = -((a - 0.5) ** 2), -((a + 0.5) ** 2)
        (-td3.actor_loss(torch.minimum(q1, q2) if smaller else q1)).backward()
        slopes.append(a.grad.item())
    assert slopes == pytest.approx([0.5, -1.5])
    losses = {}
    for objective, index in itertools.product(("q1", "min"), (0, 1)):
        agent = make(td3, policy_delay=1, actor_objective=objective, critic_lr=1e-12)
        for critic, value in zip(agent.critics, ([3.0, 2.0], [2.0, 3.0])[index], strict=True):
            outputs(critic.net[-1], [value])
        losses[objective, index] = agent.update(transitions(td3))["actor_loss"].item()
    assert losses == pytest.approx({("q1", 0): -3, ("q1", 1): -2, ("min", 0): -2, ("min", 1): -2})


def test_R004_9_critic_loss_of_twins_by_hand(monkeypatch):
    """Values 1 and 2, y = 1 + 0.9 min(5, 3): 2.7² + 1.7² = 10.18; y is a constant, and twins have no upward bias."""
    seen, true = [], sac_continuous.critic_loss
    monkeypatch.setattr(sac_continuous, "critic_loss", lambda *args: seen.append(args[2]) or true(*args))
    agent = sac_agent(q=(1.0, 2.0), q_target=(5.0, 3.0), gamma=0.9, autotune=False, alpha=1e-9)
    assert agent.update(sac_transitions(reward=1.0))["critic_loss"].item() == pytest.approx(10.18, rel=1e-5)
    assert not seen[0].requires_grad
    torch.manual_seed(0)
    zero, (q1, q2) = torch.zeros(100_000), torch.randn(2, 100_000)  # twins whose values are 0 but for their errors
    target = sac_continuous.td_target(zero, zero, q1, q2, 1.0, zero, T(0.0))
    assert target.mean().item() == pytest.approx(-0.564, abs=0.01)  # -1 / √π


def test_R004_12_actor_seeks_errors_of_the_critic():
    """Q = -a² and errors 0.1 cos(10 a - φ), over all φ: 0 where an action is given, 0.095 where our actor goes.

    The action that it takes for better than 0 is worth -0.023; targets add the errors up to 9.4 for γ = 0.99.
    """
    phase = torch.arange(720, dtype=torch.float64) * math.pi / 360
    action, error = torch.zeros(720, dtype=torch.float64), lambda a: 0.1 * (10 * a - phase).cos()
    assert error(action).mean().item() == pytest.approx(0, abs=1e-9)
    for _ in range(2000):
        action.requires_grad_()
        (gradient,) = torch.autograd.grad(720 * ddpg.actor_loss(-(action**2) + error(action)), action)
        action = (action - 0.02 * gradient).detach()
    bias = error(action).mean().item()
    assert bias == pytest.approx(0.0953, abs=5e-5) and -(action**2).mean().item() == pytest.approx(-0.0226, abs=5e-5)
    total = T(0.0)
    for _ in range(3000):
        total = ddpg.td_target(T(0.0), T(0.0), total + bias, 0.99)
    assert total.item() == pytest.approx(9.43, abs=0.005)
