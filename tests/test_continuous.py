"""Update rules and wiring of the agents, and the replay buffer: which network feeds which target, and what moves."""

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import apart
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import ddpg
import sac_continuous as sac
import td3

OBS_DIM, ACTION_DIM = 4, 2
OBS_SPACE = gym.spaces.Box(-np.inf, np.inf, (OBS_DIM,))
ACTION_SPACE = gym.spaces.Box(-1, 1, (ACTION_DIM,))
T = torch.tensor


every = pytest.mark.parametrize("module", [ddpg, td3, sac], ids=["ddpg", "td3", "sac"])
deterministic = pytest.mark.parametrize("module", [ddpg, td3], ids=["ddpg", "td3"])


def make_agent(module=sac, seed=0, **changes):
    torch.manual_seed(seed)
    return module.Agent(OBS_SPACE, ACTION_SPACE, module.Args(cuda=False, **changes))


def critics(agent, suffix=""):
    """The online critics, or with suffix "_target" their targets, of any of the scripts."""
    return getattr(agent, f"critic{suffix}", None) or getattr(agent, f"critics{suffix}")


def make_batch(seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, size, OBS_DIM, generator=generator)
    action = torch.rand(size, ACTION_DIM, generator=generator) * 2 - 1
    reward, terminated = torch.randn(size, generator=generator), (torch.arange(size) % 4 == 0).float()
    return sac.Batch(obs=obs, action=action, reward=reward, next_obs=next_obs, terminated=terminated)


def poison(module):
    for parameter in module.parameters():
        parameter.data.fill_(math.nan)


def spy(monkeypatch, name, returns=None, module=sac):
    """Records the arguments of an equation in each call; `returns` maps the true result to another."""
    calls, true = [], getattr(module, name)

    def wrapper(*args, **kwargs):
        calls.append(args)
        result = true(*args, **kwargs)
        return returns(result) if returns else result

    monkeypatch.setattr(module, name, wrapper)
    return calls


