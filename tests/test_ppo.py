"""PPO for discrete and for continuous actions: equations, the sign of the entropy, wiring, scaling, and the loop."""

import copy
import math
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal

import ppo_continuous
import ppo_discrete

OBS_SPACE = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
SPACES = {"ppo_discrete": gym.spaces.Discrete(3), "ppo_continuous": gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)}
PAIR = [ppo_discrete, ppo_continuous]
SCHEDULES, ACTION_TYPES = ("linear", "exponential"), {ppo_discrete: torch.int64, ppo_continuous: torch.float32}
T = torch.tensor


@pytest.fixture(params=PAIR, ids=["ppo_discrete", "ppo_continuous"])
def module(request):
    return request.param


def make_agent(module, obs_space=OBS_SPACE, **arguments):
    torch.manual_seed(0)
    arguments = {"num_envs": 2, "num_steps": 16, "num_minibatches": 4, "cuda": False} | arguments
    action_space = copy.deepcopy(SPACES[module.__name__])
    action_space.seed(0)
    return module.Agent(obs_space, action_space, module.Args(**arguments))


def make_batch(agent, num_steps=16, num_envs=2, reward=None):
    """A rollout of random observations in which the agent's own actions were taken."""
    generator = np.random.default_rng(1)
    obs, next_obs = generator.normal(size=(2, num_steps, num_envs, 4)).astype(np.float32)
    action = torch.as_tensor(np.stack([agent.act(each, explore=True) for each in obs]))
    reward = generator.normal(size=(num_steps, num_envs)) if reward is None else np.full((num_steps, num_envs), reward)
    terminated = (generator.random((num_steps, num_envs)) < 0.1).astype(np.float32)
    done = np.maximum(terminated, generator.random((num_steps, num_envs)) < 0.1)
    arrays = (torch.as_tensor(x, dtype=torch.float32) for x in (obs, reward, next_obs, terminated, done))
    obs, reward, next_obs, terminated, done = arrays
    return sys.modules[type(agent).__module__].Batch(obs, action, reward, next_obs, terminated, done)


def recorded(agent):
    """The agent's update of a minibatch, to be given to its update, and the lists of what it gets and gives."""
    minibatches, results = [], []

    def update_minibatch(minibatch):
        minibatches.append(minibatch)
        results.append(agent.update_minibatch(minibatch))
        return results[-1]

    return update_minibatch, minibatches, results


def entropy(agent, obs):
    """Of the policy at obs, by torch.distributions."""
    if isinstance(agent, ppo_discrete.Agent):
        return Categorical(logits=agent.network.policy(obs)).entropy().mean().item()
    mean, log_std = agent.network.policy(agent.normalizer(obs))
    return Normal(mean, log_std.expand_as(mean).exp()).entropy().sum(-1).mean().item()


# ---- Equations ----
def test_gae_on_a_table(module):
    """One environment; gamma = lambda = 0.5, V(s) = 1, V(s') = 2, r = 1: delta = 1, but 0 where the task ends.

    In time: running, terminated, running, truncated, both at once, running at the border of the rollout.
    """
    column = lambda *values: T([[value] for value in values])  # noqa: E731
    terminated, done = column(0.0, 1.0, 0.0, 0.0, 1.0, 0.0), column(0.0, 1.0, 0.0, 1.0, 1.0, 0.0)
    ones = torch.ones(6, 1)
    advantage = module.gae(ones, ones, 2 * ones, terminated, done, 0.5, 0.5)
    assert advantage.flatten().tolist() == pytest.approx([1.0, 0.0, 1.25, 1.0, 0.0, 1.0])


def test_gae_keeps_environments_apart(module):
    reward = T([[1.0, 0.0], [0.0, 4.0]])
    zero = torch.zeros(2, 2)
    assert module.gae(reward, zero, zero, zero, zero, 0.5, 1.0).tolist() == [[1.0, 2.0], [0.0, 4.0]]


def test_gae_with_lambda_1_is_the_discounted_return_and_with_0_the_one_step_error(module):
    """By brute force: from each step forward until the end of the episode or of the rollout, with V of what follows."""
    generator = torch.Generator().manual_seed(0)
    reward, value, next_value = torch.randn(3, 12, 2, generator=generator, dtype=torch.float64)
    terminated = (torch.rand(12, 2, generator=generator) < 0.2).double()
    done = torch.maximum(terminated, (torch.rand(12, 2, generator=generator) < 0.2).double())
    follows = torch.cat([value[1:], next_value[-1:]])
    next_value = torch.where(done.bool(), next_value, follows)
    long, short = (module.gae(reward, value, next_value, terminated, done, 0.9, x) for x in (1.0, 0.0))
    for n in range(2):
        for t in range(12):
            total, weight = -value[t, n].item(), 1.0
            for k in range(t, 12):
                total, weight = total + weight * reward[k, n].item(), weight * 0.9
                if done[k, n] or k == 11:
                    total += 0.0 if terminated[k, n] else weight * next_value[k, n].item()
                    break
            assert long[t, n].item() == pytest.approx(total)
            alone = reward[t, n] - value[t, n] + (0 if terminated[t, n] else 0.9 * next_value[t, n])
            assert short[t, n].item() == pytest.approx(alone.item())


def test_policy_loss_on_a_table(module):
    """Ratios 2, 2, 1/2, 1/2 with advantages 1, -1, 1, -1: min gives 1.2, -2, 0.5, -0.8."""
    log_ratio = T([2.0, 2.0, 0.5, 0.5]).log()
    loss = module.policy_loss(log_ratio - 1, torch.full((4,), -1.0), T([1.0, -1.0, 1.0, -1.0]), 0.2)
    assert loss.item() == pytest.approx(-(1.2 - 2 + 0.5 - 0.8) / 4)


def test_policy_loss_stops_pulling_beyond_the_clip(module):
    """Its gradient vanishes where the ratio went far enough in the direction of the advantage, and only there."""
    log_prob = T([2.0, 2.0, 0.5, 0.5, 1.0]).log().requires_grad_()
    module.policy_loss(log_prob, torch.zeros(5), T([1.0, -1.0, 1.0, -1.0, 3.0]), 0.2).backward()
    assert (log_prob.grad * 5).tolist() == pytest.approx([0.0, 2.0, -0.5, 0.0, -3.0])


def test_value_loss_is_half_of_the_mean_square(module):
    assert module.value_loss(T([1.0, 2.0]), T([3.0, 2.0])).item() == pytest.approx(1.0)


def test_total_loss_subtracts_the_entropy(module):
    """3 + 0.5 * 4 - 0.1 * 2 = 4.8; note 002 has 5.2."""
    assert module.total_loss(T(3.0), T(4.0), T(2.0), 0.5, T(0.1)).item() == pytest.approx(4.8)


def test_categorical_is_that_of_torch():
    logits, action = torch.randn(64, 5) * 3, torch.randint(5, (64,))
    log_prob, entropy = ppo_discrete.categorical(logits, action)
    expected = Categorical(logits=logits)
    assert torch.allclose(log_prob, expected.log_prob(action), atol=1e-5)
    assert torch.allclose(entropy, expected.entropy(), atol=1e-5) and entropy.max() <= math.log(5) + 1e-5


def test_an_action_that_is_hardly_ever_taken_keeps_its_log_probability_and_its_gradient():
    """Logits 0, 40 and 90: beside e⁹⁰ the others add nothing, so log π of the first two is 0 - 90 and 40 - 90."""
    logits = T([[0.0, 40.0, 90.0]] * 2, requires_grad=True)
    log_prob, _ = ppo_discrete.categorical(logits, T([0, 1]))
    log_prob.sum().backward()
    assert log_prob.tolist() == [-90, -50]
    assert torch.allclose(logits.grad, T([[1.0, 0, -1], [0, 1, -1]]))


