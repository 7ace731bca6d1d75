"""Ends of tasks and time limits in the targets, and target networks: how they start, what they do, how they move."""

import itertools
import math

import numpy as np
import pytest
import torch

import ddpg
import ddqn
import dqn
import sac_continuous
import td3
from notes.conftest import Clock
from notes.helpers import OFF_POLICY, T, fill, make, outputs, sac_agent, sac_transitions, spy, transitions


def test_E003_2_true_ends_are_masked_in_dqn(logs):
    """A task of one step with reward 1 is worth 100 without the mask, 1 with ours, for which true ends are stored."""
    unmasked, q = 0.0, T([0.0])
    for _ in range(2000):
        unmasked, q = 1 + 0.99 * unmasked, dqn.td_target(T([1.0]), T([1.0]), q[:, None], 0.99)
    assert unmasked == pytest.approx(100) and q.item() == 1
    for module in (dqn, ddqn):
        agent, batch = make(module), transitions(module, terminated=torch.ones(16))
        outputs(agent.q_network_target.net[-1], [100.0, 100.0, 100.0])
        reward = agent.q_network(batch.obs).detach().gather(1, batch.action.long())[:, 0]
        assert agent.update(batch._replace(reward=reward))["q_loss"].item() == pytest.approx(0, abs=1e-9)
        buffer = module.ReplayBuffer(4, 1, 10, torch.device("cpu"))
        buffer.add(np.zeros(4), np.array(2), 1.0, np.zeros(4), True)
        assert buffer.sample(3).terminated.tolist() == [1.0] * 3
        assert sum(terminated for *_, terminated in logs[module].added) == 12, "of 18 episodes, 6 are cut by a limit"


def test_E003_21_true_ends_are_masked_in_ddpg(logs):
    """r = 2 at an end, where the critic says 9: without the mask y is 10.1, in ours 2, also in an update."""
    unmasked = [r + 0.9 * next_q for r, next_q in ((1, 3), (2, 9))]
    assert unmasked == pytest.approx([3.7, 10.1])
    assert ddpg.td_target(T([1.0, 2.0]), T([0.0, 1.0]), T([3.0, 9.0]), 0.9).tolist() == pytest.approx([3.7, 2.0])
    agent, batch = make(ddpg), transitions(ddpg, terminated=torch.ones(16))
    outputs(agent.critic_target.net[-1], [100.0])
    reward = agent.critic(batch.obs, batch.action).detach()
    assert agent.update(batch._replace(reward=reward))["critic_loss"].item() == pytest.approx(0, abs=1e-9)
    assert sum(terminated for *_, terminated in logs[ddpg].added) == 12, "of 18 episodes, 6 are cut by a limit"


def test_E003_48_true_ends_are_masked_in_sac():
    """At the end of a task the note's target has 1 + 0.9 (8 - 0.5) = 7.75; ours is the reward 1."""
    args = T([9.0]), T([8.0]), 0.9, T([1.0]), T(0.5)
    assert 1 + 0.9 * (min(9, 8) - 0.5 * 1) == pytest.approx(7.75)
    assert sac_continuous.td_target(T([1.0]), T([1.0]), *args).item() == 1
    assert sac_continuous.td_target(T([1.0]), T([0.0]), *args).item() == pytest.approx(7.75)
    agent = sac_agent(q=(0.0, 0.0), q_target=(100.0, 100.0), alpha=0.5)
    assert agent.update(sac_transitions(reward=1.0, terminated=1.0))["critic_loss"].item() == pytest.approx(2.0)


def test_E003_2b_time_limits_are_not_masked(logs):
    """Running, terminated, cut by a time limit: 10.9, 1, 10.9. With one flag for both the last is 1."""
    q = T([[10.0, 3.0]] * 3)
    one_flag = [1 + 0.99 * (1 - done) * 10 for done in (0, 1, 1)]
    assert one_flag == pytest.approx([10.9, 1.0, 1.0])
    assert dqn.td_target(torch.ones(3), T([0.0, 1.0, 0.0]), q, 0.99).tolist() == pytest.approx([10.9, 1.0, 10.9])
    for module in OFF_POLICY:
        for obs, _, _, next_obs, terminated in logs[module].added:
            kind, is_last = int(next_obs[0]) % 3, next_obs[1] == Clock.lengths[int(next_obs[0]) % 3]
            assert terminated == (is_last and kind != 1), "episodes of kind 1 end by a time limit alone"
            assert (next_obs - obs).tolist() == [0, 1], "the last observation, not the first one after the reset"