def parameters(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(before, after):
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# ---- Which network feeds what ----
def test_sac_target_comes_from_the_target_critics(monkeypatch):
    calls = spy(monkeypatch, "td_target")
    agent = make_agent()
    poison(agent.critics)
    agent.update(make_batch())
    assert calls[0][2].isfinite().all() and calls[0][3].isfinite().all()


@pytest.mark.parametrize("index", [0, 1])
def test_sac_each_target_critic_feeds_its_own_value(monkeypatch, index):
    calls = spy(monkeypatch, "td_target")
    agent = make_agent()
    poison(agent.critics_target[index])
    agent.update(make_batch())
    assert calls[0][2 + index].isnan().all() and calls[0][3 - index].isfinite().all()


def test_sac_target_looks_at_the_next_observation_only(monkeypatch):
    calls = spy(monkeypatch, "td_target")
    batch = make_batch()
    make_agent().update(batch._replace(obs=batch.obs * math.nan, action=batch.action * math.nan))
    make_agent().update(batch._replace(next_obs=batch.next_obs * math.nan))
    assert all(value.isfinite().all() for value in (calls[0][2], calls[0][3], calls[0][5]))
    assert all(value.isnan().all() for value in (calls[1][2], calls[1][3], calls[1][5]))


def test_sac_next_action_and_its_entropy_come_from_the_current_actor(monkeypatch):
    calls = spy(monkeypatch, "td_target")
    agent = make_agent()
    poison(agent.actor)
    agent.update(make_batch())
    assert calls[0][5].isnan().all()


def test_sac_target_gets_reward_mask_discount_and_temperature(monkeypatch):
    calls = spy(monkeypatch, "td_target")
    batch = make_batch()
    make_agent(gamma=0.7, alpha=0.3).update(batch)
    assert torch.equal(calls[0][0], batch.reward) and torch.equal(calls[0][1], batch.terminated)
    assert calls[0][4] == 0.7 and calls[0][6].item() == pytest.approx(0.3)


def test_sac_no_gradient_runs_through_the_target(monkeypatch):
    calls = spy(monkeypatch, "critic_loss")
    agent = make_agent()
    agent.update(make_batch())
    assert calls[0][0].requires_grad and calls[0][1].requires_grad and not calls[0][2].requires_grad


def test_sac_critic_loss_sees_the_stored_action_and_both_critics(monkeypatch):
    calls = spy(monkeypatch, "critic_loss")
    batch, agent = make_batch(), make_agent()
    expected = [critic(batch.obs, batch.action).detach() for critic in agent.critics]
    logged = agent.update(batch)
    assert logged["q"].item() == pytest.approx(expected[0].mean().item(), abs=1e-6)
    assert torch.allclose(calls[0][0].detach(), expected[0]) and torch.allclose(calls[0][1].detach(), expected[1])
    assert not torch.allclose(expected[0], expected[1])


def test_sac_actor_loss_uses_the_online_critics_after_their_step(monkeypatch):
    spy(monkeypatch, "td_target", returns=torch.zeros_like)
    calls = spy(monkeypatch, "actor_loss")
    agent = make_agent(tau=1e-9)
    poison(agent.critics_target)
    agent.update(make_batch())
    assert calls[0][1].isfinite().all() and calls[0][2].isfinite().all()
    assert calls[0][0].requires_grad, "the entropy belongs to the actor's gradient"
    assert not calls[0][3].requires_grad, "the actor's loss must not move the temperature"


@deterministic
def test_target_comes_from_the_target_networks(module, monkeypatch):
    """The notes' TD3 has the online critics in one line: with them poisoned the target must not change."""
    calls = spy(monkeypatch, "td_target", module=module)
    agent = make_agent(module)
    poison(agent.actor)
    poison(critics(agent))
    agent.update(make_batch())
    for next_q in calls[0][2:-1]:
        assert next_q.isfinite().all()


@pytest.mark.parametrize("index", [0, 1])
def test_td3_each_target_critic_feeds_its_own_value(monkeypatch, index):
    calls = spy(monkeypatch, "td_target", module=td3)
    agent = make_agent(td3)
    poison(agent.critics_target[index])
    agent.update(make_batch())
    assert calls[0][2 + index].isnan().all() and calls[0][3 - index].isfinite().all()


@deterministic
def test_next_action_comes_from_the_target_actor(module, monkeypatch):
    calls = spy(monkeypatch, "td_target", module=module)
    agent = make_agent(module)
    poison(agent.actor_target)
    agent.update(make_batch())
    assert calls[0][2].isnan().all()


@deterministic
def test_target_looks_at_the_next_observation_only_and_has_no_gradient(module, monkeypatch):
    calls = spy(monkeypatch, "td_target", module=module)
    batch, losses = make_batch(), spy(monkeypatch, "critic_loss", module=module)
    make_agent(module, gamma=0.7).update(batch._replace(obs=batch.obs * math.nan, action=batch.action * math.nan))
    make_agent(module).update(batch._replace(next_obs=batch.next_obs * math.nan))
    assert calls[0][2].isfinite().all() and calls[1][2].isnan().all()
    assert torch.equal(calls[0][0], batch.reward) and torch.equal(calls[0][1], batch.terminated)
    assert calls[0][-1] == 0.7
    assert all(q.requires_grad for q in losses[0][:-1]) and not losses[0][-1].requires_grad


@deterministic
def test_critic_loss_sees_the_stored_action(module, monkeypatch):
    calls = spy(monkeypatch, "critic_loss", module=module)
    batch, agent = make_batch(), make_agent(module)
    expected = [
        critic(batch.obs, batch.action).detach() for critic in (critics(agent) if module is td3 else [agent.critic])
    ]
    logged = agent.update(batch)
    for q, value in zip(calls[0][:-1], expected, strict=True):
        assert torch.allclose(q.detach(), value)
    assert logged["q"].item() == pytest.approx(expected[0].mean().item(), abs=1e-6), "of the first critic"


@deterministic
def test_actor_loss_uses_the_online_networks_after_the_critics_step(module, monkeypatch):
    spy(monkeypatch, "td_target", returns=torch.zeros_like, module=module)
    calls = spy(monkeypatch, "actor_loss", module=module)
    agent = make_agent(module, tau=1e-9, **NO_DELAY[module])
    poison(critics(agent, "_target"))
    poison(agent.actor_target)
    actor, batch = copy.deepcopy(agent.actor), make_batch()
    agent.update(batch)
    critic = critics(agent)[0] if module is td3 else agent.critic
    assert torch.allclose(calls[0][0], critic(batch.obs, actor(batch.obs)), atol=1e-6)


def test_td3_actor_climbs_the_first_critic_or_the_smaller_one(monkeypatch):
    for objective, index in (("q1", 1), ("min", 0), ("min", 1)):
        with monkeypatch.context() as patch:
            calls = spy(patch, "actor_loss", module=td3)
            agent = make_agent(td3, policy_delay=1, actor_objective=objective)
            poison(agent.critics[index])
            agent.update(make_batch())
            assert calls[0][0].isnan().any() == (objective == "min"), (objective, index)


def test_td3_target_action_has_clipped_noise_of_the_given_size(monkeypatch):
    calls = spy(monkeypatch, "smooth_target_action", module=td3)
    agent = make_agent(td3, target_noise=0.7, noise_clip=0.3)
    agent.update(make_batch(size=4000))
    next_action, noise, noise_clip = calls[0]
    assert noise_clip == 0.3 and noise.std().item() == pytest.approx(0.7, rel=0.05)
    assert noise.shape == next_action.shape and len(noise.unique()) == noise.numel(), "each action has its own"
    assert torch.allclose(next_action, agent.actor_target(make_batch(size=4000).next_obs), atol=1e-6)


def test_td3_actor_and_all_targets_move_in_every_policy_delay_th_update():
    agent = make_agent(td3, policy_delay=3)
    slow = lambda: parameters(agent.actor) + parameters(agent.actor_target) + parameters(agent.critics_target)  # noqa: E731
    metrics = {"actor_loss": torch.zeros(())}
    for i in range(1, 8):
        before, fast = slow(), parameters(agent.critics)
        metrics, last = agent.update(make_batch(i)), metrics
        moved = [not torch.equal(a, b) for a, b in zip(before, slow(), strict=True)]
        assert set(moved) == {i % 3 == 0}
        assert (metrics["actor_loss"] != last["actor_loss"]).item() == (i % 3 == 0), "the last one stays"
        assert not same(fast, parameters(agent.critics))


# ---- Limits in which one algorithm is another ----
def twin(agent):
    """Makes the second critic and its target copies of the first."""
    for networks in (agent.critics, agent.critics_target):
        networks[1].load_state_dict(networks[0].state_dict())


def test_td3_with_equal_twins_and_no_noise_is_ddpg(monkeypatch):
    losses = {module: spy(monkeypatch, "critic_loss", module=module) for module in (ddpg, td3)}
    one = make_agent(ddpg)
    other = make_agent(td3, seed=5, target_noise=0.0, policy_delay=1)
    for name in ("actor", "actor_target"):
        getattr(other, name).load_state_dict(getattr(one, name).state_dict())
    for name in ("", "_target"):
        critics(other, name)[0].load_state_dict(critics(one, name).state_dict())
    twin(other)
    for i in range(5):
        first, second = one.update(make_batch(i)), other.update(make_batch(i))
        assert torch.allclose(losses[ddpg][i][1], losses[td3][i][2], atol=1e-6), "the targets"
        assert second["critic_loss"].item() == pytest.approx(2 * first["critic_loss"].item(), rel=1e-5)
        assert second["actor_loss"].item() == pytest.approx(first["actor_loss"].item(), rel=1e-5)
    for a, b in zip(parameters(one.actor), parameters(other.actor), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_sac_without_temperature_and_deviation_is_td3_without_noise_and_delay(monkeypatch):
    """Temperature 1e-9 and no noise; the next action is the actor's, of which TD3's target actor is still a copy."""
    targets = {module: spy(monkeypatch, "critic_loss", module=module) for module in (td3, sac)}
    one = make_agent(td3, target_noise=0.0, policy_delay=1, actor_objective="min")
    other = make_agent(sac, autotune=False, alpha=1e-9)
    other.critics.load_state_dict(one.critics.state_dict())
    other.critics_target.load_state_dict(one.critics_target.state_dict())
    for ours, theirs in zip(one.actor.net, other.actor.net, strict=True):
        if isinstance(ours, nn.Linear):
            theirs.weight.data[: len(ours.weight)] = ours.weight.data
            theirs.bias.data[: len(ours.bias)] = ours.bias.data
    other.actor.net[-1].weight.data[ACTION_DIM:] = 0
    other.actor.net[-1].bias.data[ACTION_DIM:] = -1e3  # log_std at its lower bound
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    first, second = one.update(make_batch()), other.update(make_batch())
    assert torch.allclose(targets[td3][0][2], targets[sac][0][2], atol=1e-5)
    for name in ("critic_loss", "actor_loss", "q"):
        assert second[name].item() == pytest.approx(first[name].item(), rel=1e-4, abs=1e-5)


# ---- What moves, and what does not ----
NO_DELAY = {ddpg: {}, td3: {"policy_delay": 1}, sac: {}}


@every
def test_targets_start_as_copies_and_move_by_tau(module):
    agent = make_agent(module, tau=0.1, **NO_DELAY[module])
    pairs = [(critics(agent), critics(agent, "_target"))]
    pairs += [(agent.actor, agent.actor_target)] if module is not sac else []
    first = [parameters(online) for online, _ in pairs]
    for start, (_, target) in zip(first, pairs, strict=True):
        assert same(start, parameters(target))
    agent.update(make_batch())
    for start, (online, target) in zip(first, pairs, strict=True):
        assert not same(start, parameters(online))
        for a, now, moved in zip(start, parameters(online), parameters(target), strict=True):
            assert torch.allclose(moved, a + (now - a) * 0.1, atol=1e-7)


@pytest.mark.parametrize("module", [td3, sac], ids=["td3", "sac"])
def test_twin_critics_start_apart(module):
    """Equal ones would stay equal, with the same targets and batches: the smaller of the two would be either."""
    first, second = (parameters(critic) for critic in critics(make_agent(module)))
    assert len(first) == 6, "weights and biases of three layers"
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every
def test_every_parameter_moves(module):
    agent = make_agent(module, **NO_DELAY[module])
    before = {name: value.clone() for name, value in agent.named_parameters()}
    agent.update(make_batch())
    assert [name for name, value in agent.named_parameters() if torch.equal(value, before[name])] == []


@every
def test_each_network_has_its_own_step_size(module):
    """The first step of Adam moves what has a clear gradient by the step size."""
    sizes = {"actor_lr": 1e-3, "critic_lr": 1e-2} | ({"alpha_lr": 1e-4} if module is sac else {})
    agent = make_agent(module, **sizes, **NO_DELAY[module])
    before = {name: value.detach().clone() for name, value in agent.named_parameters()}
    agent.update(make_batch())
    moved = {name: (value - before[name]).abs().max().item() for name, value in agent.named_parameters()}
    for part, size in (("actor.", 1e-3), ("critic.", 1e-2), ("critics.", 1e-2), ("log_alpha", 1e-4)):
        of_part = [value for name, value in moved.items() if name.startswith(part)]
        assert of_part == pytest.approx([size] * len(of_part), rel=0.05), part


@every
def test_hidden_layers_are_two_of_256_rectified_units(module):
    """Through one unit of each layer 0.5 stays 0.5 and -0.5 becomes 0, before the actor's tanh."""
    agent = make_agent(module)
    critic = agent.critic if module is ddpg else agent.critics[1]
    for network, sizes in ((agent.actor.net, (4, 4 if module is sac else 2)), (critic.net, (6, 1))):
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        assert [layer.in_features for layer in linears] == [sizes[0], 256, 256]
        assert linears[-1].out_features == sizes[1]
        for parameter in network.parameters():
            parameter.data.zero_()
        for sign, expected in ((1.0, [0.5, 0.0]), (-1.0, [0.0, 0.0])):
            for layer, weight in zip(linears, (1.0, sign, 1.0), strict=True):
                layer.weight.data[0, 0] = weight
            x = torch.zeros(2, sizes[0])
            x[:, 0] = T([0.5, -0.5])
            assert network(x)[:, 0].tolist() == expected


@every
def test_actor_step_leaves_critics_and_temperature_alone(module, monkeypatch):
    """Turning the actor's loss round must change the actor, and nothing that the critics or the temperature get."""

    def run(factor):
        agent = make_agent(module, **NO_DELAY[module])
        with monkeypatch.context() as patch:
            spy(patch, "actor_loss", returns=lambda loss: loss * factor, module=module)
            agent.update(make_batch())
        return agent

    one, other = run(1), run(-1000)
    assert not same(parameters(one.actor), parameters(other.actor))
    assert same(parameters(critics(one)), parameters(critics(other)))
    assert same(one.critic_optimizer.buffers(), other.critic_optimizer.buffers()), "its moments"
    if module is sac:
        assert torch.equal(one.log_alpha, other.log_alpha)


@every
def test_losses_leave_no_gradients_behind(module):
    agent = make_agent(module)
    agent.update(make_batch())
    assert all(parameter.grad is None for parameter in agent.parameters())


@every
def test_update_through_onednn_is_that_of_nn_linear(module, monkeypatch):
    """Fifty updates end where they end with PyTorch's own layer."""
    results = []
    for layer in (module.Linear, nn.Linear):
        with monkeypatch.context() as patch:
            patch.setattr(module, "Linear", layer)
            patch.setattr(module, "has_fast_onednn", True)
            agent, buffer = make_agent(module), filled_buffer("cpu")
            results.append(trained(agent, lambda agent=agent, buffer=buffer: agent.update(buffer.sample(32))))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("num_inputs", [3, 256])
@every
def test_linear_layer_has_the_gradients_of_nn_linear(module, num_inputs, monkeypatch):
    calls = spy(monkeypatch, "onednn_linear", module=module)
    torch.manual_seed(0)
    ours, theirs = module.Linear(num_inputs, 64), nn.Linear(num_inputs, 64)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2 * 33, 2 * num_inputs)[::2, :num_inputs].requires_grad_(True)  # not contiguous
    for has_fast_onednn in (False, True):
        monkeypatch.setattr(module, "has_fast_onednn", has_fast_onednn)
        results = []
        for layer in (ours, theirs):
            y = layer(x)
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, layer.weight, layer.bias])])
        for a, b in zip(*results, strict=True):
            assert torch.allclose(a, b, atol=1e-4, rtol=1e-5)
        assert len(calls) == (3 if has_fast_onednn else 0), "forward, and backward to input and weight"
    for shape, dtype in (((num_inputs,), torch.float32), ((2, 5, num_inputs), torch.float32)):
        assert torch.allclose(ours(torch.ones(shape, dtype=dtype)), theirs(torch.ones(shape, dtype=dtype)), atol=1e-5)
    assert len(calls) == 3, "nn.Linear takes what has not two dimensions"
    assert ours.double()(x.double()).dtype == torch.float64 and len(calls) == 3, "and other numbers"