def test_entropy_of_a_policy_that_is_certain_is_0_with_a_gradient():
    """Logits 0, 40 and 200: in 32 bits the first two probabilities are 0, and 0 log 0 would be no number."""
    logits = T([[0.0, 40.0, 200.0]], requires_grad=True)
    _, entropy = ppo_discrete.categorical(logits, T([2]))
    entropy.sum().backward()
    assert entropy.tolist() == [0] and logits.grad.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("shape", [(3,), (64, 3)])
def test_gaussian_is_that_of_torch_summed_over_dimensions(shape):
    mean, action, log_std = torch.randn(64, 3), torch.randn(64, 3), torch.randn(shape)
    log_prob, entropy = ppo_continuous.gaussian(mean, log_std, action)
    expected = Normal(mean, log_std.expand(64, 3).exp())
    assert torch.allclose(log_prob, expected.log_prob(action).sum(-1), rtol=1e-4, atol=1e-4)
    assert torch.allclose(entropy.expand(64), expected.entropy().sum(-1), atol=1e-4)


@pytest.mark.parametrize(("value", "direction"), [(0.2, 1), (0.5, 0), (0.9, -1)])
def test_learned_coefficient_rises_exactly_when_the_entropy_is_below_its_target(module, value, direction):
    log_ent_coef, entropy = T(0.0, requires_grad=True), T(value, requires_grad=True)
    module.ent_coef_loss(log_ent_coef, entropy, T(0.5)).backward()
    assert -log_ent_coef.grad.sign().item() == direction and entropy.grad is None


def test_linear_schedule(module):
    assert [module.linear_schedule(2.0, 1.0, 4, step) for step in (0, 1, 4, 9)] == [2.0, 1.75, 1.0, 1.0]
    assert [module.linear_schedule(1.0, 2.0, 4, step) for step in (0, 1, 4, 9)] == [1.0, 1.25, 2.0, 2.0]
    assert module.linear_schedule(2.0, 1.0, 0, 0) == 2.0
    assert module.linear_schedule(T(2.0), T(1.0), 4, 1).item() == 1.75


# ---- The sign of the entropy ----
@pytest.mark.parametrize("std", ["parameter", "head"])
def test_a_step_without_advantages_raises_the_entropy(module, std):
    """With rewards and values of 0 there is nothing but the bonus. With note 002's sign the entropy falls."""
    arguments = {"ent_coef": 0.1, "norm_adv": False, "update_epochs": 1, "anneal_lr": False}
    if module is ppo_continuous:
        arguments |= {"std": std, "norm_reward": False}
    agent = make_agent(module, **arguments)
    with torch.no_grad():
        for parameter in agent.network.critic[-1].parameters():
            parameter.zero_()
        agent.network.actor[-1].weight.mul_(100)  # not uniform, so that it can rise
    batch = make_batch(agent, reward=0.0)
    obs = batch.obs.flatten(0, 1)
    before = entropy(agent, obs)
    metrics = agent.update(batch)
    assert metrics["policy_loss"].item() == pytest.approx(0, abs=1e-6) and metrics["entropy"].item() > 0
    if module is ppo_continuous:  # the update takes the observations into the statistics: undone
        agent.normalizer = ppo_continuous.Normalizer((4,))
    assert entropy(agent, obs) > before + 1e-4


def test_logged_entropy_is_that_of_the_policy(module):
    agent = make_agent(module, update_epochs=1, num_minibatches=1)
    batch = make_batch(agent)
    expected = entropy(agent, batch.obs.flatten(0, 1))
    assert agent.update(batch)["entropy"].item() == pytest.approx(expected, abs=1e-5)


def test_loss_is_made_of_its_parts(module):
    agent = make_agent(module, ent_coef=0.3, vf_coef=0.7)
    values = {name: value.item() for name, value in agent.update(make_batch(agent)).items()}
    expected = values["policy_loss"] + 0.7 * values["value_loss"] - 0.3 * values["entropy"]
    assert values["total_loss"] == pytest.approx(expected, abs=1e-5)


def test_entropy_reaches_the_trunk_through_a_head_and_not_from_a_parameter():
    """Note 000 holds for the parameter alone."""
    for std, reaches in (("parameter", False), ("head", True)):
        agent = make_agent(ppo_continuous, std=std)
        obs, action = torch.randn(8, 4), torch.randn(8, 3)
        _, entropy, _ = agent.evaluate_actions(obs, action)
        trunk = agent.network.actor[0].weight
        (gradient,) = torch.autograd.grad(entropy.mean(), [trunk], allow_unused=True)
        assert (gradient is not None and gradient.abs().sum() > 0) == reaches


# ---- The coefficient ----
def test_advantages_and_targets_do_not_depend_on_the_coefficient(module):
    seen = {}
    for ent_coef in (0.0, 0.5):
        agent = make_agent(module, ent_coef=ent_coef, update_epochs=1)
        batch = make_batch(agent)
        update_minibatch, seen[ent_coef], _ = recorded(agent)
        torch.manual_seed(1)
        agent.update(batch, update_minibatch)
    for one, other in zip(*seen.values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("schedule", "middle"), [("constant", 0.01), ("linear", 0.00505), ("exponential", 0.001)])
def test_coefficient_moves_by_its_schedule(module, schedule, middle):
    moves = {} if schedule == "constant" else {"ent_coef_end": 0.0001, "ent_coef_duration": 1000}
    agent = make_agent(module, ent_coef=0.01, ent_coef_schedule=schedule, **moves)
    values = []
    for step in (0, 500, 1000, 5000):
        agent.anneal(step)
        values.append(agent.ent_coef.item())
    last = 0.01 if schedule == "constant" else 0.0001
    assert values == pytest.approx([0.01, middle, last, last])
    assert agent.update(make_batch(agent))["ent_coef"].item() == pytest.approx(last)


def test_step_size_falls_along_a_line_to_zero(module):
    agent = make_agent(module, learning_rate=1e-3, total_timesteps=1000)
    values = []
    for step in (0, 250, 1000):
        agent.anneal(step)
        values.append(agent.optimizer.lr.item())
    assert values == pytest.approx([1e-3, 7.5e-4, 0.0])
    before = [parameter.detach().clone() for parameter in agent.network.parameters()]
    agent.update(make_batch(agent))
    assert all(torch.equal(a, b) for a, b in zip(before, agent.network.parameters(), strict=True))


def test_learned_coefficient_moves_towards_the_target(module):
    """From an entropy that is above its target the coefficient falls, from one below it rises; and the target moves."""
    high = {"ppo_discrete": 0.999, "ppo_continuous": 9.0}[module.__name__]
    low = {"ppo_discrete": 0.01, "ppo_continuous": -9.0}[module.__name__]
    for target, direction in ((high, 1), (low, -1)):
        agent = make_agent(module, ent_autotune=True, ent_coef=0.1, target_entropy=target)
        if module is ppo_discrete:
            with torch.no_grad():
                agent.network.actor[-1].weight.mul_(100)
        metrics = agent.update(make_batch(agent))
        assert direction * (agent.log_ent_coef.exp().item() - 0.1) > 1e-4
        assert metrics["ent_coef_loss"].isfinite()
    agent = make_agent(
        module, ent_autotune=True, ent_coef=0.1, target_entropy=high, target_entropy_end=low, target_entropy_duration=10
    )
    targets = []
    for step in (0, 5, 20):
        agent.anneal(step)
        targets.append(agent.target_entropy.item())
    unit = math.log(3) if module is ppo_discrete else 1
    assert targets == pytest.approx([high * unit, (high + low) / 2 * unit, low * unit], abs=1e-6)


