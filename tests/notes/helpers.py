"""Agents, batches and distributions that the tests of several topics use."""

import math

import gymnasium as gym
import numpy as np
import torch

import ddpg
import ddqn
import dqn
import ppo_continuous
import ppo_discrete
import sac_continuous
import td3

T = torch.tensor
PPO = [ppo_discrete, ppo_continuous]
OFF_POLICY = [dqn, ddqn, ddpg, td3]
NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), 1.4189


# ---- Agents and batches ----
def make_agent(module, num_actions=3, **arguments):
    """An agent on the CPU for observations of 4 numbers and for actions 0, 1, ... or of so many dimensions."""
    torch.manual_seed(0)
    obs_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    box = gym.spaces.Box(-1.0, 1.0, (num_actions,), np.float32)
    space = gym.spaces.Discrete(num_actions) if module is ppo_discrete else box
    space.seed(0)
    return module.Agent(obs_space, space, module.Args(cuda=False, **arguments))


def sac_batch(num_actions=3, size=8):
    """Transitions drawn from N(0, 1), none of them at an end of the task."""
    obs, next_obs = torch.randn(2, size, 4)
    action = torch.randn(size, num_actions).tanh()
    return sac_continuous.Batch(obs, action, torch.randn(size), next_obs, torch.zeros(size))


def ppo_step(agent, advantage, num_samples=8, actions=None):
    """One step of a PPO agent on its own actions, with these advantages and with targets that are the values."""
    obs = torch.randn(num_samples, 4, generator=torch.Generator().manual_seed(1))
    action = torch.as_tensor(agent.act(obs.numpy(), explore=True)) if actions is None else actions
    with torch.no_grad():
        log_prob, _, value = agent.evaluate_actions(obs, action)
    return agent.update_minibatch(ppo_discrete.Minibatch(obs, action, log_prob, advantage, value))


def make(module, **arguments):
    """An agent for observations [4] and three actions (DQN) or actions [2] in [-1, 1]; the same in each call."""
    torch.manual_seed(0)
    action_space = gym.spaces.Discrete(3) if module in (dqn, ddqn) else gym.spaces.Box(-1, 1, (2,))
    action_space.seed(0)
    return module.Agent(gym.spaces.Box(-np.inf, np.inf, (4,)), action_space, module.Args(cuda=False, **arguments))


def transitions(module, size=16, **changes):
    """A batch of random transitions for `make`, none of which ends; the same in each call."""
    generator = torch.Generator().manual_seed(1)
    obs, next_obs = torch.randn(2, size, 4, generator=generator)
    action = torch.rand(size, 2, generator=generator) * 2 - 1
    if module in (dqn, ddqn):
        action = torch.randint(3, (size, 1), generator=generator).float()
    batch = module.Batch(obs, action, torch.randn(size, generator=generator), next_obs, torch.zeros(size))
    return batch._replace(**changes)


def sac_agent(action_dim=1, mean=None, log_std=None, q=None, q_target=None, **arguments):
    """A SAC agent for 3 observations; what is given of mean, log_std, q, q_target is the same at every observation.

    log_std: -1.5, the middle of its range, is the one value that the bound leaves exactly as it is.
    """
    torch.manual_seed(0)
    spaces = gym.spaces.Box(-np.inf, np.inf, (3,)), gym.spaces.Box(-1, 1, (action_dim,))
    agent = sac_continuous.Agent(*spaces, sac_continuous.Args(cuda=False, **arguments))
    if mean is not None:
        agent.actor.net[-1].weight.data.zero_()
        agent.actor.net[-1].bias.data = T([mean, log_std], dtype=torch.float32).repeat_interleave(action_dim)
    for twins, values in ((agent.critics, q), (agent.critics_target, q_target)):
        for critic, value in zip(twins, values or (), strict=values is not None):
            critic.net[-1].weight.data.zero_()
            critic.net[-1].bias.data.fill_(value)
    return agent


def sac_transitions(size=32, action_dim=1, reward=0.0, terminated=0.0):
    """Random observations and actions, equal rewards."""
    generator = torch.Generator().manual_seed(0)
    obs, next_obs = torch.randn(2, size, 3, generator=generator)
    action = torch.rand(size, action_dim, generator=generator) * 2 - 1
    return sac_continuous.Batch(obs, action, torch.full((size,), reward), next_obs, torch.full((size,), terminated))