def test_sac_entropy_rises_where_values_are_flat():
    """With Q = 0 everywhere, the actor's loss is alpha log pi: from a narrow policy, entropy must grow."""
    agent = make_agent(autotune=False, critic_lr=1e-9, actor_lr=1e-3)
    for parameter in [*agent.critics.parameters(), *agent.critics_target.parameters()]:
        parameter.data.zero_()
    agent.actor.net[-1].bias.data[ACTION_DIM:] = -3.0
    entropy = [agent.update(make_batch(i))["entropy"].item() for i in range(200)]
    assert np.mean(entropy[-10:]) > np.mean(entropy[:10]) + 1


def test_sac_logged_entropy_is_that_of_the_observations_themselves():
    """Other next observations leave it as it is, other observations do not."""

    def entropy(**changes) -> float:
        agent = make_agent()
        torch.manual_seed(1)
        return agent.update(make_batch()._replace(**changes))["entropy"].item()

    other = 5 * make_batch(3).obs
    assert entropy(next_obs=other) == entropy() != entropy(obs=other)


@pytest.mark.parametrize(("target_entropy", "rises"), [(2.0, True), (-50.0, False)])  # at most 2 log 2
def test_sac_learned_temperature_moves_towards_the_target(target_entropy, rises):
    agent = make_agent(target_entropy=target_entropy)
    for i in range(5):
        metrics = agent.update(make_batch(i))
        assert (metrics["entropy"].item() < target_entropy) == rises
    assert (agent.log_alpha.item() > math.log(0.2)) == rises