def test_coefficient_is_learned_from_the_entropy_and_the_target_of_the_moment(module):
    """With log c = 1 its loss is how far the entropy is above the target, here halfway from its first to its last."""
    start, end, unit = {"ppo_discrete": (0.9, 0.1, math.log(3)), "ppo_continuous": (5.0, -4.0, 1.0)}[module.__name__]
    moves = {"target_entropy": start, "target_entropy_end": end, "target_entropy_duration": 10}
    agent = make_agent(module, ent_autotune=True, ent_coef=math.e, update_epochs=1, num_minibatches=1, **moves)
    agent.anneal(5)
    losses = agent.update(make_batch(agent))
    assert losses["target_entropy"].item() == pytest.approx(0.5 * unit)
    above = losses["entropy"].item() - 0.5 * unit
    assert losses["ent_coef_loss"].item() == pytest.approx(above, abs=1e-5) and abs(above) > 0.1


def test_set_target_entropy_begins_a_stage_that_lasts(module):
    """It survives anneal and a state_dict; the coefficient then moves the other way."""
    high, low, unit = {"ppo_discrete": (0.999, 0.01, math.log(3)), "ppo_continuous": (9.0, -9.0, 1.0)}[module.__name__]
    moves = {"target_entropy": high, "target_entropy_end": 0.5, "target_entropy_duration": 100}
    arguments = {"ent_autotune": True, "ent_coef": 0.1, "ent_coef_lr": 1e-2}
    agent = make_agent(module, **arguments, **moves)
    agent.anneal(50)
    assert agent.target_entropy.item() == pytest.approx((high + 0.5) / 2 * unit)
    agent.set_target_entropy(low)
    other = make_agent(module, **arguments)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))

    def moved(agent, target):
        """How far log c went in some updates, with entropies between the two targets."""
        before = agent.log_ent_coef.item()
        for step in (0, 60, 1000, 0):
            agent.anneal(step)
            torch.nn.init.normal_(agent.network.actor[-1].weight)
            metrics = agent.update(make_batch(agent))
            assert metrics["target_entropy"].item() == pytest.approx(target * unit)
        return agent.log_ent_coef.item() - before

    for each in (agent, other):
        assert moved(each, low) < -0.01
        each.set_target_entropy(high)
        assert moved(each, high) > 0.01


def test_default_targets():
    """Half of log n, and minus the number of dimensions: never the notes' -log n, which no entropy is below."""
    assert make_agent(ppo_discrete, ent_autotune=True).target_entropy.item() == pytest.approx(0.5 * math.log(3))
    assert make_agent(ppo_continuous, ent_autotune=True, ent_coef=0.1).target_entropy.item() == -3.0


def test_target_of_zero_nats_is_not_the_default():
    """At the start, and at the end."""
    arguments = {"ent_autotune": True, "ent_coef": 0.1, "target_entropy_duration": 10}
    for start, end in ((0.0, 2.0), (2.0, 0.0)):
        agent = make_agent(ppo_continuous, target_entropy=start, target_entropy_end=end, **arguments)
        targets = []
        for step in (0, 10):
            agent.anneal(step)
            targets.append(agent.target_entropy.item())
        assert targets == [start, end]


def test_target_entropy_without_an_end_stays_where_it_is(module):
    unit = math.log(3) if module is ppo_discrete else 1
    agent = make_agent(module, ent_autotune=True, ent_coef=0.1, target_entropy=0.8)
    for step in (0, 1, 10_000):
        agent.anneal(step)
        assert agent.target_entropy.item() == pytest.approx(0.8 * unit)


# ---- Wiring of an update ----
def test_each_pass_takes_each_sample_once(module):
    agent = make_agent(module, update_epochs=3)
    batch = make_batch(agent)
    update_minibatch, seen, _ = recorded(agent)
    agent.update(batch, update_minibatch)
    assert len(seen) == 12 and all(len(part) == 8 for minibatch in seen for part in minibatch)
    passes = [torch.cat([minibatch.old_log_prob for minibatch in seen[i : i + 4]]) for i in (0, 4, 8)]
    for values in passes:
        assert torch.equal(values.sort().values, passes[0].sort().values) and len(values.unique()) > 16
    assert not torch.equal(passes[0], passes[1])
    for minibatch in seen:  # the parts of a sample stay together
        place = (batch.obs.flatten(0, 1) == minibatch.obs[:, None]).all(-1).nonzero()[:, 1]
        assert len(place) == 8 and torch.equal(batch.action.flatten(0, 1)[place], minibatch.action)


def test_old_log_probabilities_are_those_of_the_policy_that_acted(module):
    """In the first minibatch the ratio is 1: no KL, nothing clipped; afterwards it is not."""
    agent = make_agent(module, learning_rate=1e-2)
    update_minibatch, _, rows = recorded(agent)
    agent.update(make_batch(agent), update_minibatch)
    assert rows[0]["approx_kl"].item() == pytest.approx(0, abs=1e-6) and rows[0]["clip_fraction"] == 0
    assert rows[-1]["approx_kl"] > 1e-5 and min(row["approx_kl"] for row in rows) > -1e-6


def test_value_of_the_true_successor_counts_at_a_time_limit(module):
    """V(s) = 0, V(s') = 10, no reward: the target is 9.9 where the task goes on, at a time limit too, else 0."""
    scaling = {} if module is ppo_discrete else {"norm_obs": False}
    agent = make_agent(module, num_envs=1, update_epochs=1, num_minibatches=1, **scaling)
    with torch.no_grad():
        linears = agent.network.critic[::2]
        for layer in linears:
            layer.weight.zero_(), layer.bias.zero_()
        linears[0].weight[0, 0] = 100.0  # V is large exactly where obs[0] is
        linears[1].weight[0, 0] = 100.0
        linears[2].weight[0, 0] = 10.0
    obs, next_obs = torch.zeros(3, 1, 4), torch.ones(3, 1, 4)
    done = T([[0.0], [1.0], [1.0]])
    terminated = T([[0.0], [0.0], [1.0]])
    action = torch.as_tensor(np.stack([agent.act(each.numpy(), explore=True) for each in obs]))
    update_minibatch, seen, _ = recorded(agent)
    agent.args.gae_lambda = 0.0
    agent.update(module.Batch(obs, action, torch.zeros(3, 1), next_obs, terminated, done), update_minibatch)
    assert sorted(seen[0].target.tolist()) == pytest.approx([0.0, 9.9, 9.9])


def test_rewards_count_for_all_steps_before_them_in_their_episode(module):
    """Of 1 each, V = 0 everywhere, a time limit after the second of three steps: returns of 2, 1 and 1."""
    agent = make_agent(module, num_envs=1, num_steps=3, num_minibatches=1, update_epochs=1, gamma=1.0, gae_lambda=1.0)
    agent.args.norm_reward = False
    agent.network.critic[-1].weight.data.zero_()
    batch = make_batch(agent, num_steps=3, num_envs=1, reward=1.0)
    batch = batch._replace(terminated=torch.zeros(3, 1), done=T([[0.0], [1.0], [0.0]]))
    update_minibatch, seen, _ = recorded(agent)
    agent.update(batch, update_minibatch)
    place = (batch.obs.flatten(0, 1)[:, None] == seen[0].obs).all(-1).nonzero()[:, 1]
    assert seen[0].target[place].tolist() == [2, 1, 1]