def adam(module, parameter, lr):
    """The script's Adam for this parameter."""
    owner = torch.nn.Module()
    owner.device, owner.parameter = parameter.device, parameter
    return module.Adam(owner, "parameter", lr)


def peaked(agent):
    """The same agent with logits that are far from equal, so that the entropy can move both ways."""
    with torch.no_grad():
        agent.network.actor[-1].weight.mul_(100)
    return agent


def outputs(layer, values):
    """Makes `values` the outputs of a network, whatever its input: of its last layer only the bias remains."""
    layer.weight.data.zero_()
    layer.bias.data.copy_(T(values))


def fill(module, value):
    """Gives every parameter the same value."""
    for parameter in module.parameters():
        parameter.data.fill_(value)


def spy(monkeypatch, module, name):
    """A list that gets (arguments, result) of each call of an equation of `module`."""
    calls, true = [], getattr(module, name)

    def wrapper(*args):
        calls.append((args, true(*args)))
        return calls[-1][1]

    monkeypatch.setattr(module, name, wrapper)
    return calls


# ---- Temperatures ----
def slope(loss, at):
    """The derivative of loss(x) at the number x = at, by autograd."""
    x = T(float(at), requires_grad=True)
    return torch.autograd.grad(loss(x), [x])[0].item()


def gaussian_entropy(alpha):
    """H of the Gaussian that maximises E[-|a|² / 2] + alpha H in three dimensions: its variance is alpha in each."""
    return 1.5 * math.log(2 * math.pi * math.e * alpha)


def closed_loop(loss, alpha=0.2, best_entropy=gaussian_entropy):
    """alpha and H after 150 steps down loss(log alpha, H), in each of which the policy is the best for that alpha."""
    log_alpha = math.log(alpha)
    for _ in range(150):
        entropy = T(best_entropy(math.exp(log_alpha)))
        log_alpha -= 0.1 * max(-1.0, min(1.0, slope(lambda x, h=entropy: loss(x, h), log_alpha)))
    return math.exp(log_alpha), best_entropy(math.exp(log_alpha))


def temperature_losses(target):
    """Our losses of log alpha as functions of (log alpha, H), for a target entropy: SAC's and PPO's."""
    sac = lambda log_alpha, entropy: sac_continuous.alpha_loss(log_alpha, -entropy.expand(4), T(target))  # noqa: E731
    return [sac, *(lambda c, entropy, m=m: m.ent_coef_loss(c, entropy, T(target)) for m in PPO)]


def notes_temperature_loss(target):
    """Note 001's loss of log alpha, with + target."""
    return lambda log_alpha, entropy: -(log_alpha * (entropy + target))


# ---- Distributions ----
def gaussian_grid():
    """Points of a standard normal variable and their probabilities, in double precision."""
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    return x, (-x.square() / 2).exp() / (-x.square() / 2).exp().sum()


def normal_noise(size):
    """[size, 1]: the middles of `size` equally likely slices of N(0, 1): a mean over them is an expectation."""
    return torch.distributions.Normal(0, 1).icdf((torch.arange(size).double() + 0.5) / size)[:, None]


def discrete_actor_loss(policy, q, alpha):
    """Our actor_loss expected over finitely many actions; one of probability 0 is never drawn."""
    policy, q, alpha = (torch.as_tensor(x, dtype=torch.float64) for x in (policy, q, alpha))
    return sum(p * sac_continuous.actor_loss(p.log(), x, x, alpha) for p, x in zip(policy, q, strict=True) if p > 0)


def best_policy(q, alpha):
    """The probabilities at which our actor_loss is least, by exponentiated gradient descent from the uniform policy."""
    log_policy = torch.full((len(q),), -math.log(len(q)), dtype=torch.float64)
    for _ in range(60):
        policy = log_policy.exp().requires_grad_()
        log_policy -= 0.5 / alpha * torch.autograd.grad(discrete_actor_loss(policy, q, alpha), policy)[0]
        log_policy -= log_policy.logsumexp(0)
    return log_policy.exp()


def squashed_log_prob(u, mean, std):
    """log density at tanh u of a squashed Gaussian, by our squash. u: [B, 1]; returns [B]."""
    mean, std = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, std))
    return sac_continuous.squash(mean, std.log(), (u - mean) / std)[1]


def two_peaks(u):
    """log density at tanh u of an even mixture of squashed Gaussians at -3 and 3, both with std 0.5."""
    return torch.stack([squashed_log_prob(u, mean, 0.5) for mean in (-3.0, 3.0)]).logsumexp(0) - math.log(2)