def test_sac_logged_temperature_is_the_one_in_the_losses(monkeypatch):
    """In the first update the initial one, of target and actor alike; the one that it learns comes next."""
    targets, losses = spy(monkeypatch, "td_target"), spy(monkeypatch, "actor_loss")
    agent = make_agent(alpha=0.3, alpha_lr=0.1)
    for expected in (0.3, 0.3 * math.exp(-0.1)):  # a first step of Adam, from an entropy that is above its target
        assert agent.update(make_batch())["alpha"].item() == pytest.approx(expected, rel=1e-4)
        assert targets[-1][6].item() == losses[-1][3].item() == pytest.approx(expected, rel=1e-4)


def test_sac_temperature_is_learned_from_the_entropy_of_the_observations_and_the_target():
    """With log α = 1 its loss is how far the logged entropy is above the target of this update, 0.5 of 1 to 0."""
    moves = {"target_entropy": 1.0, "target_entropy_end": 0.0, "target_entropy_duration": 2}
    agent, batch = make_agent(alpha=math.e, alpha_lr=1e-9, **moves), make_batch()
    batch = batch._replace(next_obs=5 * batch.next_obs)
    for target in (1.0, 0.5, 0.0):
        losses = agent.update(batch)
        above = losses["entropy"].item() - target
        assert losses["alpha_loss"].item() == pytest.approx(above, abs=1e-5) and abs(above) > 0.1