def test_without_a_future_the_target_is_the_reward(module):
    """With gamma = 0: A = r - V(s), so that A + V(s) is r, whatever V is; each of its own sample."""
    agent = make_agent(module, gamma=0.0, update_epochs=1, **({} if module is ppo_discrete else {"norm_reward": False}))
    batch = make_batch(agent)
    obs, action, reward = (x.flatten(0, 1) for x in (batch.obs, batch.action, batch.reward))
    log_prob, _, value = (x.detach() for x in agent.evaluate_actions(obs, action))
    update_minibatch, seen, _ = recorded(agent)
    agent.update(batch, update_minibatch)
    for part in seen:
        place = (obs == part.obs[:, None]).all(-1).nonzero()[:, 1]
        assert torch.allclose(part.target, reward[place], atol=1e-5)
        assert torch.allclose(part.advantage, (reward - value)[place], atol=1e-5)
        assert torch.allclose(part.old_log_prob, log_prob[place], atol=1e-5)


def test_update_returns_the_means_over_all_minibatches(module):
    """KLs of 0 to 7 in two passes of four: 3.5."""
    agent, calls = make_agent(module, update_epochs=2), iter(range(8))
    losses = agent.update(make_batch(agent), lambda minibatch: {"approx_kl": T(float(next(calls)))})
    assert losses["approx_kl"].item() == 3.5


def test_each_optimizer_has_its_own_step_size(module):
    """The first step of Adam moves what has a clear gradient by the step size."""
    sizes = {"learning_rate": 1e-3, "ent_coef_lr": 1e-2, "ent_autotune": True, "ent_coef": 0.1}
    agent = make_agent(module, update_epochs=1, num_minibatches=1, **sizes)
    before = {name: value.detach().clone() for name, value in agent.named_parameters()}
    agent.update(make_batch(agent))
    moved = {name: (value - before[name]).abs().max().item() for name, value in agent.named_parameters()}
    assert moved.pop("log_ent_coef") == pytest.approx(1e-2, rel=0.01)
    assert max(moved.values()) == pytest.approx(1e-3, rel=0.05) and min(moved.values()) > 1e-4


class Owner(torch.nn.Module):
    """What an optimizer needs of an agent: a device, and parameters under a name."""

    def __init__(self, *values):
        super().__init__()
        self.part, self.device = torch.nn.ParameterList([torch.nn.Parameter(T(x)) for x in values]), torch.device("cpu")


def test_gradients_are_cut_to_the_norm(module):
    """What Adam sees is in its mean: a tenth of the gradient after the first step. The norm is that of all together."""
    for scale, max_grad_norm, seen in (
        (1.0, 0.5, [0.03, 0.04]),  # cut from 5 to 0.5
        (0.1, 1.0, [0.03, 0.04]),  # short ones stay
        (1.0, math.inf, [0.3, 0.4]),
        (0.0, 0.5, [0.0, 0.0]),
    ):
        owner = Owner([3.0], [4.0])
        optimizer = module.Adam(owner, "part", 0.1)
        optimizer.minimize(scale * (3 * owner.part[0] + 4 * owner.part[1]).sum(), max_grad_norm)
        assert [optimizer.mean0.item(), optimizer.mean1.item()] == pytest.approx(seen)