def test_R003_5_terminal_y_is_the_reward():
    """The branch of the listing, row by row, gives our targets; y = r to the bit, however large the next value is."""
    generator = torch.Generator().manual_seed(0)
    reward, q = torch.randn(200, generator=generator).double(), torch.randn(200, 3, generator=generator).double()
    terminated = (torch.rand(200, generator=generator) < 0.3).double()
    rows = zip(reward.tolist(), terminated.tolist(), q.tolist(), strict=True)
    expected = [r if is_end else r + 0.97 * max(values) for r, is_end, values in rows]
    assert dqn.td_target(reward, terminated, q, 0.97).tolist() == pytest.approx(expected, abs=1e-12)
    assert ddqn.td_target(reward, terminated, q, q, 0.97).tolist() == pytest.approx(expected, abs=1e-12)
    for y in (dqn.td_target(reward, terminated, q * 1e30, 0.97), ddqn.td_target(reward, terminated, q, q * 1e30, 0.97)):
        assert torch.equal(y[terminated == 1], reward[terminated == 1])


def test_R003_41_target_networks_start_as_copies():
    """At the start every target network is a copy of its network, and moves on its own."""
    for module in OFF_POLICY:
        agent = make(module)
        names = [name for name, _ in agent.named_children() if name.endswith("_target")]
        assert len(names) == (1 if module in (dqn, ddqn) else 2)
        for name in names:
            online, target = getattr(agent, name.removesuffix("_target")), getattr(agent, name)
            assert all(torch.equal(a, b) for a, b in zip(online.parameters(), target.parameters(), strict=True))
            fill(online, 3.0)
            assert not any(3.0 in parameter for parameter in target.parameters())


def test_E003_49_targets_copy_critics_not_reverse():
    """The note's arrow would set the critics, here 1, to the targets' 0; ours sets the targets, which are copies."""
    agent = sac_agent()
    for critic, target in zip(agent.critics.parameters(), agent.critics_target.parameters(), strict=True):
        assert torch.equal(critic, target) and critic.data_ptr() != target.data_ptr()
    agent = sac_agent(q=(1.0, 1.0), q_target=(0.0, 0.0), tau=1.0, critic_lr=1e-9)
    agent.update(sac_transitions(8))
    biases = [twin.net[-1].bias.item() for twin in (*agent.critics, *agent.critics_target)]
    assert biases == pytest.approx([1, 1, 1, 1], abs=1e-6)


def test_R003_43_target_network_keeps_y_still(monkeypatch):
    """The online maximum moves with each update; our y of a batch stays to the bit until the target is told to move."""
    calls, agent, batch = spy(monkeypatch, dqn, "td_target"), make(dqn, learning_rate=1e-2), transitions(dqn)
    online = agent.q_network(batch.next_obs).amax(-1).detach()
    for _ in range(4):
        agent.update(batch)
    assert (agent.q_network(batch.next_obs).amax(-1) - online).abs().mean() > 0.01
    assert all(torch.equal(y, calls[0][1]) for _, y in calls)
    agent.update_target()
    agent.update(batch)
    assert (calls[-1][1] - calls[0][1]).abs().mean() > 0.01


def test_R003_44_y_uses_target_networks_only(monkeypatch):
    """y comes from the target networks alone: with an online one at NaN it is the same, with a target one it is NaN."""
    batch, results = transitions(ddpg), {}
    for name in ("", "actor", "critic", "actor_target", "critic_target"):
        with monkeypatch.context() as patch:
            calls, agent = spy(patch, ddpg, "td_target"), make(ddpg)
            fill(getattr(agent, name), math.nan) if name else None
            agent.update(batch)
            results[name] = calls[0][1]
    assert torch.equal(results["actor"], results[""]) and torch.equal(results["critic"], results[""])
    assert results["actor_target"].isnan().all() and results["critic_target"].isnan().all()