def test_sac_fixed_temperature_stays():
    agent = make_agent(autotune=False, alpha=0.37)
    for i in range(5):
        metrics = agent.update(make_batch(i))
    assert metrics["alpha"].item() == pytest.approx(0.37) and "alpha_loss" not in metrics


def test_sac_target_entropy_defaults_to_minus_the_action_dimension():
    assert make_agent().update(make_batch())["target_entropy"].item() == -ACTION_DIM


@pytest.mark.parametrize("target_entropy", [None, 1.5, 0.0])
def test_sac_target_entropy_without_an_end_stays_where_it_is(target_entropy):
    agent = make_agent(target_entropy=target_entropy)
    seen = {agent.update(make_batch(i))["target_entropy"].item() for i in range(3)}
    assert seen == {-ACTION_DIM if target_entropy is None else target_entropy}


def test_sac_target_entropy_moves_linearly_and_stops():
    agent = make_agent(target_entropy=1.0, target_entropy_end=-3.0, target_entropy_duration=4)
    seen = [agent.update(make_batch())["target_entropy"].item() for _ in range(7)]
    assert seen == [1.0, 0.0, -1.0, -2.0, -3.0, -3.0, -3.0]


def test_sac_set_target_entropy_begins_a_stage_that_lasts():
    """From the next update on, also where the target was moving; loaded by an agent that was made without it."""
    agent = make_agent(target_entropy=1.0, target_entropy_end=-3.0, target_entropy_duration=4)
    agent.update(make_batch())
    agent.set_target_entropy(-6.0)  # below the entropy of these policies
    other = make_agent(seed=9)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    for each in (agent, other):
        before = each.log_alpha.item()
        assert [each.update(make_batch(i))["target_entropy"].item() for i in range(6)] == [-6.0] * 6
        assert each.log_alpha.item() < before
        each.set_target_entropy(6.0)  # above any
        before = each.log_alpha.item()
        for i in range(20):  # Adam's mean has to turn round
            assert each.update(make_batch(i))["target_entropy"].item() == 6.0
        assert each.log_alpha.item() > before


@every
def test_update_returns_detached_scalars_named_after_the_equations(module):
    metrics = make_agent(module, **NO_DELAY[module]).update(make_batch())
    names = {"critic_loss", "actor_loss", "q"}
    assert set(metrics) == names | ({"alpha_loss", "entropy", "alpha", "target_entropy"} if module is sac else set())
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


def test_log_std_is_bounded_and_never_loses_its_gradient():
    actor = sac.Actor(OBS_DIM, ACTION_DIM)
    bias = actor.net[-1].bias
    for value, bound in ((50.0, 2.0), (-50.0, -5.0)):
        bias.data[ACTION_DIM:] = value
        assert torch.allclose(actor(torch.zeros(1, OBS_DIM))[1], T(bound))
    bias.data[ACTION_DIM:] = 0.0
    assert torch.allclose(actor(torch.zeros(1, OBS_DIM))[1].exp(), T(0.9), atol=0.2), "starts with wide noise"
    bias.data[ACTION_DIM:] = 3.0  # a clamp at 2 would be stuck here
    actor(torch.zeros(1, OBS_DIM))[1].sum().backward()
    assert (bias.grad[ACTION_DIM:] > 0).all()


# ---- Acting ----
@every
def test_act_is_deterministic_without_exploration_and_draws_nothing(module):
    agent, obs = make_agent(module), np.ones(OBS_DIM)
    state = torch.get_rng_state()
    first, second = agent.act(obs, explore=False), agent.act(obs, explore=False)
    assert np.array_equal(first, second) and torch.equal(state, torch.get_rng_state())
    output = agent.actor(torch.ones(1, OBS_DIM))
    expected = output[0].tanh() if module is sac else output
    assert np.allclose(first, expected.detach().numpy()[0], atol=1e-6)


def test_act_explores_with_the_policy_of_the_actor():
    agent, obs = make_agent(), np.ones(OBS_DIM)
    agent.actor.net[-1].bias.data[ACTION_DIM:] = -1.0
    actions = np.stack([agent.act(obs, explore=True) for _ in range(2000)])
    mean, log_std = (value.detach().numpy()[0] for value in agent.actor(torch.ones(1, OBS_DIM)))
    u = np.arctanh(actions)
    assert np.allclose(u.mean(0), mean, atol=0.05) and np.allclose(u.std(0), np.exp(log_std), rtol=0.1)
    assert abs(np.corrcoef(u.T)[0, 1]) < 0.1
    assert actions.dtype == np.float32 and ACTION_SPACE.contains(actions[0])