@pytest.mark.parametrize("max_grad_norm", [math.inf, 0.5, 40.0])  # never, always, and sometimes cut
def test_adam_is_torch_s_behind_its_cut_of_the_gradients(module, max_grad_norm):
    """Beside torch.optim.Adam and clip_grad_norm_, which divides by a norm that is by 1e-6 larger."""
    ours, theirs = (Owner([1.0, -2.0, 3.0], [[0.5], [-0.5]]) for _ in range(2))
    optimizer, reference = (
        module.Adam(ours, "part", 0.01, eps=1e-5),
        torch.optim.Adam(theirs.parameters(), 0.01, eps=1e-5),
    )
    was_cut = set()
    for step in range(20):
        optimizer.minimize(sum((x - step).square().sum() for x in ours.part), max_grad_norm)
        reference.zero_grad()
        sum((x - step).square().sum() for x in theirs.part).backward()
        was_cut.add(torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm).item() > max_grad_norm)
        reference.step()
    for a, b in zip(ours.part, theirs.part, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert was_cut == {math.inf: {False}, 0.5: {True}, 40.0: {False, True}}[max_grad_norm]


def test_update_cuts_the_gradient_and_has_the_paper_s_authors_epsilon(module):
    """After one update of one minibatch Adam's mean is a tenth of a gradient whose norm is max_grad_norm."""
    agent = make_agent(module, max_grad_norm=1e-3, update_epochs=1, num_minibatches=1)
    agent.update(make_batch(agent))
    means = [value for name, value in agent.optimizer.named_buffers() if name.startswith("mean")]
    assert torch.linalg.vector_norm(torch.cat([x.flatten() for x in means])).item() == pytest.approx(1e-4, rel=1e-3)
    assert agent.optimizer.eps == 1e-5


def test_minibatch_of_one_sample_gives_no_nan(module):
    agent = make_agent(module, num_steps=2, num_minibatches=4)
    assert all(value.isfinite() for value in agent.update(make_batch(agent, num_steps=2)).values())
    assert all(parameter.isfinite().all() for parameter in agent.network.parameters())


def test_advantages_that_are_all_equal_give_no_nan(module):
    """Zero rewards and a value of 0 everywhere: normalised they have no deviation to divide by."""
    agent = make_agent(module)
    with torch.no_grad():
        agent.network.critic[-1].weight.zero_()
    assert all(value.isfinite() for value in agent.update(make_batch(agent, reward=0.0)).values())
    assert all(parameter.isfinite().all() for parameter in agent.network.parameters())


def test_update_of_a_minibatch_keeps_every_tensor_on_the_device(module, monkeypatch):
    """On the device "meta": a tensor that is left on the CPU raises. So do the schedules, before it."""
    moves = {"ent_coef": 0.1, "ent_coef_end": 0.01, "ent_coef_duration": 10}
    for changes in ({"ent_autotune": True, "ent_coef": 0.1}, *(moves | {"ent_coef_schedule": x} for x in SCHEDULES)):
        with monkeypatch.context() as patch:
            patch.setattr(module, "pick_device", lambda args: torch.device("meta"))
            agent = make_agent(module, **changes)
        agent.anneal(5)
        agent.set_target_entropy(0.5)
        numbers = torch.zeros(3, 8, device="meta")
        action = torch.zeros((8,) if module is ppo_discrete else (8, 3), device="meta", dtype=ACTION_TYPES[module])
        losses = agent.update_minibatch(module.Minibatch(torch.zeros(8, 4, device="meta"), action, *numbers))
        assert {value.device.type for value in losses.values()} == {"meta"}
        assert {value.device.type for value in agent.state_dict().values()} == {"meta"}


def test_large_kl_ends_the_passes(module):
    counts = {}
    for target_kl in (None, 1e-9, 1e9):
        agent = make_agent(module, target_kl=target_kl, learning_rate=1e-2, update_epochs=5)
        update_minibatch, seen, _ = recorded(agent)
        agent.update(make_batch(agent), update_minibatch)
        counts[target_kl] = len(seen)
    assert counts == {None: 20, 1e-9: 4, 1e9: 20}


@pytest.mark.parametrize(("kls", "num_passes"), [([0.5, 0.5, 0.5, 0.0], 1), ([0.0, 0.0, 0.0, 0.5], 2)])
def test_target_kl_is_compared_with_the_mean_over_a_pass(module, kls, num_passes):
    """Means of 0.375 and 0.125, with a bound of 0.2; a pass is of four minibatches, whatever the number of passes."""
    agent, calls = make_agent(module, target_kl=0.2, update_epochs=2), []

    def update_minibatch(minibatch):
        calls.append(minibatch)
        return agent.update_minibatch(minibatch) | {"approx_kl": T(kls[(len(calls) - 1) % 4])}

    agent.update(make_batch(agent), update_minibatch)
    assert len(calls) == num_passes * 4


def test_target_kl_is_compared_with_the_last_pass_alone(module):
    """Of 0, 0, 0.3, 0 and 0, with a bound of 0.2: it stops after the third, until when the mean is 0.1."""
    agent, calls = make_agent(module, target_kl=0.2, update_epochs=5), []

    def update_minibatch(minibatch):
        calls.append(minibatch)
        pass_of_call = (len(calls) - 1) // 4
        return agent.update_minibatch(minibatch) | {"approx_kl": T([0.0, 0.0, 0.3, 0.0, 0.0][pass_of_call])}

    agent.update(make_batch(agent), update_minibatch)
    assert len(calls) == 3 * 4


def test_rewards_are_scaled_by_returns_with_the_agent_s_discount_up_to_any_end():
    """Rewards of 1, γ = 0.5, a time limit after the second: returns of 1, 1.5, 1, 1.5, whose deviation is 0.25."""
    agent = make_agent(ppo_continuous, gamma=0.5, num_envs=1, num_steps=4, num_minibatches=1)
    batch = make_batch(agent, num_steps=4, num_envs=1, reward=1.0)
    none = torch.zeros(4, 1)
    agent.update(batch._replace(terminated=none, done=T([[0.0], [1.0], [0.0], [0.0]])))
    assert agent.reward_scaler.discounted_return.tolist() == [1.5]
    assert agent.reward_scaler.statistics.std.item() == pytest.approx(0.25, rel=0.01)
    agent.update(batch._replace(terminated=none, done=none))
    assert agent.reward_scaler.discounted_return.tolist() == [1 + 0.5 * (1 + 0.5 * (1 + 0.5 * (1 + 0.5 * 1.5)))]


def test_advantages_are_normalised_in_the_minibatch(module):
    """Large advantages push no harder than small ones, unless --no-norm-adv."""
    for norm_adv, same in ((True, True), (False, False)):
        losses = []
        for scale in (1.0, 100.0):
            agent = make_agent(module, norm_adv=norm_adv)
            obs, log_prob = torch.randn(8, 4), torch.full((8,), -1.0)
            action = torch.arange(8) % 3 if module is ppo_discrete else torch.randn(8, 3)
            minibatch = module.Minibatch(obs, action, log_prob, scale * torch.arange(8.0), torch.zeros(8))
            losses.append(agent.update_minibatch(minibatch)["policy_loss"].item())
        assert (losses[1] == pytest.approx(losses[0], rel=1e-3)) == same
        log_prob = agent.evaluate_actions(obs, action)[0].detach()  # ratios of 1: the loss is minus the mean
        mean = agent.update_minibatch(minibatch._replace(old_log_prob=log_prob))["policy_loss"].item()
        assert mean == pytest.approx(0.0 if norm_adv else -350.0, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_losses_of_a_minibatch_by_hand(module, scale):
    """1 and 3 become -1/√2 and 1/√2, whatever their unit: with ratios of 1 and 1.1 the loss is -0.1 / √2 / 2.

    That of the value is of the targets, 2 and 4: half of the mean of 4 and 16, since V = 0.
    """
    agent = make_agent(module)
    agent.network.critic[-1].weight.data.zero_()
    obs, action = torch.randn(2, 4), torch.arange(2) if module is ppo_discrete else torch.randn(2, 3)
    old = agent.evaluate_actions(obs, action)[0].detach() - T([1.0, 1.1]).log()
    losses = agent.update_minibatch(module.Minibatch(obs, action, old, scale * T([1.0, 3.0]), T([2.0, 4.0])))
    assert losses["policy_loss"].item() == pytest.approx(-0.035355, rel=2e-3) and losses["value_loss"] == 5


@pytest.mark.parametrize(("clip_coef", "fraction"), [(0.1, 0.5), (0.21, 0.25), (0.45, 0.25), (0.6, 0.0)])
def test_clip_fraction_counts_what_is_outside_of_the_clip_range_that_is_given(module, clip_coef, fraction):
    """Ratios of 1.5, 0.8, 1, 1, not their logarithms of 0.405, -0.223, 0, 0, are compared with the range."""
    agent = make_agent(module, clip_coef=clip_coef)
    obs, action = torch.randn(4, 4), torch.arange(4) % 3 if module is ppo_discrete else torch.randn(4, 3)
    old = agent.evaluate_actions(obs, action)[0].detach() - T([1.5, 0.8, 1.0, 1.0]).log()
    minibatch = module.Minibatch(obs, action, old, torch.randn(4), torch.zeros(4))
    assert agent.update_minibatch(minibatch)["clip_fraction"] == fraction


def test_update_learns_the_better_action():
    """Two actions, one of them rewarded, in any state: after some rollouts it is what the policy does."""
    agent = make_agent(ppo_discrete, learning_rate=3e-3, num_steps=64)
    for _ in range(15):
        batch = make_batch(agent, num_steps=64)
        batch = batch._replace(reward=(batch.action == 2).float(), done=torch.ones(64, 2), terminated=torch.ones(64, 2))
        agent.update(batch)
    assert (agent.act(np.random.default_rng(0).normal(size=(50, 4)), explore=False) == 2).all()


def test_update_moves_the_mean_to_the_better_action():
    agent = make_agent(ppo_continuous, learning_rate=3e-3, num_steps=64)
    for _ in range(30):
        batch = make_batch(agent, num_steps=64)
        reward = -(batch.action - 0.5).square().sum(-1)
        agent.update(batch._replace(reward=reward, done=torch.ones(64, 2), terminated=torch.ones(64, 2)))
    mean = agent.act(np.random.default_rng(0).normal(size=(50, 4)), explore=False).mean()
    assert mean == pytest.approx(0.5, abs=0.15)


def test_compiled_update_is_the_eager_one(module, capsys):
    states, logged = [], []
    for compile in (False, True):
        agent = make_agent(module, ent_autotune=True, ent_coef=0.1, compile=compile)
        batch, update_minibatch = make_batch(agent), module.speed_up(agent.update_minibatch, agent.args)
        torch.manual_seed(3)
        logged.append([agent.update(batch, update_minibatch) for _ in range(3)][-1])
        states.append(agent.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-4), name
    for name, value in logged[0].items():  # of before a step, not of after it
        assert value.item() == pytest.approx(logged[1][name].item(), rel=1e-4, abs=1e-5), name
    assert "going on without" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        ([2.0, 2.0, 4.0, 4.0], 0.75),  # errors 1, 0, 1, 0, variance 1/4, in targets of variance 1
        ([1.0, 2.0, 3.0, 4.0], 1.0),  # V is right
        ([11.0, 12.0, 13.0, 14.0], 1.0),  # what all targets have more is no variance
        ([4.0, 3.0, 2.0, 1.0], -3.0),  # errors 3, 1, -1, -3, variance 5, in targets of variance 5/4
        ([0.0, 3.0, 3.0, 0.0], 1 - 3.5 / 2.25),  # errors -1, 1, 0, -4, variance 3.5, in targets of variance 2.25
        ([0.0, 0.01, 0.0, 0.01], 1 - 1.245025 / 2.5e-5),  # small targets: errors 1, 1.99, 3, 3.99
    ],
)
def test_explained_variance_on_numbers(module, reward, expected):
    """gamma = 0, so that the target is the reward; V(s) = obs[0] = 1, 2, 3, 4, from two environments."""
    scaling = {} if module is ppo_discrete else {"norm_obs": False, "norm_reward": False}
    agent = make_agent(module, gamma=0.0, update_epochs=1, num_minibatches=1, **scaling)
    agent.network.critic = torch.nn.Linear(4, 1, bias=False)
    agent.network.critic.weight.data[:] = T([1.0, 0.0, 0.0, 0.0])
    obs, next_obs = torch.zeros(2, 2, 2, 4)
    obs[..., 0] = T([[1.0, 2.0], [3.0, 4.0]])
    action = torch.as_tensor(np.stack([agent.act(each.numpy(), explore=True) for each in obs]))
    batch = module.Batch(obs, action, T(reward).view(2, 2), next_obs, torch.zeros(2, 2), torch.zeros(2, 2))
    losses = agent.update(batch, lambda minibatch: {"approx_kl": T(0.0)})  # learns nothing
    assert losses["explained_variance"].item() == pytest.approx(expected, abs=1e-5, rel=1e-3)