def test_E003_31_y_uses_target_critics_only(monkeypatch):
    """With the lost prime, y would follow the online critics; ours does not see them, and rises with both targets."""
    targets = {}
    for name in ("", "critics", "critics_target"):
        with monkeypatch.context() as patch:
            calls, agent = spy(patch, td3, "critic_loss"), make(td3)
            for critic in getattr(agent, name) if name else []:
                critic.net[-1].bias.data += 1
            torch.manual_seed(2)
            agent.update(transitions(td3))
            targets[name] = calls[0][0][2]
    assert torch.equal(targets["critics"], targets[""])
    assert torch.allclose(targets["critics_target"], targets[""] + 0.99, atol=1e-5)


def test_E003_56_next_value_comes_from_target_critics():
    """The value of s' is that of the target critics: 1 + 0.9 min(5, 3) = 3.7, which both critics miss by 3.7."""
    agent = sac_agent(q=(0.0, 0.0), q_target=(5.0, 3.0), gamma=0.9, autotune=False, alpha=1e-9)
    assert agent.update(sac_transitions(reward=1.0))["critic_loss"].item() == pytest.approx(2 * 3.7**2, rel=1e-5)


def test_E003_20_lost_prime_makes_a_hard_copy():
    """Without primes the target is the network after one step, whatever tau is; ours is at 0.01, after 100 at 0.634."""
    theta, noted = 1.0, 0.0
    for tau in (0.01, 0.001):
        noted = tau * theta + (1 - tau) * theta
        assert noted == 1
    for module in OFF_POLICY:
        source, target = [T([1.0])], [T([0.0])]
        module.polyak_update(source, target, 0.0)
        assert target[0].item() == 0
        module.polyak_update(source, target, 0.01)
        assert target[0].item() == pytest.approx(0.01)
        for _ in range(99):
            module.polyak_update(source, target, 0.01)
        assert target[0].item() == pytest.approx(0.6340, abs=1e-4) and source[0].item() == 1
        module.polyak_update(source, target, 1.0)
        assert target[0].item() == 1


def test_R003_9_target_copies_hard_or_moves_softly():
    """From 0 towards 1: the hard copy gets to 1 at once, two soft moves with tau = 0.1 to 0.19; updates do nothing."""
    for module, (tau, expected) in itertools.product((dqn, ddqn), ((1.0, 1.0), (0.1, 0.19))):
        agent = make(module, tau=tau)
        fill(agent.q_network_target, 0.0)
        agent.update(transitions(module))
        assert not any(parameter.any() for parameter in agent.q_network_target.parameters())
        fill(agent.q_network, 1.0)
        agent.update_target()
        agent.update_target()
        for parameter in agent.q_network_target.parameters():
            assert torch.allclose(parameter, T(expected))


def test_R003_12_soft_updates_approach_by_tau():
    """Three updates with tau = 0.1 take targets from 0 to 0.271 of networks that stay at 1; TD3's tau is the note's."""
    for module, arguments in ((ddpg, {}), (td3, {"policy_delay": 1})):
        agent = make(module, tau=0.1, actor_lr=1e-12, critic_lr=1e-12, **arguments)
        targets = [getattr(agent, name) for name, _ in agent.named_children() if name.endswith("_target")]
        fill(agent, 1.0)
        for target in targets:
            fill(target, 0.0)
        for _ in range(3):
            agent.update(transitions(module))
        for parameter in itertools.chain(*(target.parameters() for target in targets)):
            assert torch.allclose(parameter, T(0.271))
    assert td3.Args().tau == ddpg.Args().tau == 0.005


def test_R003_32_both_targets_follow_softly():
    """After 20 updates of 0.01 the targets are at 1 - 0.99²⁰ = 0.182 of the way; without the bar on the right, at 1."""
    agent = sac_agent(q=(1.0, 1.0), q_target=(0.0, 0.0), tau=0.01, critic_lr=1e-9)
    for _ in range(20):
        agent.update(sac_transitions(8))
    for target in agent.critics_target:
        assert target.net[-1].bias.item() == pytest.approx(0.1821, abs=1e-4)


def test_R004_11_only_critics_have_targets():
    """Targets of the critics only: 67,844 parameters of the actor, 4 times 67,585 of a critic, and log α."""
    agent = sac_agent(action_dim=2)
    actor = (3 * 256 + 256) + (256 * 256 + 256) + (256 * 4 + 4)
    critic = (5 * 256 + 256) + (256 * 256 + 256) + (256 + 1)
    assert sum(parameter.numel() for parameter in agent.parameters()) == actor + 4 * critic + 1