@deterministic
def test_act_explores_with_gaussian_noise_that_is_clipped(module):
    agent, obs = make_agent(module, exploration_noise=0.3), np.ones(OBS_DIM)
    agent.actor.net[-1].bias.data[:] = T([0.0, 3.0])
    actions = np.stack([agent.act(obs, explore=True) for _ in range(4000)])
    mean = agent.act(obs, explore=False)
    assert mean[1] > 0.95 and actions.dtype == np.float32
    noise = actions[:, 0] - mean[0]
    assert abs(noise.mean()) < 0.02 and noise.std() == pytest.approx(0.3, abs=0.015)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.06, "each step has fresh noise"
    assert actions.max() == 1 and (actions[:, 1] == 1).mean() == pytest.approx(0.5, abs=0.15)


def test_ddpg_ornstein_uhlenbeck_noise_has_its_variance_and_memory():
    """x <- 0.85 x + 0.1 N(0, 1): stationary deviation 0.1 / sqrt(1 - 0.85²) = 0.190, correlation of neighbours 0.85."""
    agent, obs = make_agent(ddpg, exploration_noise=0.1, noise_process="ou"), np.ones(OBS_DIM)
    agent.actor.net[-1].weight.data.zero_()
    agent.actor.net[-1].bias.data.zero_()
    noise = np.stack([agent.act(obs, explore=True) for _ in range(20_000)])[100:]
    assert np.allclose(noise.std(0), 0.190, atol=0.015)
    assert np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1] == pytest.approx(0.85, abs=0.015)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.1


# ---- State ----
@every
def test_state_dict_restores_everything_that_update_changes(module):
    """Also TD3's place between two steps of the actor, and how far SAC's target entropy has moved."""
    changes = {"target_entropy": 1.0, "target_entropy_end": 0.0, "target_entropy_duration": 9} if module is sac else {}
    agent, other = make_agent(module, **changes), make_agent(module, seed=9, **changes)
    for i in range(3):
        agent.update(make_batch(i))
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    for both in (agent, other):
        torch.manual_seed(5)
        for i in range(3):
            metrics = both.update(make_batch(i + 3))
    assert same(agent.state_dict().values(), other.state_dict().values())
    if module is sac:
        assert metrics["target_entropy"].item() == pytest.approx(1 - 5 / 9)


def test_td3_last_loss_of_the_actor_comes_back():
    """It is what is logged until the actor moves again, here in the second update after it was loaded."""
    agent, other = make_agent(td3), make_agent(td3, seed=9)
    last = [agent.update(make_batch(i))["actor_loss"].item() for i in range(2)][-1]
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    assert other.update(make_batch(2))["actor_loss"].item() == last != 0