def test_explained_variance_is_finite_where_nothing_varies(module):
    """All targets are 1, or there is but one: a loss that is not finite would end the run."""
    scaling = {} if module is ppo_discrete else {"norm_reward": False}
    agent = make_agent(module, gamma=0.0, **scaling)
    assert agent.update(make_batch(agent, reward=1.0))["explained_variance"].isfinite()
    agent = make_agent(module, num_envs=1, num_steps=1, num_minibatches=1)
    assert agent.update(make_batch(agent, num_steps=1, num_envs=1))["explained_variance"].isfinite()


# ---- Networks and rollouts ----
FRAMES = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)


def gain(layer):
    """The g for which the weights are g times a matrix with orthonormal rows or columns; the bias has to be 0."""
    weight = layer.weight.detach().flatten(1)
    square = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
    assert torch.allclose(square, square[0, 0] * torch.eye(len(square)), atol=1e-3 * square[0, 0].item())
    assert layer.bias.abs().max() == 0
    return square[0, 0].sqrt().item()


def test_networks_start_with_the_weights_of_the_authors(module):
    """Orthogonal: √2 in hidden layers, 0.01 behind the policy, 1 behind the value; two hidden layers of 64 units."""
    agent = make_agent(module)
    for network, num_outputs, last in ((agent.network.actor, 3, 0.01), (agent.network.critic, 1, 1.0)):
        linears = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
        assert [(layer.in_features, layer.out_features) for layer in linears] == [(4, 64), (64, 64), (64, num_outputs)]
        assert [gain(layer) for layer in linears] == pytest.approx([2**0.5, 2**0.5, last], rel=1e-3)


def test_hidden_units_are_tanh(module):
    """Through one unit of each layer 0.5 becomes tanh(tanh(0.5)) = 0.431808, and -0.5 minus that."""
    agent = make_agent(module)
    for network in (agent.network.actor, agent.network.critic):
        for parameter in network.parameters():
            parameter.data.zero_()
        for layer in network[::2]:
            layer.weight.data[0, 0] = 1.0
        outputs = network(T([[0.5, 0, 0, 0], [-0.5, 0, 0, 0]]))[:, 0]
        assert outputs.tolist() == pytest.approx([0.431808, -0.431808], abs=1e-5)


def test_network_of_frames_is_one_for_policy_and_value_with_the_weights_of_the_authors():
    agent = make_agent(ppo_discrete, FRAMES)
    layers = [layer for layer in agent.network.modules() if hasattr(layer, "weight")]
    assert sum(layer.weight.numel() + layer.bias.numel() for layer in layers) == 1_686_180  # 513 of the value's head
    assert [gain(layer) for layer in layers] == pytest.approx([2**0.5] * 4 + [0.01, 1.0], rel=1e-3)


def test_policy_and_value_both_train_the_layers_that_frames_go_through_first():
    """Each alone gives gradients to all eight tensors of the features; with vectors neither touches the other's."""
    agent, frames = make_agent(ppo_discrete, FRAMES), T(np.stack([FRAMES.sample() for _ in range(2)])).float()
    shared = list(agent.network.features.parameters())
    assert len(shared) == 8
    for output in agent.network(frames):
        grads = torch.autograd.grad(output.square().sum(), shared, retain_graph=True, allow_unused=True)
        assert [grad is not None and grad.any().item() for grad in grads] == [True] * 8
    network = make_agent(ppo_discrete).network
    logits, value = network(torch.randn(2, 4))
    for output, others in ((logits, network.critic), (value, network.actor)):
        grads = torch.autograd.grad(output.sum(), list(others.parameters()), allow_unused=True)
        assert [grad for grad in grads if grad is not None] == []


def test_rollout_keeps_bytes_and_float32_and_an_update_takes_both():
    """Frames of Atari in a quarter of the memory; observations of other numbers, float64 say, as float32."""
    rollout = ppo_discrete.Rollout(FRAMES, gym.spaces.Discrete(3), 2, 1)
    agent, frames = make_agent(ppo_discrete, FRAMES, num_envs=1, num_steps=2, num_minibatches=1), FRAMES.sample()[None]
    for t in range(2):
        rollout.add(t, frames, agent.act(frames, explore=True), [1.5], 255 - frames, [t == 1], [t == 1])
    batch = rollout.batch(torch.device("cpu"))
    assert batch.obs.dtype == batch.next_obs.dtype == torch.uint8 and batch.action.dtype == torch.int64
    assert torch.equal(batch.obs[1], torch.from_numpy(frames)) and torch.equal(batch.next_obs, 255 - batch.obs)
    assert batch.reward.tolist() == [[1.5], [1.5]] and batch.done.tolist() == batch.terminated.tolist() == [[0], [1]]
    before = [parameter.detach().clone() for parameter in agent.network.parameters()]
    assert all(value.isfinite() for value in agent.update(batch).values())
    assert not any(torch.equal(a, b) for a, b in zip(before, agent.network.parameters(), strict=True))
    doubles = gym.spaces.Box(-1, 1, (2,), np.float64)
    rollout = ppo_continuous.Rollout(doubles, gym.spaces.Box(-1, 1, (3,), np.float32), 2, 1)
    assert {array.dtype for array in rollout.arrays} == {np.dtype(np.float32)}


# ---- Acting ----
def test_act_draws_from_the_softmax():
    agent = make_agent(ppo_discrete)
    with torch.no_grad():
        agent.network.actor[-1].bias.copy_(T([0.0, 1.0, 2.0]))
        agent.network.actor[-1].weight.zero_()
    drawn = agent.act(np.zeros((20_000, 4), np.float32), explore=True)
    expected = T([0.0, 1.0, 2.0]).softmax(0).numpy()
    assert np.bincount(drawn, minlength=3) / 20_000 == pytest.approx(expected, abs=0.012)
    assert (agent.act(np.zeros((5, 4), np.float32), explore=False) == 2).all()


@pytest.mark.parametrize("std", ["parameter", "head"])
def test_act_draws_from_the_gaussian(std):
    agent = make_agent(ppo_continuous, std=std)
    with torch.no_grad():
        agent.network.actor[-1].weight.zero_()
        agent.network.actor[-1].bias[:3] = T([-1.0, 0.0, 1.0])
        if std == "parameter":
            agent.network.log_std.copy_(T([-1.0, 0.0, 1.0]))
        else:
            agent.network.actor[-1].bias[3:] = T([-1.0, 0.0, 1.0])
    obs = np.zeros((20_000, 4), np.float32)
    drawn, (mean, log_std) = agent.act(obs, explore=True), agent.network.policy(torch.zeros(1, 4))
    assert drawn.mean(0) == pytest.approx(mean.detach().numpy().reshape(3), abs=0.06)
    assert drawn.std(0) == pytest.approx(log_std.detach().exp().numpy().reshape(3), rel=0.03)
    assert np.allclose(agent.act(obs[:2], explore=False), mean.detach().numpy(), atol=1e-6)


def test_act_sees_what_the_update_sees(module):
    """Scaling included; a copy acts with its own parameters."""
    agent = make_agent(module)
    obs = np.random.default_rng(0).normal(3, 5, size=(50, 4))
    if module is ppo_continuous:
        agent.normalizer.update(torch.randn(100, 4) * 2 + 1)
        expected = agent.network.policy(agent.normalizer(torch.as_tensor(obs, dtype=torch.float32)))[0]
    else:
        expected = agent.network.policy(torch.as_tensor(obs, dtype=torch.float32)).argmax(-1)
    assert np.allclose(agent.act(obs, explore=False), expected.detach().numpy(), atol=1e-5)
    if module is ppo_continuous:
        raw = make_agent(module, norm_obs=False)
        far, policy = torch.full((1, 4), 50.0), raw.network.policy
        assert np.allclose(raw.act(far.numpy(), explore=False), policy(far)[0].detach().numpy())
        assert not torch.allclose(policy(far)[0], policy(far.clamp(-10, 10))[0]), "or nothing could be seen here"
    other = copy.deepcopy(agent)
    with torch.no_grad():
        other.network.actor[-1].bias[0] += 100
    assert not np.allclose(other.act(obs, explore=False), agent.act(obs, explore=False))
    agent.load_state_dict(other.state_dict())
    assert np.allclose(other.act(obs, explore=False), agent.act(obs, explore=False))


# ---- Scaling ----
def test_normalizer_merges_batches_as_if_they_were_one():
    x = torch.randn(1000, 3) * T([1.0, 10.0, 0.1]) + T([0.0, 5.0, -3.0])
    normalizer = ppo_continuous.Normalizer((3,))
    assert torch.equal(normalizer(x[:5]), x[:5].clamp(-10, 10))
    for part in x.split([1, 499, 20, 480]):
        normalizer.update(part)
    assert torch.allclose(normalizer.mean, x.mean(0), atol=1e-4)
    assert torch.allclose(normalizer.std, x.std(0, correction=0), rtol=1e-4)
    assert torch.allclose(normalizer(x).std(0, correction=0), torch.ones(3), atol=0.02)
    assert normalizer(x * 1e6).abs().max() == 10


def test_what_never_varies_is_scaled_to_a_finite_number():
    """Like the coordinates of an arm's base: no deviation to divide by. Rewards that are all 0 stay."""
    normalizer = ppo_continuous.Normalizer((2,))
    for _ in range(2):
        normalizer.update(torch.full((8, 2), 3.0))
    assert normalizer(T([[3.0, 4.0]])).tolist() == [[0.0, 10.0]]
    assert ppo_continuous.RewardScaler(2, 0.9)(torch.zeros(5, 2), torch.zeros(5, 2)).tolist() == [[0.0, 0.0]] * 5


@pytest.mark.parametrize(("size", "scaled"), [(1e-3, 1.0), (1e-5, 0.1)])
def test_small_numbers_are_scaled_as_large_ones_down_to_a_deviation_of_1e_4(size, scaled):
    """Observations in kilometres, rewards of a thousandth: a deviation of 0.001 becomes 1; the bound is 0.0001."""
    x, expected = T([[size], [-size]]), pytest.approx([scaled, -scaled], rel=0.01)
    normalizer = ppo_continuous.Normalizer((1,))
    normalizer.update(x)
    assert normalizer(x).flatten().tolist() == expected
    assert ppo_continuous.RewardScaler(1, 0.9)(x, torch.ones(2, 1)).flatten().tolist() == expected


def test_update_scales_both_observations_as_while_acting_and_then_learns_the_seen_ones():
    """Before, 0 and 4 were seen: 6 becomes 2, and 8 becomes 3. Afterwards 0, 4, 6, 6: mean 4, deviation √6."""
    changes = {"gamma": 1.0, "gae_lambda": 0.0, "norm_reward": False}
    agent = make_agent(ppo_continuous, num_envs=1, num_steps=2, num_minibatches=1, update_epochs=1, **changes)
    agent.normalizer.update(T([[0.0] * 4, [4.0] * 4]))
    agent.network.critic = torch.nn.Linear(4, 1, bias=False)
    agent.network.critic.weight.data[:] = T([1.0, 0.0, 0.0, 0.0])  # V is the first number of what it gets
    seen, zero = [], torch.zeros(2, 1)
    batch = ppo_continuous.Batch(
        torch.full((2, 1, 4), 6.0), torch.zeros(2, 1, 3), zero, torch.full((2, 1, 4), 8.0), zero, zero
    )
    agent.update(batch, lambda minibatch: seen.append(minibatch) or {"approx_kl": T(0.0)})
    assert seen[0].obs.unique().tolist() == [2.0] and seen[0].target.tolist() == [3.0, 3.0]
    assert agent.normalizer.mean.tolist() == pytest.approx([4.0] * 4) and agent.normalizer.count == 4
    assert agent.normalizer.std.tolist() == pytest.approx([6**0.5] * 4)


@pytest.mark.parametrize(("norm_reward", "targets"), [(True, [1.0, 3.0]), (False, [2.0, 6.0])])
def test_targets_are_made_of_scaled_rewards(norm_reward, targets):
    """Without a future returns are rewards, 2 and 6, whose deviation is 2, and targets too."""
    agent = make_agent(ppo_continuous, gamma=0.0, norm_reward=norm_reward, update_epochs=1, num_minibatches=1)
    batch = make_batch(agent, num_steps=1)._replace(reward=T([[2.0, 6.0]]))
    update_minibatch, seen, _ = recorded(agent)
    agent.update(batch, update_minibatch)
    assert sorted(seen[0].target.tolist()) == pytest.approx(targets)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scaled_rewards_are_clipped_on_both_sides(sign):
    """One of 1,000 is 100, the others are 0: 31.6 deviations."""
    reward = torch.zeros(1000, 1)
    reward[500] = 100 * sign
    scaled = ppo_continuous.RewardScaler(1, 0.9)(reward, torch.ones(1000, 1))
    assert scaled[500].item() == 10 * sign and scaled.abs().sum() == 10


def test_rewards_are_scaled_by_the_deviation_of_returns_that_restart_with_the_episode():
    """By brute force over two calls: the return of each environment, from the start of its episode."""
    scaler = ppo_continuous.RewardScaler(2, 0.9)
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(2, 10, 2, generator=generator)
    done = (torch.rand(2, 10, 2, generator=generator) < 0.3).float()
    returns = []
    for n in range(2):
        total = 0.0
        for r, d in zip(reward[:, :, n].flatten().tolist(), done[:, :, n].flatten().tolist(), strict=True):
            total = 0.9 * total + r
            returns.append(total)
            total = 0.0 if d else total
    scaler(reward[0], done[0])
    scaled = scaler(reward[1], done[1])
    assert torch.allclose(scaled, reward[1] / np.std(returns), rtol=1e-4)