# ---- Nothing is read back from the device ----
class Forbid(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a tensor is read back to Python"
        return function(*args, **(kwargs or {}))


@every
def test_update_and_sample_read_nothing_back(module):
    agent = make_agent(module, **NO_DELAY[module])
    buffer = module.ReplayBuffer(OBS_DIM, ACTION_DIM, 10, torch.device("cpu"))
    for i in range(12):
        buffer.add(np.full(OBS_DIM, i), np.zeros(ACTION_DIM), 0.0, np.zeros(OBS_DIM), False)
    with Forbid():
        agent.update(buffer.sample(8))


@every
def test_update_keeps_every_tensor_on_the_device(module, monkeypatch):
    """The whole update on the device "meta": a tensor left on the CPU, or read back, raises."""
    monkeypatch.setattr(module, "pick_device", lambda args: torch.device("meta"))
    agent = make_agent(module, **NO_DELAY[module])
    buffer = module.ReplayBuffer(OBS_DIM, ACTION_DIM, 10, torch.device("meta"))
    buffer.add(np.zeros(OBS_DIM), np.zeros(ACTION_DIM), 0.0, np.zeros(OBS_DIM), False)
    metrics = agent.update(buffer.sample(8))
    assert {value.device.type for value in metrics.values()} == {"meta"}


# ---- Replay buffer ----
def test_buffer_keeps_the_last_transitions_whole():
    buffer = sac.ReplayBuffer(1, 1, 5, torch.device("cpu"))
    for i in range(13):
        buffer.add(np.array([i]), np.array([i + 0.1]), i + 0.2, np.array([i + 0.3]), i % 2 == 0)
    batch = buffer.sample(400)
    kept = batch.obs[:, 0].unique().tolist()
    assert kept == [8, 9, 10, 11, 12]
    for value, offset in ((batch.action[:, 0], 0.1), (batch.reward, 0.2), (batch.next_obs[:, 0], 0.3)):
        assert torch.allclose(value, batch.obs[:, 0] + offset)
    assert torch.equal(batch.terminated, (batch.obs[:, 0] % 2 == 0).float())
    assert {value.dtype for value in batch} == {torch.float32}


@pytest.mark.parametrize("num_added", [1, 3, 8])
def test_buffer_samples_only_what_was_added_uniformly(num_added):
    torch.manual_seed(0)
    buffer = sac.ReplayBuffer(1, 1, 8, torch.device("cpu"))
    for i in range(num_added):
        buffer.add(np.array([i]), np.zeros(1), 0.0, np.zeros(1), False)
    counts = torch.bincount(buffer.sample(8000).obs[:, 0].long(), minlength=num_added).double()
    assert len(counts) == num_added
    expected = 8000 / num_added
    assert ((counts - expected) ** 2 / expected).sum() < 30  # chi-square with at most 7 degrees: p < 1e-4


def test_buffer_state_is_cut_to_what_is_filled_and_comes_back():
    buffer = sac.ReplayBuffer(1, 1, 1000, torch.device("cpu"))
    for i in range(7):
        buffer.add(np.array([i]), np.zeros(1), 0.0, np.zeros(1), False)
    state = buffer.state_dict()
    assert state["rows"].untyped_storage().nbytes() == 7 * 5 * 4
    other = sac.ReplayBuffer(1, 1, 1000, torch.device("cpu"))
    other.load_state_dict(state)
    for both in (buffer, other):
        both.add(np.array([7]), np.zeros(1), 0.0, np.zeros(1), False)
        torch.manual_seed(0)
        assert both.sample(500).obs.unique().tolist() == list(range(8))


def test_full_buffer_that_comes_back_goes_on_over_the_oldest():
    """Of five places two hold the sixth and seventh transition already: the eighth takes that of the third."""
    buffer, other = (sac.ReplayBuffer(1, 1, 5, torch.device("cpu")) for _ in range(2))
    for i in range(7):
        buffer.add(np.array([i]), np.zeros(1), 0.0, np.zeros(1), False)
    other.load_state_dict(buffer.state_dict())
    assert other.num_added == 7
    other.add(np.array([7]), np.zeros(1), 0.0, np.zeros(1), False)
    assert other.sample(500).obs.unique().tolist() == [3, 4, 5, 6, 7]


def test_buffer_for_humanoid_fits_in_2_9_gb(capsys):
    env = gym.make("Humanoid-v5")
    dims = env.observation_space.shape[0], env.action_space.shape[0]
    buffer = sac.ReplayBuffer(*dims, 1_000_000, torch.device("cpu"))  # memory that is not touched costs nothing
    assert buffer.rows.untyped_storage().nbytes() < 2.9e9
    assert "2.86 GB" in capsys.readouterr().out


def test_buffer_that_does_not_fit_is_refused_before_it_is_allocated(capsys):
    with pytest.raises(MemoryError, match="--buffer-size 1000000000000 takes"):
        sac.ReplayBuffer(10, 2, 10**12, torch.device("cpu"))
    assert "GB" in capsys.readouterr().out


# ---- compile and capture: the same mathematics ----
def trained(agent, learn, num_updates=50):
    torch.manual_seed(3)
    for _ in range(num_updates):
        learn()
    return parameters(agent)


def filled_buffer(device):
    buffer = sac.ReplayBuffer(OBS_DIM, ACTION_DIM, 200, torch.device(device))
    batch = make_batch(size=200)
    for obs, action, reward, next_obs, terminated in zip(*(value.numpy() for value in batch), strict=True):
        buffer.add(obs, action, reward, next_obs, terminated)
    return buffer


class Owner(nn.Module):
    """What an optimizer needs of an agent: a device, and parameters under a name."""

    def __init__(self, part):
        super().__init__()
        self.part, self.device = part, torch.device("cpu")


def adam_and_reference(module, *start, **options):
    """One optimizer and torch's, for two lists of parameters with the same values."""
    ours, theirs = (nn.ParameterList([nn.Parameter(value.clone()) for value in start]) for _ in range(2))
    return module.Adam(Owner(ours), "part", 0.01, **options), torch.optim.Adam(theirs, 0.01, **options), ours, theirs


@pytest.mark.parametrize("compile", [False, True])
def test_adam_is_adam(compile):
    """Fifty steps on one loss, with gradients of very different sizes, beside torch.optim.Adam."""
    start = T([1.0, -2.0, 3.0]), T([[0.5]])
    optimizer, reference, ours, theirs = adam_and_reference(sac, *start)

    def loss(x, y):
        return (x.square() * T([1.0, 1e-4, 100.0])).sum() * y.square().sum()

    def step(_):
        value = loss(*ours)
        optimizer.minimize(value)
        return {"loss": value.detach()}

    step = sac.speed_up(step, sac.Args(compile=compile))
    for _ in range(50):
        found = step(())
        reference.zero_grad()
        expected = loss(*theirs)
        expected.backward()
        reference.step()
        assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-4), "of before the step"
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-6) and not torch.allclose(a, start[0][:1], atol=0.1)


def test_adam_s_epsilon_is_that_of_the_paper():
    """A first step along a gradient of 1e-8 is half of the step size, by g / (|g| + 1e-8); PPO asks for another."""
    for options, share in (({}, 0.5), ({"eps": 1e-5}, 1e-3)):
        owner = Owner(nn.Parameter(torch.zeros(1)))
        sac.Adam(owner, "part", 0.01, **options).minimize((1e-8 * owner.part).sum())
        assert owner.part.item() == pytest.approx(-0.01 * share, rel=0.01)