def test_normaliser_is_frozen_while_acting_and_saved_with_the_agent():
    agent = make_agent(ppo_continuous)
    agent.act(np.ones((2, 4)), explore=False), agent.act(np.ones((2, 4)), explore=True)
    assert agent.normalizer.count == 0
    agent.update(make_batch(agent))
    assert agent.normalizer.count == 32 and agent.normalizer.mean.abs().sum() > 0
    other = make_agent(ppo_continuous)
    other.load_state_dict(agent.state_dict())
    for name in ("mean", "std", "count"):
        assert torch.equal(getattr(other.normalizer, name), getattr(agent.normalizer, name))


def test_log_std_stays_within_its_bounds():
    agent = make_agent(ppo_continuous, ent_coef=1e6, learning_rate=10.0)
    assert agent.network.log_std.tolist() == [-0.5] * 3
    agent.update(make_batch(agent))
    assert agent.network.log_std.max() == 2 and agent.network.log_std.min() >= -5
    agent = make_agent(ppo_continuous, learning_rate=1e-9)
    agent.network.log_std.data.fill_(-6.0)
    agent.update(make_batch(agent))
    assert agent.network.log_std.tolist() == pytest.approx([-5.0] * 3)
    agent = make_agent(ppo_continuous, std="head")
    with torch.no_grad():
        agent.network.actor[-1].bias[3:] = T([-1e3, 0.0, 1e3])
    _, log_std = agent.network.policy(torch.zeros(1, 4))
    assert log_std[0].tolist() == pytest.approx([-5, -0.526, 2], abs=1e-2)  # the bounds move -0.5 a little


# ---- Loop ----
class Counter(gym.Env):
    """obs = [episode, step in the episode]; episodes of 3, 7, 5 steps end by termination, time limit, both at once."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    lengths = (3, 7, 5)

    def __init__(self, continuous, render_mode=None):
        self.episode = -1
        self.action_space = gym.spaces.Box(-1, 3, (1,), np.float32) if continuous else gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time, self.ended = self.episode + 1, 0, False
        return np.array([self.episode, 0.0], np.float32), {}

    def step(self, action):
        assert not self.ended, "stepped after the end of an episode"
        assert self.action_space.contains(action), action
        self.time += 1
        kind, self.ended = self.episode % 3, self.time == self.lengths[self.episode % 3]
        obs = np.array([self.episode, self.time], np.float32)
        return obs, 1.0, self.ended and kind != 1, self.ended and kind != 0, {}


ENV = {"ppo_discrete": "PPOCounter-v0", "ppo_continuous": "PPOBoxCounter-v0"}
gym.register(ENV["ppo_discrete"], Counter, kwargs={"continuous": False})
gym.register(ENV["ppo_continuous"], Counter, kwargs={"continuous": True})


@pytest.mark.parametrize("num_envs", [1, 4, 8])
def test_loop_stores_what_happened(module, num_envs, tmp_path, monkeypatch):
    """Steps are counted over all environments, in whole rollouts; each stored step is the one that was made.

    An action is stored as it was drawn: its density is that of the unclipped one, which the environment clips.
    """
    batches, logged = [], []
    update = module.Agent.update

    def recording_update(agent, batch, update_minibatch):
        batches.append(copy.deepcopy(batch))
        return update(agent, batch, update_minibatch)

    monkeypatch.setattr(module.Agent, "update", recording_update)
    monkeypatch.setattr(module.Run, "log", lambda run, values, video=None: logged.append((run.step, values)))
    arguments = {"num_envs": num_envs, "num_steps": 12, "num_minibatches": 2, "update_epochs": 1}
    module.train(
        module.Args(
            env_id=ENV[module.__name__], total_timesteps=12 * num_envs * 4, cuda=False, eval_interval=0,
            checkpoint_interval=0, out_dir=str(tmp_path), **arguments,
        )
    )  # fmt: skip
    assert len(batches) == 4 and batches[0].reward.shape == (12, num_envs)
    assert module is ppo_discrete or torch.cat([batch.action for batch in batches]).abs().max() > 1
    obs, next_obs, terminated, done = (
        torch.cat([getattr(batch, name) for batch in batches]) for name in ("obs", "next_obs", "terminated", "done")
    )
    lengths = []
    for n in range(num_envs):
        episode = time = 0
        for t in range(48):
            assert obs[t, n].tolist() == [episode, time]
            time += 1
            assert next_obs[t, n].tolist() == [episode, time]
            kind, ended = episode % 3, time == Counter.lengths[episode % 3]
            assert (done[t, n], terminated[t, n]) == (ended, ended and kind != 1)
            if ended:
                lengths.append(((t + 1) * num_envs, time))
                episode, time = episode + 1, 0
    logged = [(step, values["charts/episodic_length"]) for step, values in logged if "charts/episodic_length" in values]
    assert sorted(logged) == sorted(lengths)


class Echo(gym.Env):
    """Each step earns its action; episodes of five."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))

    def __init__(self, action_space, render_mode=None):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(1, np.float32), float(np.ravel(action)[0]), False, self.time == 5, {}


def test_action_that_is_stored_is_the_one_that_was_made(module, tmp_path, monkeypatch):
    """Of three environments; -1 to 1 is the range of 0 to 4, so that 0 is 2, and what is outside of it is its bound."""
    space = gym.spaces.Discrete(3) if module is ppo_discrete else gym.spaces.Box(0, 4, (1,), np.float32)
    gym.registry.pop("Echo-v0", None)
    gym.register("Echo-v0", Echo, disable_env_checker=True, kwargs={"action_space": space})
    batches, update = [], module.Agent.update
    monkeypatch.setattr(
        module.Agent, "update", lambda agent, batch, *rest: (batches.append(batch), update(agent, batch, *rest))[1]
    )
    sizes = {"num_envs": 3, "num_steps": 40, "num_minibatches": 2, "update_epochs": 1}
    args = {"env_id": "Echo-v0", "total_timesteps": 120, "cuda": False, "eval_interval": 0, "out_dir": str(tmp_path)}
    module.train(module.Args(**args, **sizes))
    [batch] = batches
    made = batch.action.float() if module is ppo_discrete else 2 + 2 * batch.action[..., 0].clamp(-1, 1)
    assert torch.allclose(batch.reward, made, atol=1e-6)
    assert (made.min(), made.max()) == (0, 2 if module is ppo_discrete else 4), "both bounds were reached"


def test_steps_are_rounded_up_to_whole_rollouts_and_it_says_so(module, tmp_path, capsys):
    arguments = {"num_envs": 4, "num_steps": 8, "num_minibatches": 2, "update_epochs": 1, "log_interval": 1}
    args = module.Args(
        env_id=ENV[module.__name__], total_timesteps=70, cuda=False, eval_interval=0, out_dir=str(tmp_path), **arguments
    )
    module.train(args)
    assert args.total_timesteps == 70, "what the caller has stays"
    assert "rounded up to 96, whole rollouts of 32" in capsys.readouterr().out
    state = torch.load(next(tmp_path.iterdir()) / "checkpoint.pt", weights_only=True)
    assert state["step"] == 96


def test_training_is_the_same_with_and_without_evaluation(module, tmp_path):
    agents = []
    for eval_interval in (0, 16):
        arguments = {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "update_epochs": 1, "eval_episodes": 2}
        args = module.Args(
            env_id=ENV[module.__name__], total_timesteps=64, cuda=False, eval_interval=eval_interval,
            out_dir=str(tmp_path / str(eval_interval)), **arguments,
        )  # fmt: skip
        agents.append(module.train(args).state_dict())
    assert all(torch.equal(value, agents[1][name]) for name, value in agents[0].items())