def test_device_is_the_gpu_where_there_is_one_and_it_is_wanted(monkeypatch):
    for available, cuda, expected in ((True, True, "cuda"), (True, False, "cpu"), (False, True, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert sac.pick_device(sac.Args(cuda=cuda)).type == expected


@every
def test_adam_takes_gradients_of_any_layout(module):
    """The gradient of a transposed parameter comes with strides that the fused kernel does not look at."""
    optimizer, reference, [ours], [theirs] = adam_and_reference(module, torch.zeros(2, 3))
    weight = T([[1.0, -100.0], [1e-3, 2.0], [-3.0, 0.0]])
    optimizer.minimize((ours.t() * weight).sum())
    (theirs.t() * weight).sum().backward()
    reference.step()
    assert torch.allclose(ours, theirs, atol=1e-7)


@every
def test_adam_steps_what_has_the_name_now(module):
    """A module or a parameter; the moments stay where load_state_dict(assign=True) puts another in its place."""
    owner = Owner(nn.Parameter(T([1.0])))
    optimizer, first = module.Adam(owner, "part", 0.01), owner.part
    optimizer.minimize(owner.part.sum())
    assert first.item() == pytest.approx(0.99) and optimizer.num_steps == 1
    owner.load_state_dict({"part": T([5.0])}, assign=True)
    optimizer.minimize(
        owner.part.sum() * 1e-9
    )  # of gradients 1 and 0: 0.01 * (0.09 / 0.19) / (0.000999 / 0.001999)^0.5
    assert owner.part is not first and first.item() == pytest.approx(0.99)
    assert owner.part.item() == pytest.approx(5 - 0.0067, abs=1e-4)
    state = dict(optimizer.named_buffers())
    assert set(state) == {"lr", "num_steps", "mean0", "square0"} and set(optimizer.state_dict()) == set(state)
    assert owner.state_dict().keys() == {"part"}, "an optimizer owns no parameters"


@every
def test_compiled_update_learns_the_same(module, monkeypatch, capsys):
    """TD3's actor moves in every tenth update: its counter must not make a graph for each value.

    On any machine DDPG's products are PyTorch's and the others' are oneDNN's: one is what most machines compile.
    """
    monkeypatch.setattr(module, "has_fast_onednn", module is not ddpg)
    changes = {"policy_delay": 10} if module is td3 else {}
    agents = make_agent(module, **changes), make_agent(module, compile=True, **changes)
    buffer, logged = filled_buffer("cpu"), []
    compiled = module.speed_up(agents[1].update, agents[1].args)
    eager = trained(agents[0], lambda: logged.append(agents[0].update(buffer.sample(32))))
    for a, b in zip(eager, trained(agents[1], lambda: logged.append(compiled(buffer.sample(32)))), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    for name, value in logged[1].items():  # of before a step, not of after it
        assert value.item() == pytest.approx(logged[51][name].item(), rel=1e-4, abs=1e-5), name
    agents[1].load_state_dict(copy.deepcopy(agents[0].state_dict()), assign=True)  # it has to forget the old ones
    eager = trained(agents[0], lambda: agents[0].update(buffer.sample(32)), 10)
    for a, b in zip(eager, trained(agents[1], lambda: compiled(buffer.sample(32)), 10), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert "going on without" not in capsys.readouterr().out


@pytest.mark.cuda
@pytest.mark.parametrize("compile", [False, True])
@every
def test_captured_update_learns_the_same(module, compile, capsys):
    torch.manual_seed(0)
    agents = [module.Agent(OBS_SPACE, ACTION_SPACE, module.Args()) for _ in range(2)]
    agents[1].load_state_dict(copy.deepcopy(agents[0].state_dict()))
    start, buffer = parameters(agents[0]), filled_buffer("cuda")
    captured = module.speed_up(agents[1].update, module.Args(compile=compile, cudagraphs=True))
    eager = trained(agents[0], lambda: agents[0].update(buffer.sample(32)))
    assert apart(start, eager, trained(agents[1], lambda: captured(buffer.sample(32)))) < 0.02
    assert "going on without" not in capsys.readouterr().out


@every
@pytest.mark.parametrize("cause", ["graph break", "disk"])
def test_a_compiler_that_fails_is_asked_once(module, monkeypatch, capsys, cause):
    """Each batch is learned from nevertheless, by the plain update, and it is said once."""
    error = OSError(30, "read-only") if cause == "disk" else torch._dynamo.exc.Unsupported("a graph break")
    batches, asked = [], []

    def fails(batch):
        asked.append(batch)
        raise error

    monkeypatch.setattr(torch, "compile", lambda update, **how: fails)
    update = module.speed_up(lambda batch: batches.append(batch) or {}, module.Args(cuda=False, compile=True))
    for batch in range(3):
        assert update(batch) == {}
    assert (asked, batches) == ([0], [0, 1, 2])
    assert capsys.readouterr().out.count("going on without --compile") == 1


@every
def test_error_of_a_compiled_update_is_not_taken_for_one_of_the_compiler(module, monkeypatch):
    """A lack of memory, say: the update was begun, and must not be made a second time without the compiler."""
    calls = []

    def fails(batch):
        calls.append(batch)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "compile", lambda update, **how: fails)
    update = module.speed_up(lambda batch: pytest.fail("made a second time"), module.Args(cuda=False, compile=True))
    with pytest.raises(RuntimeError, match="out of memory"):
        update(make_batch())
    assert len(calls) == 1
