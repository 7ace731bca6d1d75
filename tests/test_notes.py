"""One test for each claim of the study notes that can be tested, named after its row in benchmark/claims.

Each shows the notes' form by a number, and what holds on the scripts' own functions: with the notes' form in a script
its test fails, where that form changes any number (not E003-28, E003-49). Expected numbers come from elsewhere:
by hand, by brute force, by quadrature, from torch.distributions.
"""

import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import ddpg
import ddqn
import dqn
import ppo_continuous
import ppo_discrete
import sac_continuous
import td3

T = torch.tensor


# ---- Helpers: notes 000 to 002 ----
PPO = [ppo_discrete, ppo_continuous]
NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), 1.4189


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


def adam(module, parameter, lr):
    """The script's Adam for this parameter."""
    owner = torch.nn.Module()
    owner.device, owner.parameter = parameter.device, parameter
    return module.Adam(owner, "parameter", lr)


def mean_entropy(agent):
    """Of a PPO agent's policy at some observations, by torch.distributions."""
    obs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    if isinstance(agent, ppo_discrete.Agent):
        return torch.distributions.Categorical(logits=agent.network.policy(obs)).entropy().mean().item()
    mean, log_std = agent.network.policy(obs)
    return torch.distributions.Normal(mean, log_std.expand_as(mean).exp()).entropy().sum(-1).mean().item()


def peaked(agent):
    """The same agent with logits that are far from equal, so that the entropy can move both ways."""
    with torch.no_grad():
        agent.network.actor[-1].weight.mul_(100)
    return agent


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


# ---- Helpers: note 003, first part ----
OFF_POLICY = [dqn, ddqn, ddpg, td3]


class Clock(gym.Env):
    """obs = [episode, step]; episodes of 3, 7, 5 steps end by termination, time limit, both; counts steps past ends."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    lengths = (3, 7, 5)

    def __init__(self, discrete, render_mode=None):
        box = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([2, 5], np.float32))
        self.action_space = gym.spaces.Discrete(2) if discrete else box
        self.episode, self.num_illegal, self.executed = -1, 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time, self.ended = self.episode + 1, 0, False
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        self.num_illegal += self.ended
        self.executed.append(action)
        self.time += 1
        kind, self.ended = self.episode % 3, self.ended or self.time == self.lengths[self.episode % 3]
        obs = np.array([self.episode, self.time], np.float32)
        return obs, 1.0, self.ended and kind != 1, self.ended and kind != 0, {}


for name, discrete in (("DiscreteClock-v0", True), ("BoxClock-v0", False)):
    gym.register(name, Clock, kwargs={"discrete": discrete}, disable_env_checker=True)


class Log:
    """What a short run of train on Clock did."""

    def __init__(self, module, **arguments):
        self.added, self.updates, self.moved, self.copies, self.acts = [], [], [], [], []
        make_env, add, act = module.make_env, module.ReplayBuffer.add, module.Agent.act
        update, update_target = module.Agent.update, getattr(module.Agent, "update_target", None)

        def logged_make_env(*args, **kwargs):
            self.env = make_env(*args, **kwargs)
            return self.env

        def logged_add(buffer, *transition):
            self.added.append([np.array(value) for value in transition])
            add(buffer, *transition)

        def logged_act(agent, obs, explore):
            before = agent.noise.clone() if module is ddpg else getattr(agent, "epsilon", None)
            self.acts.append((obs[1], before))
            return act(agent, obs, explore)

        def logged_update(agent, batch):
            self.updates.append(len(self.added))
            before = [each.detach().clone() for each in agent.parameters()]
            metrics = update(agent, batch)
            names = [name for name, _ in agent.named_parameters()]
            changed = [not torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True)]
            self.moved.append({name.split(".")[0] for name, each in zip(names, changed, strict=True) if each})
            return metrics

        def logged_update_target(agent):
            self.copies.append(len(self.added))
            update_target(agent)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "make_env", logged_make_env)
            patch.setattr(module.ReplayBuffer, "add", logged_add)
            patch.setattr(module.Agent, "act", logged_act)
            patch.setattr(module.Agent, "update", logged_update)
            patch.setattr(module.Agent, "update_target", logged_update_target, raising=False)
            module.train(module.Args(cuda=False, compile=False, eval_interval=0, checkpoint_interval=0, **arguments))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """90 steps of each script, 40 of them before learning; DQN copies every 12, TD3's actor moves every 10 updates."""
    arguments = {"total_timesteps": 90, "learning_starts": 40, "batch_size": 8, "log_interval": 100}
    arguments["out_dir"] = str(tmp_path_factory.mktemp("runs"))
    discrete = {"train_interval": 5, "target_update_interval": 12, "epsilon_schedule": "exponential"}
    discrete |= {"env_id": "DiscreteClock-v0", "epsilon_decay": 0.9}
    noisy = {"env_id": "BoxClock-v0", "exploration_noise": 1.0}
    own = {dqn: discrete, ddqn: discrete, ddpg: noisy | {"noise_process": "ou"}, td3: noisy | {"policy_delay": 10}}
    return {module: Log(module, **arguments, **own[module]) for module in OFF_POLICY}


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


def spy(monkeypatch, module, name):
    """A list that gets (arguments, result) of each call of an equation of `module`."""
    calls, true = [], getattr(module, name)

    def wrapper(*args):
        calls.append((args, true(*args)))
        return calls[-1][1]

    monkeypatch.setattr(module, name, wrapper)
    return calls


def outputs(layer, values):
    """Makes `values` the outputs of a network, whatever its input: of its last layer only the bias remains."""
    layer.weight.data.zero_()
    layer.bias.data.copy_(T(values))


def fill(module, value):
    """Gives every parameter the same value."""
    for parameter in module.parameters():
        parameter.data.fill_(value)


def gaussian_grid():
    """Points of a standard normal variable and their probabilities, in double precision."""
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    return x, (-x.square() / 2).exp() / (-x.square() / 2).exp().sum()


def smoothed_value(q, action, noise, weight, clip):
    """E[q(a')] with our target action, for noise on a grid with its probabilities."""
    smoothed = td3.smooth_target_action(T(action, dtype=torch.float64), noise, clip)
    return (weight * q(smoothed)).sum().item()


# ---- Helpers: note 003, second part, and 004 ----
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


def normal_noise(size):
    """[size, 1]: the middles of `size` equally likely slices of N(0, 1): a mean over them is an expectation."""
    return torch.distributions.Normal(0, 1).icdf((torch.arange(size).double() + 0.5) / size)[:, None]


def discrete_actor_loss(policy, q, alpha):
    """Our actor_loss expected over finitely many actions; one of probability 0 is never drawn."""
    policy, q, alpha = (torch.as_tensor(x, dtype=torch.float64) for x in (policy, q, alpha))
    return sum(p * sac_continuous.actor_loss(p.log(), x, x, alpha) for p, x in zip(policy, q, strict=True) if p > 0)


def discrete_kl(p, q):
    """KL(p || q) by our actor_loss: the temperature is 1 and the value log q, so that Z = 1."""
    return discrete_actor_loss(p, T(q, dtype=torch.float64).log(), 1.0).item()


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


def squashed_kl(p, q, noise):
    """KL(p || q) of squashed Gaussians (mean, std) by our squash and actor_loss; tanh does not change a KL."""
    u = p[0] + p[1] * noise
    log_p, log_q = squashed_log_prob(u, *p), squashed_log_prob(u, *q)
    return sac_continuous.actor_loss(log_p, log_q, log_q, T(1.0))


def two_peaks(u):
    """log density at tanh u of an even mixture of squashed Gaussians at -3 and 3, both with std 0.5."""
    return torch.stack([squashed_log_prob(u, mean, 0.5) for mean in (-3.0, 3.0)]).logsumexp(0) - math.log(2)


# ---- Note 000: entropy in PPO ----
@pytest.mark.parametrize("module", PPO)
def test_E000_7(module):
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


@pytest.mark.parametrize("module", PPO)
def test_R000_1(module):
    """One unit more of policy loss, value loss or entropy changes the loss by 1, c1 and -c2."""
    inputs = [T(x, requires_grad=True) for x in (3.0, 4.0, 2.0)]
    loss = module.total_loss(*inputs, 0.7, T(0.3))
    assert [x.item() for x in torch.autograd.grad(loss, inputs)] == pytest.approx([1.0, 0.7, -0.3])


def test_R000_6():
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


def test_R000_2():
    """Our H is the mean of our -log π: by quadrature over a Gaussian's actions, by adding up over discrete ones."""
    x = torch.linspace(-9, 11, 20_001, dtype=torch.float64)[:, None]
    mean, log_std = T([[1.0]]).double(), T([-0.4]).double()
    log_prob, entropy = ppo_continuous.gaussian(mean, log_std, x)
    assert torch.trapezoid(log_prob.exp() * -log_prob, x[:, 0]).item() == pytest.approx(entropy.item(), abs=1e-8)
    logits = T([[2.0, 0.0, -1.0, 0.5]]).double().expand(4, 4)
    log_prob, entropy = ppo_discrete.categorical(logits, torch.arange(4))
    assert (log_prob.exp() * -log_prob).sum().item() == pytest.approx(entropy[0].item(), abs=1e-8)


def test_R000_8():
    """log σ is a parameter, the same in all states, or an output of the network, which is not."""
    obs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    agent = make_agent(ppo_continuous)
    parameter, (_, log_std) = agent.network.log_std, agent.network.policy(obs)
    assert parameter.shape == (3,) and any(parameter is each for each in agent.optimizer.owned())
    assert torch.equal(log_std.expand(5, 3), parameter.expand(5, 3))
    _, log_std = make_agent(ppo_continuous, std="head").network.policy(obs)
    assert log_std.shape == (5, 3) and (log_std.std(0) > 0).all()


def test_R000_3():
    """σ = 0.7 has ln 0.7 + 1.4189 = 1.0623 nats around each mean, by quadrature too; no gradient reaches μ."""
    for mean in (0.0, 5.0, -100.0):
        mu = T([[mean]], dtype=torch.float64, requires_grad=True)
        _, entropy = ppo_continuous.gaussian(mu, T([0.7]).double().log(), mu.detach())
        assert entropy.item() == pytest.approx(1.062264, abs=1e-6) and not entropy.requires_grad
        x = torch.linspace(mean - 8, mean + 8, 20_001, dtype=torch.float64)
        density = torch.exp(-((x - mean) ** 2) / 0.98) / math.sqrt(math.pi * 0.98)  # 2σ² = 0.98
        assert torch.trapezoid(torch.special.entr(density), x).item() == pytest.approx(entropy.item(), abs=1e-6)


def test_E000_6():
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


def test_R000_4():
    """Twelve joints with σ = 1 have 12 * 1.4189 = 17.027 nats; one number for each sample."""
    torch.manual_seed(0)
    mean, log_std = torch.randn(2, 4, 12)
    _, entropy = ppo_continuous.gaussian(mean, torch.zeros(4, 12), mean)
    assert entropy.tolist() == pytest.approx([17.0273] * 4, abs=1e-4)
    _, entropy = ppo_continuous.gaussian(mean, log_std, mean)
    normal = torch.distributions.Normal(mean, log_std.exp())
    assert normal.entropy().shape == (4, 12)
    assert torch.allclose(entropy, torch.distributions.Independent(normal, 1).entropy(), atol=1e-5)


def test_E000_5():
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


def test_R000_5():
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


def test_R000_9():
    """Actions at 0.5 σ and 2 σ: σ shrinks if the near one is better, and grows, by as much, if the far one is."""
    mean, action = torch.zeros(2, 1), T([[0.5], [2.0]])

    def surrogate(log_std, advantage):
        log_prob, _ = ppo_continuous.gaussian(mean, log_std.expand(1), action)
        return ppo_continuous.policy_loss(log_prob, log_prob.detach(), T(advantage), 0.2)

    assert slope(lambda x: surrogate(x, [1.0, -1.0]), 0.0) == pytest.approx(1.875)
    assert slope(lambda x: surrogate(x, [-1.0, 1.0]), 0.0) == pytest.approx(-1.875)


def test_E000_4():
    """p = 0.33 three times sums to 0.99 and gives 1.0976; the flat distribution has 1.0986; both round to 1.10."""
    assert -3 * 0.33 * math.log(0.33) == pytest.approx(1.0976, abs=1e-4)
    _, entropy = ppo_discrete.categorical(T([[0.33] * 3]).log(), T([0]))
    assert entropy.item() == pytest.approx(1.0986, abs=1e-4) and round(entropy.item(), 2) == 1.1


def test_E000_3():
    """0.0530 is what the two rare actions contribute; with the frequent one's 0.0099 it is 0.0629."""
    rare = -2 * 0.005 * math.log(0.005)
    assert rare == pytest.approx(0.0530, abs=1e-4) and round(rare, 2) == 0.05
    _, entropy = ppo_discrete.categorical(T([[0.99, 0.005, 0.005]]).log(), T([0]))
    assert entropy.item() == pytest.approx(0.062933, abs=1e-6)


def test_R000_7():
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


def test_E000_1():
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


def test_E000_1b():
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


def test_E000_2():
    """The bonus never makes σ smaller: its slope along log σ is -c at e^-3, 1 and e^3, in each dimension."""
    zero = torch.zeros(1, 3)
    for start in (-3.0, 0.0, 3.0):
        log_std = torch.full((3,), start, requires_grad=True)
        _, entropy = ppo_continuous.gaussian(zero, log_std, zero)
        ppo_continuous.total_loss(T(0.0), T(0.0), entropy.mean(), 0.5, T(0.2)).backward()
        assert log_std.grad.tolist() == pytest.approx([-0.2] * 3)


def test_E000_8():
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


# ---- Note 001: adaptive temperature ----
def test_R001_5():
    """In a closed loop with the best policy for each alpha, the entropy ends at its target of -3."""
    for loss in temperature_losses(-3.0):
        alpha, entropy = closed_loop(loss)
        assert entropy == pytest.approx(-3.0, abs=1e-3) and alpha == pytest.approx(0.0079239, rel=1e-3)


@pytest.mark.parametrize("module", PPO)
def test_R001_6(module):
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


def test_E001_16():
    """Where all four actions pay the same, H is ln 4 for any alpha and stays above its target: alpha goes to 0."""
    _, entropy = ppo_discrete.categorical(torch.zeros(1, 4), T([0]))
    for loss in temperature_losses(0.5):
        alpha, _ = closed_loop(loss, best_entropy=lambda alpha: entropy.item())
        assert alpha < 1e-4
    assert entropy.item() == pytest.approx(1.386294)


def test_E001_8():
    """While H falls from its target of -3 to -8, alpha rises in every step; it does not fall with it."""
    for loss in temperature_losses(-3.0):
        values = [math.log(0.2)]
        for entropy in torch.linspace(-3.05, -8, 100):
            values.append(values[-1] - 0.01 * slope(lambda x, loss=loss, h=entropy: loss(x, h), values[-1]))
        assert all(b > a for a, b in itertools.pairwise(values)) and values[-1] > 0


def test_R001_8():
    """A target that goes from -1 to -3 within two updates or 100 steps, and stays; for softmax in shares of ln n."""
    agent = make_agent(sac_continuous, target_entropy=-1.0, target_entropy_end=-3.0, target_entropy_duration=2)
    targets = [agent.update(sac_batch())["target_entropy"].item() for _ in range(4)]
    assert targets == pytest.approx([-1.0, -2.0, -3.0, -3.0])
    for module, ends, expected in (
        (ppo_continuous, (-1.0, -3.0), [-1.0, -2.0, -3.0, -3.0]),
        (ppo_discrete, (0.9, 0.1), [0.988751, 0.549306, 0.109861, 0.109861]),
    ):
        moves = dict(zip(("target_entropy", "target_entropy_end"), ends, strict=True))
        agent = make_agent(module, ent_autotune=True, ent_coef=0.1, target_entropy_duration=100, **moves)
        targets = []
        for step in (0, 50, 100, 500):
            agent.anneal(step)
            targets.append(agent.target_entropy.item())
        assert targets == pytest.approx(expected, abs=1e-5)
    lower, higher = (closed_loop(temperature_losses(target)[0])[0] for target in (-3.0, -2.0))
    assert math.log(higher / lower) == pytest.approx(2 / 3, rel=1e-3)


@pytest.mark.parametrize("module", [*PPO, sac_continuous])
def test_R001_9(module):
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


def test_E001_15():
    """A step of Adam moves log alpha by its step size: 0.001 of the notes' class, 0.0001 of their example."""
    for lr in (1e-3, 1e-4):
        agent = make_agent(sac_continuous, alpha_lr=lr)
        agent.update(sac_batch())
        assert abs(agent.log_alpha.item() - math.log(0.2)) == pytest.approx(lr, rel=2e-3)
        for module in PPO:
            agent = peaked(make_agent(module, ent_autotune=True, ent_coef=0.1, ent_coef_lr=lr))
            ppo_step(agent, torch.zeros(8))
            assert abs(agent.log_ent_coef.item() - math.log(0.1)) == pytest.approx(lr, rel=2e-3)


def test_E001_5():
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


def test_E001_9():
    """The default is -dim, -3 and -6 here, and not the -2.94 and -5.88 of 0.98 dim."""
    for num_actions in (3, 6):
        assert make_agent(sac_continuous, num_actions).target_entropy().item() == -num_actions
        assert make_agent(ppo_continuous, num_actions).target_entropy.item() == -num_actions


def test_R001_1():
    """H = 0.5 above a target of -1: raw alpha is negative after 14 steps of 0.01 * 1.5; exp(log alpha) never is."""
    raw = 0.2 - 0.01 * 1.5 * np.arange(20)
    assert int((raw < 0).argmax()) == 14
    for loss in temperature_losses(-1.0):
        log_alpha = T(math.log(0.2), requires_grad=True)
        for _ in range(400):
            (gradient,) = torch.autograd.grad(loss(log_alpha, T(0.5)), [log_alpha])
            log_alpha = (log_alpha - 0.01 * gradient).detach().requires_grad_()
        assert 0 < log_alpha.exp().item() == pytest.approx(0.2 * math.exp(-6), rel=1e-3)


def test_E001_6():
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


def test_R001_2():
    """Our losses of the temperature take entropy and log-probabilities as constants, and reach log alpha alone."""
    log_alpha, log_prob = T(0.0, requires_grad=True), torch.zeros(4, requires_grad=True)
    sac_continuous.alpha_loss(log_alpha, log_prob, T(-3.0)).backward()
    assert log_prob.grad is None and log_alpha.grad.item() == pytest.approx(3.0)
    for module in PPO:
        log_ent_coef, entropy = T(0.0, requires_grad=True), T(0.0, requires_grad=True)
        module.ent_coef_loss(log_ent_coef, entropy, T(-3.0)).backward()
        assert entropy.grad is None and log_ent_coef.grad.item() == pytest.approx(3.0)


def test_E001_1():
    """The notes' loss is flat at H = +3 where it should be at -3, and alpha runs away to 0 or to infinity."""
    assert slope(lambda x: notes_temperature_loss(-3.0)(x, T(3.0)), 0.0) == 0.0
    assert closed_loop(notes_temperature_loss(-3.0), 0.2)[0] < 1e-6
    assert closed_loop(notes_temperature_loss(-3.0), 2.0)[0] > 1e6
    for loss in temperature_losses(-3.0):
        slopes = [slope(lambda x, loss=loss, h=h: loss(x, T(h)), 0.0) for h in (-5.0, -3.0, 3.0, 5.0)]
        assert slopes == pytest.approx([-2.0, 0.0, 6.0, 8.0])  # descent raises alpha while H is below -3
        for first in (0.2, 2.0):
            assert closed_loop(loss, first)[0] == pytest.approx(0.0079239, rel=1e-3)


def test_E001_2():
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


def test_E001_11():
    """The comment has alpha, the code log alpha: the slopes differ by the factor alpha, not in sign or zero."""
    for loss in temperature_losses(-3.0):
        for log_alpha in (-2.0, 0.0, 1.0):
            for entropy in (-6.0, -3.0001, -2.0, 4.0):
                ours = slope(lambda x, loss=loss, h=entropy: loss(x, T(h)), log_alpha)
                of_alpha = slope(lambda x, h=entropy: x.exp() * (h + 3), log_alpha)
                assert ours == pytest.approx(entropy + 3, abs=1e-5)
                assert of_alpha / ours == pytest.approx(math.exp(log_alpha), rel=1e-2)


def test_E001_3():
    """A policy of three dimensions with -3 nats is at its target; the mean over dimensions, -1, says 2 too many."""
    log_std = torch.full((3,), -1 - NORMAL_ENTROPY)
    assert log_std.exp().tolist() == pytest.approx([0.0890] * 3, abs=1e-4)
    notes = torch.distributions.Normal(torch.zeros(3), log_std.exp()).entropy().mean()
    zero = torch.zeros(1, 3)
    _, ours = ppo_continuous.gaussian(zero, log_std, zero)
    residual = lambda entropy: slope(lambda x: ppo_continuous.ent_coef_loss(x, entropy, T(-3.0)), 0.0)  # noqa: E731
    assert residual(notes) == pytest.approx(2.0, abs=1e-5) and residual(ours) == pytest.approx(0.0, abs=1e-5)
    assert math.exp(-3 - NORMAL_ENTROPY) == pytest.approx(0.0120, abs=1e-4)  # σ where the notes' residual is 0


def test_E001_12():
    """`loss + alpha * entropy` grows by alpha with each nat; ours fall by it, in PPO and in SAC, where H = -log π."""
    assert slope(lambda h: T(1.0) + 0.2 * h, 1.5) == pytest.approx(0.2)
    for module in PPO:
        assert slope(lambda h, m=module: m.total_loss(T(1.0), T(0.0), h, 0.5, T(0.2)), 1.5) == pytest.approx(-0.2)
    q = torch.zeros(4)
    assert slope(lambda h: sac_continuous.actor_loss(-h.expand(4), q, q, T(0.2)), 1.5) == pytest.approx(-0.2)


def test_E001_7():
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


def test_R001_3():
    """With learned c and no advantages a step raises log σ in each dimension and leaves μ to the bit as it was."""
    agent = make_agent(ppo_continuous, ent_autotune=True, ent_coef=0.2, norm_adv=False)
    obs = torch.randn(8, 4)
    before, metrics = agent.network.policy(obs)[0], ppo_step(agent, torch.zeros(8))
    assert metrics["total_loss"].item() == pytest.approx(-0.2 * 3 * (NORMAL_ENTROPY - 0.5), rel=1e-5)
    assert (agent.network.log_std + 0.5).tolist() == pytest.approx([3e-4] * 3, rel=1e-3)
    assert torch.equal(agent.network.policy(obs)[0], before)
    assert not any(agent.log_ent_coef is parameter for parameter in agent.optimizer.owned())


@pytest.mark.parametrize("module", PPO)
def test_E001_13(module):
    """The plain policy gradient is PPO's where the ratio is 1; at 1.5 it pulls on with A = 1, where PPO's is 0."""
    advantage = T([1.0, -1.0])
    for ratio, expected in ((1.0, [-0.5, 0.5]), (1.5, [0.0, 0.75])):
        log_prob = torch.full((2,), math.log(ratio), requires_grad=True)
        (plain,) = torch.autograd.grad(-(advantage * log_prob).mean(), [log_prob])
        (ours,) = torch.autograd.grad(module.policy_loss(log_prob, torch.zeros(2), advantage, 0.2), [log_prob])
        assert plain.tolist() == [-0.5, 0.5] and ours.tolist() == pytest.approx(expected)


def test_E001_4():
    """No entropy is below -log n: even a certain policy, H = 0, lowers alpha, by either sign. Ours raises it."""
    for n in (2, 4, 18):
        agent = make_agent(ppo_discrete, n)
        assert 0 < agent.target_entropy.item() < math.log(n)
        right = slope(lambda x, agent=agent: ppo_discrete.ent_coef_loss(x, T(0.0), agent.target_entropy), 0.0)
        wrong = slope(lambda x, n=n: ppo_discrete.ent_coef_loss(x, T(0.0), T(-math.log(n))), 0.0)
        notes = slope(lambda x, n=n: notes_temperature_loss(-math.log(n))(x, T(0.0)), 0.0)
        assert right < 0 and wrong == pytest.approx(math.log(n)) == notes
    for likelier, share in ((0.5831, 0.98), (0.8900, 0.5)):
        _, entropy = ppo_discrete.categorical(T([[likelier, 1 - likelier]]).log(), T([0]))
        assert entropy.item() == pytest.approx(share * math.log(2), abs=1e-4)
    with pytest.raises(ppo_discrete.UsageError):
        ppo_discrete.check_args(ppo_discrete.Args(ent_autotune=True, target_entropy=-1.0))


def test_R001_4():
    """With our sign the larger target, -2, ends at the larger entropy and at the larger alpha."""
    for low, high in zip(temperature_losses(-3.0), temperature_losses(-2.0), strict=True):
        (alpha_low, entropy_low), (alpha_high, entropy_high) = closed_loop(low), closed_loop(high)
        assert [entropy_low, entropy_high] == pytest.approx([-3.0, -2.0], abs=1e-3)
        assert alpha_high / alpha_low == pytest.approx(math.exp(2 / 3), rel=1e-3)


def test_R001_7():
    """At H = +5, above its target of -3, descending our losses lowers alpha; descending the notes' raises it."""
    assert slope(lambda x: notes_temperature_loss(-3.0)(x, T(5.0)), 0.0) == pytest.approx(-2.0)
    for loss in temperature_losses(-3.0):
        assert slope(lambda x, loss=loss: loss(x, T(5.0)), 0.0) == pytest.approx(8.0)


def test_E001_17():
    """-2 explores more than -3 in three dimensions, σ 0.124 and 0.089; in two it is the default: 0.089 again."""
    zero = torch.zeros(1, 3)
    for num_actions, target, sigma in ((3, None, 0.0890), (3, -2.0, 0.1242), (2, None, 0.0890), (2, -2.0, 0.0890)):
        agent = make_agent(ppo_continuous, num_actions, target_entropy=target)
        log_std = T(sigma).log().expand(num_actions)
        _, entropy = ppo_continuous.gaussian(zero[:, :num_actions], log_std, zero[:, :num_actions])
        assert entropy.item() == pytest.approx(agent.target_entropy.item(), abs=1e-3)


@pytest.mark.parametrize("module", PPO)
def test_E001_14(module):
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


def test_E001_20():
    """A temperature of 0.001 at first rises, where the entropy is below its target, and ends where others do."""
    for loss in temperature_losses(-3.0):
        assert slope(lambda x, loss=loss: loss(x, T(gaussian_entropy(0.001))), math.log(0.001)) < 0  # descended
        assert closed_loop(loss, 0.001)[0] == pytest.approx(0.0079239, rel=1e-3)


def test_R001_10():
    """From 0.01, 0.2 and 2 our losses end at the same alpha; the notes' own end apart, by the start alone."""
    for loss in temperature_losses(-3.0)[:2]:
        assert [closed_loop(loss, first)[0] for first in (0.01, 0.2, 2.0)] == pytest.approx([0.0079239] * 3, rel=1e-3)
    low, high = (closed_loop(notes_temperature_loss(-3.0), first)[0] for first in (0.2, 2.0))
    assert high / low > 1e12


def test_E001_18():
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


def softmax_entropy(rewards):
    """H of the policy that maximises E[r] + c H over actions with these rewards, softmax(r / c), as a function of c."""
    return lambda c: torch.distributions.Categorical(logits=T(rewards, dtype=torch.float64) / c).entropy().item()


def test_R001_13():
    """Rewards times ten: c = 0.5 leaves 1.3e-7 of 0.918 nats; a target of 0.693 is met, with c = 0.392 and 3.917."""
    for scale, fixed, learned in ((1.0, 0.9183, 0.3917), (10.0, 1.2985e-7, 3.9166)):
        rewards = [scale, 0.0, 0.0, 0.0]
        best = torch.distributions.Categorical(best_policy(rewards, 0.5)).entropy().item()
        assert best == pytest.approx(fixed, rel=1e-4)
        for loss in temperature_losses(0.5 * math.log(4)):
            coef, entropy = closed_loop(loss, best_entropy=softmax_entropy(rewards))
            assert coef == pytest.approx(learned, abs=1e-3) and entropy == pytest.approx(0.6931, abs=1e-3)
        assert softmax_entropy(rewards)(learned) == pytest.approx(0.6931, abs=1e-3)  # not just where the loop stops


def test_R001_11():
    """Heads of 3, 2, 4 actions: log-probabilities that sum, a largest entropy, a target and a coefficient of each."""
    torch.manual_seed(0)
    sizes, shares, obs = [3, 2, 4], (0.5, 0.3, 0.7), torch.randn(6, 4)
    spaces = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32), gym.spaces.MultiDiscrete(sizes)
    args = ppo_discrete.Args(cuda=False, ent_autotune=True, ent_coef=(0.1, 0.2, 0.3), target_entropy=shares)
    agent = ppo_discrete.Agent(*spaces, args)
    action = torch.stack([torch.randint(n, (6,)) for n in sizes], -1)
    log_prob, entropy, _ = peaked(agent).evaluate_actions(obs, action)
    heads = [torch.distributions.Categorical(logits=x) for x in agent.network.policy(obs).split(sizes, -1)]
    by_torch = sum(head.log_prob(a) for head, a in zip(heads, action.T, strict=True))
    assert torch.allclose(log_prob, by_torch, atol=1e-5) and log_prob.shape == (6,)
    assert torch.allclose(entropy, torch.stack([head.entropy() for head in heads], -1), atol=1e-5)
    fill(agent.network.actor[-1], 0.0)  # every head uniform
    _, largest, _ = agent.evaluate_actions(obs, action)
    assert largest[0].tolist() == pytest.approx([1.0986, 0.6931, 1.3863], abs=5e-5)
    assert agent.target_entropy.tolist() == pytest.approx([0.5493, 0.2079, 0.9704], abs=5e-5)
    slopes = []
    for k in range(3):  # by differences: each log c is pulled by its own head alone
        up, down = (agent.log_ent_coef.detach() + sign * 0.5 * torch.eye(3)[k] for sign in (1, -1))
        losses = [ppo_discrete.ent_coef_loss(x, largest[0], agent.target_entropy).item() for x in (up, down)]
        slopes.append(losses[0] - losses[1])
    assert slopes == pytest.approx([1.0986 - 0.5493, 0.6931 - 0.2079, 1.3863 - 0.9704], abs=2e-4)


def test_R001_12():
    """Rewards of 0 and of 100 leave the target where its line has it; a rule of one's own moves it at once, 0.693."""
    agent = make_agent(ppo_discrete, 4, ent_autotune=True, ent_coef=0.1, target_entropy=0.9)
    assert agent.target_entropy.item() == pytest.approx(1.2477, abs=5e-5)  # 0.9 ln 4
    for episodic_return, expected in ((10.0, 1.2477), (480.0, 0.6931), (20.0, 0.6931)):
        if episodic_return > 475:  # the rule: once the task is solved
            agent.set_target_entropy(0.5)
        agent.anneal(1_000)
        assert agent.target_entropy.item() == pytest.approx(expected, abs=5e-5)
    line = {"target_entropy": -1.0, "target_entropy_end": -3.0, "target_entropy_duration": 4}
    for reward in (0.0, 100.0):
        sac, batch = make_agent(sac_continuous, **line), sac_batch()
        batch = batch._replace(reward=torch.full_like(batch.reward, reward))
        assert [sac.update(batch)["target_entropy"].item() for _ in range(3)] == pytest.approx([-1.0, -1.5, -2.0])
        sac.set_target_entropy(-2.5)
        assert sac.update(batch)["target_entropy"].item() == -2.5


def test_E001_21():
    """The published default asks for no difficulty: -1, -3 and -17 for so many dimensions, and it stays there."""
    for num_actions in (1, 3, 17):  # Pendulum, Hopper, Humanoid
        agent, batch = make_agent(sac_continuous, num_actions), sac_batch(num_actions)
        targets = [agent.update(batch)["target_entropy"].item() for _ in range(3)]
        assert targets == [-num_actions] * 3
    for module in PPO:  # and a fixed coefficient stays where it is, unless it is told to move
        agent = make_agent(module, ent_coef=0.01)
        agent.anneal(400_000)
        assert agent.ent_coef.item() == pytest.approx(0.01)


# ---- Note 002: Easy-RL's PPO ----
def test_R002_1():
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
def test_E002_1(module):
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
def test_R002_2(module):
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


def test_E002_3():
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


@pytest.mark.parametrize("module", PPO)
def test_E002_2(module):
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


def test_R002_3():
    """0.01 is our default for discrete actions, as in the paper's Atari; continuous ones have 0; below 0 is refused."""
    assert ppo_discrete.Args().ent_coef == 0.01 and ppo_continuous.Args().ent_coef == 0.0
    for module in PPO:
        assert make_agent(module).ent_coef.item() == pytest.approx(module.Args().ent_coef)
        with pytest.raises(module.UsageError):
            module.check_args(module.Args(ent_coef=-0.01))


def test_E002_4():
    """No law: without advantages the entropy stays as it is with c = 0; it falls where likely actions prove better."""
    changes = []
    obs = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    for likely_is_better in (0.0, 1.0, -1.0):
        agent = peaked(make_agent(ppo_discrete, ent_coef=0.0, norm_adv=False))
        before, logits = mean_entropy(agent), agent.network.policy(obs)
        ppo_step(agent, torch.full((8,), likely_is_better), actions=logits.argmax(-1))
        changes.append(mean_entropy(agent) - before)
    assert changes[0] == 0.0 and changes[1] < -1e-4 and changes[2] > 1e-4


# ---- Note 003, first part: DQN ----
def test_R003_1():
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


def test_R003_2():
    """Two states in a row, reward 1 at the end: the table's rule finds 0.81, 0.9; 0.81, 1, though it acts at random."""
    q, state, generator = torch.zeros(2, 2), 0, np.random.default_rng(0)
    for _ in range(600):
        action = int(generator.integers(2))
        next_state, terminated = action, float(state == action == 1)  # action 1 goes on, action 0 back to the start
        target = dqn.td_target(T([terminated]), T([terminated]), q[next_state][None], 0.9)
        q[state, action] += 0.5 * (target[0] - q[state, action])
        state = 0 if terminated else next_state
    assert torch.allclose(q, T([[0.81, 0.9], [0.81, 1.0]]), atol=1e-3)


def test_E003_7(monkeypatch):
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


def test_R003_43(monkeypatch):
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


def test_E003_2(logs):
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


def test_R003_3(monkeypatch):
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


def test_E003_1():
    """Q = 0.5, y = 2: down the note's gradient, +3, the loss goes from 2.25 to 3.24; down ours, -3, to 1.44."""
    noted = 0.5 - 0.1 * 2 * (2 - 0.5)
    assert (2 - noted) ** 2 == pytest.approx(3.24)
    for module in (dqn, ddqn):
        q = T([[0.5, 7.0]], requires_grad=True)
        module.q_loss(q, T([0]), T([2.0])).backward()
        assert q.grad.tolist() == [[-3.0, 0.0]]
        assert module.q_loss(q - 0.1 * q.grad, T([0]), T([2.0])).item() == pytest.approx(1.44)


def test_R003_4():
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


def test_R003_41():
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


def test_E003_5(logs):
    """T = 20 steps in each of three episodes of 3, 7, 5 steps are 45 too many; ours resets at an end of either kind."""
    env = Clock(discrete=True)
    for _ in range(3):
        env.reset()
        for _ in range(20):
            env.step(0)
    assert env.num_illegal == 45
    for module in OFF_POLICY:
        env = logs[module].env.unwrapped
        assert env.num_illegal == 0 and env.episode == 90 // 15 * 3, "90 steps: six times all three episodes"


def test_R003_42():
    """Of three actions the greedy one has probability 1 - epsilon + epsilon / 3, as a random one may be greedy too."""
    for module in (dqn, ddqn):
        agent, obs = make(module), np.ones(4, np.float32)
        greedy = int(agent.q_network(torch.ones(4)).argmax())
        for epsilon, expected in ((0.0, 1.0), (0.3, 0.8), (1.0, 1 / 3)):
            agent.epsilon = epsilon
            share = np.mean([int(agent.act(obs, explore=True)) == greedy for _ in range(3000)])
            assert share == pytest.approx(expected, abs=0.03)


def test_R003_46(logs):
    """Nothing is learned before learning_starts transitions are stored, 40 here: five times a batch."""
    for module in (dqn, ddqn):
        assert logs[module].updates == list(range(45, 91, 5))


def test_R003_5():
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


def test_E003_2b(logs):
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


def test_R003_6():
    """The rule, step by step, is our closed form: it falls, and has its floor exactly from step 919 on."""
    epsilon, values = 1.0, []
    for step in range(1, 1200):
        epsilon = max(0.01, epsilon * 0.995)
        values.append(dqn.exponential_schedule(1.0, 0.01, 0.995, step))
        assert values[-1] == pytest.approx(epsilon) == ddqn.exponential_schedule(1.0, 0.01, 0.995, step)
    assert all(a > b for a, b in itertools.pairwise(values[:919])) and values[917] > 0.01
    assert set(values[918:]) == {0.01}


def test_E003_6(logs):
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


def test_E003_3(logs):
    """t of the episode: 500 episodes of 20 steps and C = 100 make no copy. Ours comes in every 12th step of the run."""
    assert sum(t % 100 == 0 for _ in range(500) for t in range(1, 21)) == 0
    assert sum(t % 100 == 0 for t in range(1, 500 * 20 + 1)) == 100
    for module in (dqn, ddqn):
        assert max(Clock.lengths) < 12 and logs[module].copies == [48, 60, 72, 84]


def test_E003_4(logs):
    """An s that waits for learning to start gives (0, 1), (0, 2), (0, 3); ours starts where the last step ended."""
    stored, s = [], 0
    for step in range(1, 6):
        stored.append((s, step))
        s = step if len(stored) >= 3 else s
    assert stored == [(0, 1), (0, 2), (0, 3), (3, 4), (4, 5)]
    for module in OFF_POLICY:
        for (*_, next_obs, _), (obs, *_) in itertools.pairwise(logs[module].added):
            assert np.array_equal(obs, next_obs) or obs.tolist() == [next_obs[0] + 1, 0]
        assert all((next_obs - obs).tolist() == [0, 1] for obs, _, _, next_obs, _ in logs[module].added)


# ---- Note 003, first part: Double DQN ----
def test_R003_7():
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


def test_E003_9():
    """The maximum takes a negative error where that value is largest all the same; of 4 equal ones, 1 of 16 times."""
    zero = torch.zeros(1)
    assert dqn.td_target(zero, zero, T([[0.0, 1.0]]) + T([[0.3, -0.1]]), 1.0).item() == pytest.approx(0.9)
    assert dqn.td_target(zero, zero, T([[-0.2, -0.1, -0.3, -0.4]]), 1.0).item() == pytest.approx(-0.1)
    torch.manual_seed(0)
    y = dqn.td_target(torch.zeros(200_000), torch.zeros(200_000), torch.randn(200_000, 4), 1.0)
    assert (y < 0).float().mean().item() == pytest.approx(1 / 16, abs=0.002) and y.mean() > 1


def test_R003_8(monkeypatch):
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


def test_E003_10(monkeypatch):
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


def test_E003_8():
    """A listing that never sets epsilon leaves it to chance; ours starts with 1 in both scripts: all actions alike."""
    for module in (dqn, ddqn):
        agent = make(module)
        counts = np.bincount([int(agent.act(np.ones(4, np.float32), explore=True)) for _ in range(3000)], minlength=3)
        assert agent.epsilon == 1 and counts / 3000 == pytest.approx([1 / 3] * 3, abs=0.03)


def test_R003_9():
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


# ---- Note 003, first part: DDPG ----
def test_E003_28():
    """Rewards 0, 1, 1, ..., discount 1/2: J is 1, but 1.5 over visited states. With Q it is the theorem's gradient."""
    value, visited = np.array([1.0, 2.0]), np.array([0.5, 0.5])
    assert value[0] == 1 and visited @ value == 1.5 and visited @ np.array([0.0, 1.0]) / (1 - 0.5) == 1
    reward = T([[1.0, 0.0], [0.5, 2.0]]).double()
    next_state = T([[[0.7, 0.3], [0.1, 0.9]], [[1.0, 0.0], [0.4, 0.6]]]).double()
    logits = T([[0.3, -0.2], [0.1, 0.5]]).double().requires_grad_()
    policy = logits.softmax(-1)
    weights = torch.linalg.inv(torch.eye(2).double() - 0.9 * torch.einsum("sa,sat->st", policy, next_state))
    value = weights @ (policy * reward).sum(-1)
    exact = torch.autograd.grad(value[0], logits, retain_graph=True)[0]
    q = (reward + 0.9 * next_state @ value).detach()
    theorem = weights[0].detach() @ (policy.detach() * policy.log() * q).sum(-1)
    assert torch.allclose(torch.autograd.grad(theorem, logits)[0], exact, atol=1e-10)


def test_R003_10():
    """The gradient of our loss is minus the mean of dQ/da times dmu/dtheta, both by finite differences."""
    torch.manual_seed(0)
    actor, critic, obs, h = ddpg.Actor(4, 2).double(), ddpg.Critic(4, 2).double(), torch.randn(8, 4).double(), 1e-6
    grads = torch.autograd.grad(ddpg.actor_loss(critic(obs, actor(obs))), list(actor.parameters()))
    direction = [torch.randn_like(parameter) for parameter in actor.parameters()]
    with torch.no_grad():
        action, moved = actor(obs), []
        for sign in (1, -1):
            for parameter, step in zip(actor.parameters(), direction, strict=True):
                parameter += sign * h * step
            moved.append(actor(obs))
            for parameter, step in zip(actor.parameters(), direction, strict=True):
                parameter -= sign * h * step
        by_action = [
            (critic(obs, action + h * e) - critic(obs, action - h * e)) / (2 * h) for e in torch.eye(2).double()
        ]
        chain = (torch.stack(by_action, -1) * (moved[0] - moved[1]) / (2 * h)).sum(-1).mean().item()
    along = sum((grad * step).sum().item() for grad, step in zip(grads, direction, strict=True))
    assert -along == pytest.approx(chain, rel=1e-5) and abs(chain) > 1e-3


def test_R003_44(monkeypatch):
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


def test_E003_21(logs):
    """r = 2 at an end, where the critic says 9: without the mask y is 10.1, in ours 2, also in an update."""
    unmasked = [r + 0.9 * next_q for r, next_q in ((1, 3), (2, 9))]
    assert unmasked == pytest.approx([3.7, 10.1])
    assert ddpg.td_target(T([1.0, 2.0]), T([0.0, 1.0]), T([3.0, 9.0]), 0.9).tolist() == pytest.approx([3.7, 2.0])
    agent, batch = make(ddpg), transitions(ddpg, terminated=torch.ones(16))
    outputs(agent.critic_target.net[-1], [100.0])
    reward = agent.critic(batch.obs, batch.action).detach()
    assert agent.update(batch._replace(reward=reward))["critic_loss"].item() == pytest.approx(0, abs=1e-9)
    assert sum(terminated for *_, terminated in logs[ddpg].added) == 12, "of 18 episodes, 6 are cut by a limit"


def test_E003_24():
    """Q = 0.5, y = 2: the note's gradient is -1.5; the loss itself, and ours, fall with slope -3."""
    slope = ((2 - 0.51) ** 2 - (2 - 0.49) ** 2) / 0.02
    assert -(2 - 0.5) == -1.5 and slope == pytest.approx(-3)
    q = T([0.5], requires_grad=True)
    ddpg.critic_loss(q, T([2.0])).backward()
    assert q.grad.item() == pytest.approx(-3)


def test_R003_11():
    """-mean Q: -3 for values 1, 2, 6, with slope -1/3 in each; an actor that descends it climbs the critic."""
    q = T([1.0, 2.0, 6.0], requires_grad=True)
    loss = ddpg.actor_loss(q)
    loss.backward()
    assert loss.item() == -3 and q.grad.tolist() == pytest.approx([-1 / 3] * 3)
    agent, batch = make(ddpg, critic_lr=1e-12), transitions(ddpg)
    before = agent.critic(batch.obs, agent.actor(batch.obs)).mean().item()
    for _ in range(20):
        agent.update(batch)
    assert agent.critic(batch.obs, agent.actor(batch.obs)).mean().item() > before + 0.02


def test_R003_12():
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


def test_R003_45(logs):
    """Zero where an episode begins, and nowhere else; within an episode 0.85 of the process stays: 0.85, 0.7225."""
    assert len(logs[ddpg].acts) == 50
    for time, noise in logs[ddpg].acts[1:]:
        assert noise.any().item() == (time != 0)
    agent = make(ddpg, noise_process="ou", exploration_noise=0.0)
    agent.noise.fill_(1)
    for expected in (0.85, 0.7225):
        agent.act(np.zeros(4, np.float32), explore=True)
        assert agent.noise.tolist() == pytest.approx([expected] * 2)


def test_E003_22(logs):
    """0.95 + noise of 0.2 is above 1 in two of five steps; ours stays inside, and stores what was executed."""
    noise, weight = gaussian_grid()
    assert weight[0.95 + 0.2 * noise > 1].sum().item() == pytest.approx(0.40, abs=0.005)
    agent = make(ddpg, exploration_noise=10.0)
    actions = np.stack([agent.act(np.ones(4, np.float32), explore=True) for _ in range(100)])
    assert np.abs(actions).max() <= 1 and (np.abs(actions) == 1).mean() > 0.8, "the noise is larger than the range"
    stored, executed = np.array([each[1] for each in logs[ddpg].added]), np.array(logs[ddpg].env.unwrapped.executed)
    assert np.allclose(executed, np.array([-1, 0]) + (stored + 1) / 2 * np.array([3, 5]), atol=1e-6)


def test_E003_26(logs):
    """At t = 1 all N samples are the same transition; ours learns from the 41st on, of rows that were written."""
    buffer = ddpg.ReplayBuffer(1, 1, 100, torch.device("cpu"))
    buffer.add(np.zeros(1), np.zeros(1), 1.0, np.zeros(1), False)
    assert len(buffer.sample(64).reward.unique()) == 1
    buffer.rows[1:] = math.nan
    for reward in (2.0, 3.0):
        buffer.add(np.zeros(1), np.zeros(1), reward, np.zeros(1), False)
    assert set(buffer.sample(64).reward.tolist()) == {1.0, 2.0, 3.0}
    for module in (ddpg, td3):
        assert logs[module].updates == list(range(41, 91))
        assert module.Args().learning_starts == 25_000


def test_E003_29(monkeypatch):
    """Q = w a, w = 2, mu = 3: backward leaves -3 in w's gradient, and the critic's 4 becomes 1; ours stays 4."""
    w, mu = (torch.nn.Parameter(T(x)) for x in (2.0, 3.0))
    (-w * mu).backward()
    ((0 - w * 1) ** 2).backward()
    assert w.grad.item() == 1
    w.grad = mu.grad = None
    optimizer = adam(ddpg, w, 0.0)
    adam(ddpg, mu, 0.0).minimize(-w * mu)
    optimizer.minimize((0 - w * 1) ** 2)
    assert w.grad is None and optimizer.mean0.item() == pytest.approx(0.1 * 4)  # Adam's first moment
    agents = []
    for factor in (-1, 1000):
        monkeypatch.setattr(ddpg, "actor_loss", lambda q, factor=factor: factor * q.mean())
        agents.append(make(ddpg))
        agents[-1].update(transitions(ddpg))
    one, other = agents
    assert not torch.equal(one.actor.net[-1].bias, other.actor.net[-1].bias)
    assert all(torch.equal(a, b) for a, b in zip(one.critic.parameters(), other.critic.parameters(), strict=True))


def test_E003_20():
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


def test_R003_13():
    """Q = -(a - 1)² at mu = 0, deviation 0.1: score function 2 with variance 114.15, through the action 2 with 0.04."""
    noise, weight = gaussian_grid()
    action = (0.1 * noise).requires_grad_()
    (through,) = torch.autograd.grad(-ddpg.actor_loss(-((action - 1) ** 2)) * len(action), action)
    score = -((action.detach() - 1) ** 2) * noise / 0.1
    moments = [((weight * x).sum().item(), (weight * (x - 2) ** 2).sum().item()) for x in (score, through)]
    assert moments[0] == pytest.approx((2, 114.15), rel=1e-4) and moments[1] == pytest.approx((2, 0.04), rel=1e-4)
    mean = torch.zeros(5, requires_grad=True)
    (-5 * ddpg.actor_loss(-((mean - 1) ** 2))).backward()
    assert mean.grad.tolist() == pytest.approx([2.0] * 5), "DDPG's own gradient has no action to average over"


def test_E003_23():
    """A critic that is wrong by at most 0.05 has slope -0.5 instead of 2; states of old policies turn 0.6 into -0.6."""
    slopes = []
    for error in (0.0, 0.05):
        action = torch.full((1,), math.pi / 50, dtype=torch.float64, requires_grad=True)
        (-ddpg.actor_loss(2 * action + error * (50 * action).sin())).backward()
        slopes.append(action.grad.item())
    assert slopes == pytest.approx([2.0, -0.5])
    directions = []
    for visits in (8, 2):  # of ten, in the first state, where larger actions are better; in the second, smaller ones
        sign = T([1.0] * visits + [-1.0] * (10 - visits))
        theta = T(0.3, requires_grad=True)
        (-ddpg.actor_loss(sign * theta)).backward()
        directions.append(theta.grad.item())
    assert directions == pytest.approx([0.6, -0.6])


def test_E003_65():
    """For Hopper the deterministic gradient takes 1.253 times the operations of the score function's, per sample."""

    def count(gradient):
        """Floating-point operations of matrix products, forward and backward, as PyTorch counts them."""
        with FlopCounterMode(display=False) as counter:
            gradient()
        return counter.get_total_flops()

    actor, critic, obs = ddpg.Actor(11, 3), ddpg.Critic(11, 3), torch.randn(32, 11)
    for network in (actor, critic):
        for layer in network.net:
            if isinstance(layer, torch.nn.Linear):
                layer.__class__ = torch.nn.Linear  # whose products the counter sees
    parameters = list(actor.parameters())

    def deterministic():
        with ddpg.frozen(critic):
            torch.autograd.grad(ddpg.actor_loss(critic(obs, actor(obs))), parameters)

    def score_function():
        policy = torch.distributions.Normal(actor(obs), 0.1)
        action = policy.sample()
        with torch.no_grad():
            value = critic(obs, action)
        torch.autograd.grad(-(policy.log_prob(action).sum(-1) * value).mean(), parameters)

    assert count(deterministic) / count(score_function) == pytest.approx(1.253, abs=5e-4)
    both = 11 * 256 + 256 * 256 + 256 * 3, 14 * 256 + 256 * 256 + 256  # weights of actor and critic
    assert count(score_function) == 2 * 32 * (3 * both[0] - 11 * 256 + both[1])


# ---- Note 003, first part: TD3 ----
def test_E003_39():
    """A critic learns the policy's values: 0 and 1, not 9 and 10, those of the best policy."""
    q = torch.zeros(2)  # one state, reward = action, and a policy that always takes action 0
    for _ in range(300):
        q = td3.td_target(T([0.0, 1.0]), torch.zeros(2), q[[0, 0]], q[[0, 0]], 0.9)
    assert q.tolist() == [0.0, 1.0]


def test_E003_39b(monkeypatch):
    """Climbing "J" lowers Q, descending it raises Q."""
    true, gains, batch = td3.actor_loss, [], transitions(td3)
    for sign in (1, -1):
        monkeypatch.setattr(td3, "actor_loss", lambda q, sign=sign: sign * true(q))
        agent = make(td3, critic_lr=1e-12, policy_delay=1, actor_lr=3e-4)
        before = agent.critics[0](batch.obs, agent.actor(batch.obs)).mean().item()
        for _ in range(10):
            agent.update(batch)
        gains.append(agent.critics[0](batch.obs, agent.actor(batch.obs)).mean().item() - before)
    assert gains[0] > 0.01 and gains[1] < -0.01


def test_E003_30():
    """Two actions of value 0 with independent errors: a quarter of the maxima is below 0, their mean is 0.564."""
    torch.manual_seed(0)
    y = dqn.td_target(torch.zeros(200_000), torch.zeros(200_000), torch.randn(200_000, 2), 1.0)
    assert (y < 0).float().mean().item() == pytest.approx(1 / 4, abs=0.005)
    assert y.mean().item() == pytest.approx(0.564, abs=0.006)  # 1 / √π


def test_R003_14():
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


def test_E003_38():
    """Of two estimates right on average, one is too low half the time; ours of both, three times in four, by 1.128."""
    torch.manual_seed(0)
    q1, q2 = 5 + 2 * torch.randn(2, 400_000)
    assert q1.mean().item() == pytest.approx(5, abs=0.01)
    y = td3.td_target(torch.zeros(400_000), torch.zeros(400_000), q1, q2, 1.0)
    assert y.mean().item() == pytest.approx(5 - 1.128, abs=0.008)
    assert (y < 5).float().mean().item() == pytest.approx(0.75, abs=0.003)


def test_R003_15(monkeypatch):
    """Noise cut to c, action cut to its range, the smaller twin of each row, and no value after an end."""
    next_action, noise = T([[0.0, 0.9], [-0.9, 0.2]]), T([[0.8, 0.3], [-0.4, -0.1]])
    smoothed = td3.smooth_target_action(next_action, noise, 0.5)
    assert torch.allclose(smoothed, T([[0.5, 1.0], [-1.0, 0.1]]))
    y = td3.td_target(T([1.0, 1.0, 2.0]), T([0.0, 0.0, 1.0]), T([3.0, 5.0, 9.0]), T([4.0, 2.0, 8.0]), 0.9)
    assert y.tolist() == pytest.approx([3.7, 2.8, 2.0])
    calls, agent = spy(monkeypatch, td3, "td_target"), make(td3)
    for critic, value in zip(agent.critics_target, ([7.0], [4.0]), strict=True):
        outputs(critic.net[-1], value)
    agent.update(transitions(td3, reward=torch.ones(16), terminated=T([1.0] + [0.0] * 15)))
    assert calls[0][1].tolist() == pytest.approx([1.0] + [1 + 0.99 * 4] * 15)


def test_E003_35(logs):
    """In a Box from [-1, 0] to [2, 5], a cut at ±a_max lets [-2, -5] through; ours stays inside, up to both ends."""
    box = Clock(discrete=False).action_space
    assert not box.contains(np.clip(np.full(2, -9, np.float32), -box.high, box.high))
    for module in (ddpg, td3):
        assert all(box.contains(action) for action in logs[module].env.unwrapped.executed)
        env = module.make_env("BoxClock-v0")
        env.reset(seed=0)
        for sign in (-1, 1):
            env.step(np.full(2, sign, np.float32))
        assert np.allclose(env.unwrapped.executed, [box.low, box.high], atol=1e-6)
    assert td3.smooth_target_action(T([-0.9, 0.9]), T([-0.5, 0.5]), 0.5).tolist() == [-1.0, 1.0]


def test_E003_11(monkeypatch):
    """0.2 is the deviation; as the variance it would make noise of 0.447, a quarter of which is cut at c = 0.5."""
    cut = math.erfc(0.5 / math.sqrt(2 * 0.2))
    assert math.sqrt(0.2) == pytest.approx(0.447, abs=1e-3) and cut == pytest.approx(0.264, abs=1e-3)
    calls, agent = spy(monkeypatch, td3, "smooth_target_action"), make(td3)
    agent.update(transitions(td3, size=4000))
    assert calls[0][0][1].std().item() == pytest.approx(0.2, rel=0.03)
    mean = agent.act(np.zeros(4, np.float32), explore=False)
    noise = [agent.act(np.zeros(4, np.float32), explore=True) - mean for _ in range(1000)]
    assert np.std(noise) == pytest.approx(0.1, rel=0.05)


def test_R003_16():
    """Q = cos 2a at 0: the error of 1 - 2 sigma² is of fourth order, with half the noise 15.7 times smaller."""
    x, weight = gaussian_grid()
    errors = []
    for sigma in (0.2, 0.1):
        mean = smoothed_value(lambda a: (2 * a[:, 0]).cos(), [0.0], sigma * x[:, None], weight, 1.0)
        assert mean == pytest.approx(math.exp(-2 * sigma**2), abs=1e-6)
        errors.append(mean - (1 - sigma**2 / 2 * 4))
    assert errors[0] / errors[1] == pytest.approx(15.7, abs=0.05)


def test_E003_36():
    """Q = -a² - 3b² + ab: -0.1564, 0.9776 sigma² / 2 times a trace of -8; plain sigma² -0.16, all entries -0.117."""
    x, weight = gaussian_grid()
    noise, weights = 0.2 * torch.cartesian_prod(x[::4], x[::4]), torch.cartesian_prod(weight[::4], weight[::4]).prod(-1)
    weights = weights / weights.sum()
    mean = smoothed_value(lambda a: -(a[:, 0] ** 2) - 3 * a[:, 1] ** 2 + a.prod(-1), [0.0, 0.0], noise, weights, 0.5)
    z, density = 2.5, math.exp(-(2.5**2) / 2) / math.sqrt(2 * math.pi)
    tails = math.erfc(z / math.sqrt(2))
    kept = 1 - tails - 2 * z * density + z**2 * tails  # variance of a normal variable cut at 2.5 deviations
    assert kept == pytest.approx(0.9776, abs=1e-4)
    assert mean == pytest.approx(0.2**2 * kept / 2 * -8, abs=1e-5)
    assert mean == pytest.approx(-0.1564, abs=5e-5)  # without 0.9776: -0.16
    assert 0.2**2 * kept / 2 * (-2 - 6 + 1 + 1) == pytest.approx(-0.117, abs=5e-4)
    assert smoothed_value(lambda a: a[:, 0], [0.9], 0.2 * x[:, None], weight, 0.5) == pytest.approx(0.861, abs=5e-4)


def test_R003_17():
    """Actor and all targets move in every third update, together, and not in between; the critics move in each."""
    agent = make(td3, policy_delay=3)
    slow = [agent.actor, agent.actor_target, agent.critics_target[0], agent.critics_target[1]]
    for i in range(1, 8):
        before = [network.net[-1].bias.clone() for network in [*slow, *agent.critics]]
        agent.update(transitions(td3))
        after = [network.net[-1].bias for network in [*slow, *agent.critics]]
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert moved == [i % 3 == 0] * 4 + [True] * 2


def test_E003_31(monkeypatch):
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


def test_R003_18():
    """By default the actor's loss does not see the second critic, even where that is NaN."""
    losses = []
    for value in (None, math.nan):
        agent = make(td3, policy_delay=1)
        fill(agent.critics[1], value) if value is not None else None
        losses.append(agent.update(transitions(td3))["actor_loss"].item())
    assert losses[0] == losses[1] and td3.Args().actor_objective == "q1"


def test_E003_37():
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


def test_E003_34(monkeypatch):
    """An absolute 0.2 is 0.13 and 0.08 of half ranges of 1.5 and 2.5; ours is a fifth of each: 0.3 and 0.5 executed."""
    assert (0.2 / np.array([1.5, 2.5])).tolist() == pytest.approx([0.133, 0.08], abs=1e-3)
    for module in (ddpg, td3):
        env = module.make_env("BoxClock-v0")
        env.reset(seed=0)
        for action in (0.0, 0.2):
            env.step(np.full(2, action, np.float32))
        first, second = env.unwrapped.executed
        assert second - first == pytest.approx([0.3, 0.5], abs=1e-6) and first == pytest.approx([0.5, 2.5])
    calls, agent = spy(monkeypatch, td3, "smooth_target_action"), make(td3, target_noise=0.3, noise_clip=0.1)
    agent.update(transitions(td3, size=4000))
    (next_action, noise, clip), smoothed = calls[0]
    assert noise.std().item() == pytest.approx(0.3, rel=0.03) and clip == 0.1
    assert (smoothed - next_action).abs().max().item() == pytest.approx(0.1, abs=1e-6)


def test_E003_32():
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


def test_E003_33(logs):
    """In episodes of at most 7 steps a tenth one never comes; ours moves the actor in every tenth update of the run."""
    assert not any(t % 10 == 0 for length in Clock.lengths for t in range(1, length + 1))
    moved = logs[td3].moved
    assert [("actor" in each) for each in moved] == [i % 10 == 0 for i in range(1, 51)]
    assert all(("actor_target" in each) == ("actor" in each) == ("critics_target" in each) for each in moved)
    assert all("critics" in each for each in moved)


def test_R003_49():
    """A critic 100 too high has the right slope, 2; one that is right at 0 but has slope -1 takes -1 to -1.21."""
    true = lambda action: -((action - 1) ** 2)  # noqa: E731
    results = []
    for estimate in (true, lambda a: true(a) + 100, lambda a: true(a) - 3 * a):
        action = T([0.0], requires_grad=True)
        for module in (ddpg, td3):
            (gradient,) = torch.autograd.grad(module.actor_loss(estimate(action)), action)
        results.append((-gradient.item(), true(0 - 0.1 * gradient).item()))
    assert results == [pytest.approx((2, -0.64)), pytest.approx((2, -0.64)), pytest.approx((-1, -1.21))]


# ---- Note 003, second part: SAC ----
def test_R003_19():
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


def test_R003_20():
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


def test_R003_22():
    """By our actor's loss: 0 for equal ones, two values for two orders, and a detour that is shorter."""
    p, q = [0.2, 0.8], [0.6, 0.4]
    assert discrete_kl(p, p) == pytest.approx(0) and discrete_kl(q, q) == pytest.approx(0)
    assert discrete_kl(p, q) == pytest.approx(0.3348, abs=1e-4)  # 0.2 ln(1/3) + 0.8 ln 2
    assert discrete_kl(q, p) == pytest.approx(0.3819, abs=1e-4)  # 0.6 ln 3 + 0.4 ln(1/2)
    a, b, c = [0.5, 0.5], [0.25, 0.75], [0.1, 0.9]
    assert discrete_kl(a, c) == pytest.approx(0.5108, abs=1e-4)
    assert discrete_kl(a, b) + discrete_kl(b, c) == pytest.approx(0.2362, abs=1e-4)


def test_E003_58():
    """The two orders do agree for some pairs: (0.3, 0.7) and its mirror image, N(0, 1) and N(2, 1)."""
    assert discrete_kl([0.3, 0.7], [0.7, 0.3]) == pytest.approx(0.3389, abs=1e-4)
    assert discrete_kl([0.7, 0.3], [0.3, 0.7]) == pytest.approx(0.3389, abs=1e-4)
    for p, q in itertools.permutations([(0.0, 1.0), (2.0, 1.0)]):
        assert squashed_kl(p, q, normal_noise(2001)).item() == pytest.approx(2.0, abs=1e-3)
    assert discrete_kl([0.2, 0.8], [0.6, 0.4]) != pytest.approx(discrete_kl([0.6, 0.4], [0.2, 0.8]), abs=0.01)


def test_R003_23():
    """Code words of 2, 2, 1 bits, made for (1/4, 1/4, 1/2), cost (1/2, 1/4, 1/4) 1.75 instead of 1.5 bits."""
    extra_bits = (0.5 * 2 + 0.25 * 2 + 0.25 * 1) - (0.5 * 1 + 0.25 * 2 + 0.25 * 2)
    assert discrete_kl([0.5, 0.25, 0.25], [0.25, 0.25, 0.5]) / math.log(2) == pytest.approx(extra_bits)


def test_E003_51():
    """The best Gaussian for a target with two peaks is at ln 2 = 0.693, not at the 0 of the note."""
    noise = normal_noise(401)
    losses = {}
    for mean, std in itertools.product(np.arange(-4, 4.5, 0.5), (0.25, 0.4, 0.5, 0.6, 1.0, 2.0, 3.0)):
        u = mean + std * noise
        log_target = two_peaks(u)
        losses[mean, std] = sac_continuous.actor_loss(
            squashed_log_prob(u, mean, std), log_target, log_target, T(1.0)
        ).item()
    assert min(losses.values()) == pytest.approx(math.log(2), abs=1e-3)


def test_E003_40():
    """Our loss settles on one of two equal peaks; the forward KL, for which the note takes it, covers both."""
    noise, ours, forward = normal_noise(401), {}, {}
    drawn = torch.cat([-3 + 0.5 * noise, 3 + 0.5 * noise])  # from the target
    for mean, std in itertools.product(np.arange(-4, 4.5, 0.5), (0.25, 0.5, 1.0, 2.0, 3.0, 4.0)):
        u = mean + std * noise
        log_target = two_peaks(u)
        ours[mean, std] = sac_continuous.actor_loss(
            squashed_log_prob(u, mean, std), log_target, log_target, T(1.0)
        ).item()
        forward[mean, std] = (two_peaks(drawn) - squashed_log_prob(drawn, mean, std)).mean().item()
    mean, std = min(ours, key=ours.get)
    assert abs(mean) == 3 and std == 0.5
    assert min(forward, key=forward.get) == (0, 3)
    below, best, above = (-squashed_log_prob(drawn, 0.0, std).mean() for std in (3.03, 3.04, 3.05))
    assert best < min(below, above)  # √(3² + 0.5²) = 3.041
    # the policy may leave out an action of the target, but not add one
    assert discrete_kl([1.0, 0.0], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert discrete_kl([0.5, 0.5], [1.0, 0.0]) == math.inf


def test_R003_24():
    """The gradient through the noise is the finite difference of the integral over actions."""
    alpha, u = 0.2, torch.linspace(-10, 10, 20_001, dtype=torch.float64)

    def integral(mean, log_std):
        normal = torch.distributions.Normal(mean, math.exp(log_std))
        log_prob = normal.log_prob(u) + 2 * u.cosh().log()  # 1 - tanh² = 1 / cosh²
        return torch.trapezoid(normal.log_prob(u).exp() * (alpha * log_prob + (u.tanh() - 0.3) ** 2), u).item()

    mean, log_std = (T([[x]], dtype=torch.float64, requires_grad=True) for x in (0.5, -0.4))
    action, log_prob = sac_continuous.squash(mean, log_std, normal_noise(20_001))
    q = -((action[:, 0] - 0.3) ** 2)
    sac_continuous.actor_loss(log_prob, q, q, T(alpha)).backward()
    by_mean = (integral(0.5 + 1e-4, -0.4) - integral(0.5 - 1e-4, -0.4)) / 2e-4
    by_log_std = (integral(0.5, -0.4 + 1e-4) - integral(0.5, -0.4 - 1e-4)) / 2e-4
    assert mean.grad.item() == pytest.approx(by_mean, abs=1e-3)
    assert log_std.grad.item() == pytest.approx(by_log_std, abs=1e-3)


def test_R003_21():
    """Our actor's loss is alpha KL(policy || exp(Q / alpha) / Z) less alpha log Z, for any policy."""
    torch.manual_seed(0)
    for alpha in (0.1, 1.0, 3.0):
        logits, q = torch.randn(2, 5).double()
        policy, target = (torch.distributions.Categorical(logits=x) for x in (logits, q / alpha))
        kl = torch.distributions.kl_divergence(policy, target).item()
        expected = alpha * kl - alpha * (q / alpha).logsumexp(0).item()
        assert discrete_actor_loss(policy.probs, q, alpha).item() == pytest.approx(expected, abs=1e-9)


def test_E003_55():
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


def test_E003_54():
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


def test_E003_56():
    """The value of s' is that of the target critics: 1 + 0.9 min(5, 3) = 3.7, which both critics miss by 3.7."""
    agent = sac_agent(q=(0.0, 0.0), q_target=(5.0, 3.0), gamma=0.9, autotune=False, alpha=1e-9)
    assert agent.update(sac_transitions(reward=1.0))["critic_loss"].item() == pytest.approx(2 * 3.7**2, rel=1e-5)


def test_E003_57():
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


def test_R003_25():
    """0.5 + 0.8 (min(5, 2) - 0.2 * 1.5) = 1.86, and 0.5 + 0.8 (min(-1, 3) + 0.2 * 1) = -0.14."""
    args = T([5.0, -1.0]), T([2.0, 3.0]), 0.8, T([1.5, -1.0]), T(0.2)
    assert sac_continuous.td_target(torch.full((2,), 0.5), torch.zeros(2), *args).tolist() == pytest.approx(
        [1.86, -0.14]
    )


def test_E003_44():
    """From 0.2, with H - H₀ = 1.5 and steps of 0.01, α itself is negative after 14 steps; our exp(log α) never is."""
    alphas = [0.2 - 0.01 * 1.5 * k for k in range(15)]
    assert alphas[13] > 0 > alphas[14]
    agent = sac_agent(target_entropy=-50.0, alpha_lr=0.1)  # an entropy far below any that is met: α always falls
    for _ in range(20):
        alpha = agent.update(sac_transitions(8))["alpha"].item()
        assert alpha > 0
    assert alpha == pytest.approx(0.2 * math.exp(-1.9), rel=0.02)


def test_E003_53():
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


def test_R003_26():
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


def test_R003_27():
    """-dim(A) by default, within reach: one dimension of tanh N(0, σ) has from -1.6 (σ = 0.05) to ln 2."""
    for action_dim in (1, 3, 6):
        metrics = sac_agent(action_dim).update(sac_transitions(8, action_dim))
        assert metrics["target_entropy"].item() == -action_dim
    noise = normal_noise(2001)
    entropy = {std: -squashed_log_prob(std * noise, 0.0, std).mean().item() for std in (0.05, 0.5, 0.87, 2.0, 7.0)}
    assert entropy[0.05] < -1 < entropy[0.5] and max(entropy.values()) < math.log(2)
    assert entropy[0.05] == pytest.approx(-1.58, abs=5e-3)


def test_E003_49():
    """The note's arrow would set the critics, here 1, to the targets' 0; ours sets the targets, which are copies."""
    agent = sac_agent()
    for critic, target in zip(agent.critics.parameters(), agent.critics_target.parameters(), strict=True):
        assert torch.equal(critic, target) and critic.data_ptr() != target.data_ptr()
    agent = sac_agent(q=(1.0, 1.0), q_target=(0.0, 0.0), tau=1.0, critic_lr=1e-9)
    agent.update(sac_transitions(8))
    biases = [twin.net[-1].bias.item() for twin in (*agent.critics, *agent.critics_target)]
    assert biases == pytest.approx([1, 1, 1, 1], abs=1e-6)


def test_R003_33():
    """To explore, the action is drawn: arctanh a has the policy's deviation exp(-1.5) = 0.223; else it is tanh μ."""
    agent = sac_agent(mean=0.3, log_std=-1.5)
    drawn = np.arctanh([agent.act(np.zeros(3), explore=True)[0] for _ in range(1000)])
    assert drawn.mean() == pytest.approx(0.3, abs=0.03) and drawn.std() == pytest.approx(0.223, rel=0.1)
    assert agent.act(np.zeros(3), explore=False)[0] == pytest.approx(math.tanh(0.3), abs=1e-6)


def test_E003_48():
    """At the end of a task the note's target has 1 + 0.9 (8 - 0.5) = 7.75; ours is the reward 1."""
    args = T([9.0]), T([8.0]), 0.9, T([1.0]), T(0.5)
    assert 1 + 0.9 * (min(9, 8) - 0.5 * 1) == pytest.approx(7.75)
    assert sac_continuous.td_target(T([1.0]), T([1.0]), *args).item() == 1
    assert sac_continuous.td_target(T([1.0]), T([0.0]), *args).item() == pytest.approx(7.75)
    agent = sac_agent(q=(0.0, 0.0), q_target=(100.0, 100.0), alpha=0.5)
    assert agent.update(sac_transitions(reward=1.0, terminated=1.0))["critic_loss"].item() == pytest.approx(2.0)


def test_R003_28():
    """0.5 * 1 - min(2, 1) = -0.5 and 0.5 * (-3) - min(0, 5) = -1.5; in the agent, min(2, 1) of the online critics."""
    assert sac_continuous.actor_loss(T([1.0, -3.0]), T([2.0, 0.0]), T([1.0, 5.0]), T(0.5)).item() == pytest.approx(-1.0)
    agent = sac_agent(q=(2.0, 1.0), q_target=(7.0, 7.0), critic_lr=1e-9, autotune=False, alpha=0.3)
    metrics = agent.update(sac_transitions())
    assert metrics["actor_loss"].item() == pytest.approx(-0.3 * metrics["entropy"].item() - 1, abs=1e-5)


def test_R003_29():
    """σ = exp(-5) has the entropy -3.58: the temperature rises towards H₀ = -1, and falls for H₀ = -5."""
    for target_entropy, step in ((-1.0, 0.01), (-5.0, -0.01)):
        agent = sac_agent(mean=0.0, log_std=-50.0, target_entropy=target_entropy, alpha_lr=0.01)
        entropy = agent.update(sac_transitions(4096))["entropy"].item()
        assert entropy == pytest.approx(-3.58, abs=0.04)
        assert agent.log_alpha.item() == pytest.approx(math.log(0.2) + step, abs=1e-4)


def test_R003_32():
    """After 20 updates of 0.01 the targets are at 1 - 0.99²⁰ = 0.182 of the way; without the bar on the right, at 1."""
    agent = sac_agent(q=(1.0, 1.0), q_target=(0.0, 0.0), tau=0.01, critic_lr=1e-9)
    for _ in range(20):
        agent.update(sac_transitions(8))
    for target in agent.critics_target:
        assert target.net[-1].bias.item() == pytest.approx(0.1821, abs=1e-4)


def test_E003_43():
    """Step 5 wants H = -H₀ = 1, but no entropy in [-1, 1] is above ln 2: α rises at each; ours falls above H₀ = -1."""
    for entropy, ours in ((-5.0, 1), (-1.0, 0), (0.0, -1), (math.log(2), -1)):
        log_prob = torch.full((4,), -entropy)
        alpha = T(0.2, requires_grad=True)
        (-alpha * (log_prob - -1)).mean().backward()  # as printed
        assert alpha.grad < 0
        log_alpha = T(math.log(0.2), requires_grad=True)
        sac_continuous.alpha_loss(log_alpha, log_prob, T(-1.0)).backward()
        assert -log_alpha.grad.sign().item() == ours


def test_E003_52():
    """Pendulum's torque goes to 2, a bare tanh to 1, ours to 2; in torques log π is less by log 2 per dimension."""
    env = sac_continuous.make_env("Pendulum-v1")
    env.reset(seed=0)
    for action in (-1.0, 1.0):
        assert env.action_space.contains(np.array([action], np.float32))
        env.step(np.array([action], np.float32))
        assert env.unwrapped.last_u == pytest.approx(2 * action)
    env.close()
    u = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    density = squashed_log_prob(u, 0.4, 0.7).exp()
    assert torch.trapezoid(density, u[:, 0].tanh()).item() == pytest.approx(1, abs=1e-5)
    assert torch.trapezoid(density, 2 * u[:, 0].tanh()).item() == pytest.approx(2, abs=1e-5)
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    steps = [torch.distributions.TanhTransform(cache_size=1), torch.distributions.AffineTransform(0, 2, cache_size=1)]
    scaled = torch.distributions.TransformedDistribution(base, steps)
    action, log_prob = sac_continuous.squash(torch.zeros(1, 2), torch.zeros(1, 2), T([[0.3, -0.6]]))
    assert (log_prob - scaled.log_prob(2 * action)).item() == pytest.approx(2 * math.log(2), abs=1e-4)


def test_E003_59():
    """The gradient that cannot pass the sample exists without it: ∇ log π(a) f(a) has our mean, with more variance."""
    noise = normal_noise(4001)
    means = torch.zeros(4001, 1, dtype=torch.float64, requires_grad=True)
    log_std = T([[math.log(0.1)]], dtype=torch.float64)
    action, _ = sac_continuous.squash(means, log_std, noise)
    through = torch.autograd.grad(-((action - 1) ** 2).sum(), means)[0]
    drawn = 0.1 * noise  # u, of which the log-probability is asked while it stays where it is
    value = -((drawn.tanh() - 1) ** 2)[:, 0]
    _, log_prob = sac_continuous.squash(means, log_std, (drawn - means) / log_std.exp())
    score = torch.autograd.grad((log_prob * value).sum(), means)[0]
    assert through.mean().item() == pytest.approx(score.mean().item(), abs=0.01)
    assert (score.var() / through.var()).item() == pytest.approx(3007, rel=0.01)


def test_E003_45():
    """The note's forward stops at `x`, which nothing defines; ours has bounds for log σ too: -5 and 2."""

    def forward(mean_layer, state):
        return mean_layer(x)  # noqa: F821

    with pytest.raises(NameError):
        forward(torch.nn.Identity(), torch.zeros(5, 3))
    for value, bound in ((0.0, None), (50.0, 2.0), (-50.0, -5.0)):
        agent = sac_agent(action_dim=2, mean=0.4, log_std=value)
        mean, log_std = agent.actor(torch.zeros(5, 3))
        assert mean.shape == log_std.shape == (5, 2) and torch.allclose(mean, T(0.4))
        assert bound is None or torch.allclose(log_std, T(bound))


def test_E003_47():
    """1 beyond its bounds a clamp has no gradient, and log σ is stuck; ours has 1 / cosh²(4.5 / 3.5) = 0.264."""
    for value in (-6.0, 3.0):
        clamped = T(value, requires_grad=True)
        clamped.clamp(-5, 2).backward()
        assert clamped.grad.item() == 0
        agent = sac_agent(mean=0.0, log_std=value)
        agent.actor(torch.zeros(1, 3))[1].sum().backward()
        assert agent.actor.net[-1].bias.grad[1].item() == pytest.approx(0.2638, abs=1e-4)


def test_E003_41():
    """The listing sums twice: it stops for d > 1 or, repaired, counts the Gaussian d times; d = 1 hides it."""

    def listing(mean, log_std, noise, repaired):
        log_prob = (-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(1, keepdim=True)
        gaussian = log_prob.clone()
        correction = torch.log(1 - (mean + log_std.exp() * noise).tanh() ** 2 + 1e-6)
        if repaired:
            log_prob = log_prob - correction
        else:
            log_prob -= correction
        return log_prob.sum(1), gaussian[:, 0]

    for action_dim in (1, 2, 3):
        torch.manual_seed(0)
        mean, log_std, noise = torch.randn(3, 5, action_dim) / 2
        base = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
        transform = torch.distributions.TanhTransform(cache_size=1)
        action = transform(mean + log_std.exp() * noise)
        right = torch.distributions.TransformedDistribution(base, [transform]).log_prob(action)
        assert torch.allclose(sac_continuous.squash(mean, log_std, noise)[1], right, atol=1e-4)
        repaired, gaussian = listing(mean, log_std, noise, repaired=True)
        assert torch.allclose(repaired, right + (action_dim - 1) * gaussian, atol=1e-3)
        if action_dim > 1:
            assert not torch.allclose(repaired, right, atol=0.5)
            with pytest.raises(RuntimeError, match="broadcast"):
                listing(mean, log_std, noise, repaired=False)


def test_R003_30():
    """Before tanh, our log-probability is Normal's at μ + σ ε, and so are its gradients."""
    torch.manual_seed(0)
    mean, log_std, noise = (torch.randn(3, 6, 2) / 2).double()
    gradients = []
    for ours in (True, False):
        inputs = [x.clone().requires_grad_() for x in (mean, log_std)]
        u = inputs[0] + inputs[1].exp() * noise
        if ours:
            log_prob = sac_continuous.squash(*inputs, noise)[1] + torch.log1p(-(u.tanh() ** 2)).sum(-1)
        else:
            log_prob = torch.distributions.Normal(inputs[0], inputs[1].exp()).log_prob(u).sum(-1)
        gradients.append([log_prob, *torch.autograd.grad(log_prob.sum(), inputs)])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_E003_60():
    """0.1 + 0.5 * 2 = 1.1 before tanh; the diagram's sign, read as a sum, would give 2.6."""
    action, _ = sac_continuous.squash(T([[0.1]]), T([[math.log(0.5)]]), T([[2.0]]))
    assert action.item() == pytest.approx(math.tanh(1.1), abs=1e-6)
    assert math.tanh(0.1 + 0.5 + 2) - action.item() > 0.18


def test_E003_42():
    """Q = a, α = 0.2, μ = 0.5, σ = 0.6, ε = 0.8: the note has -0.433 and -0.346, with log π it is -0.132 and -0.439.

    And where Q is flat, only the part that the note leaves out can raise the entropy.
    """

    def loss(mean, std):  # in another form: 1 - tanh² = 1 / cosh²
        u = mean + std * 0.8
        return 0.2 * (-math.log(std) + 2 * math.log(math.cosh(u))) - math.tanh(u)

    mean, std = (T([[x]], dtype=torch.float64, requires_grad=True) for x in (0.5, 0.6))
    action, log_prob = sac_continuous.squash(mean, std.log(), T([[0.8]]))
    ours = sac_continuous.actor_loss(log_prob, action[:, 0], action[:, 0], T(0.2))
    by_mean, by_std = (gradient.item() for gradient in torch.autograd.grad(ours, [mean, std]))
    assert by_mean == pytest.approx((loss(0.5 + 1e-5, 0.6) - loss(0.5 - 1e-5, 0.6)) / 2e-5, abs=1e-6)
    assert by_std == pytest.approx((loss(0.5, 0.6 + 1e-5) - loss(0.5, 0.6 - 1e-5)) / 2e-5, abs=1e-6)
    slope = 1 - math.tanh(0.98) ** 2
    assert (by_mean, by_std) == pytest.approx((-0.132, -0.439), abs=5e-4)
    assert (-slope, -slope * 0.8) == pytest.approx((-0.433, -0.346), abs=5e-4)
    agent = sac_agent(mean=0.0, log_std=-1.5, q=(0.0, 0.0), critic_lr=1e-9, actor_lr=0.01)
    agent.update(sac_transitions(256))
    assert agent.actor.net[-1].bias[1].item() == pytest.approx(-1.5 + 0.01, abs=1e-4)


def test_R003_31():
    """Our density integrates to 1 over [-1, 1], the uncorrected one to 0.56; the naive logarithm is -inf at u = 12."""
    u = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    ours = squashed_log_prob(u, 0.5, 1.0).exp()
    gaussian = torch.distributions.Normal(0.5, 1.0).log_prob(u[:, 0]).exp()
    assert torch.trapezoid(ours, u[:, 0].tanh()).item() == pytest.approx(1, abs=1e-5)
    assert torch.trapezoid(gaussian, u[:, 0].tanh()).item() == pytest.approx(0.562, abs=5e-4)
    assert torch.log(1 - T(12.0).tanh() ** 2) == -math.inf
    _, log_prob = sac_continuous.squash(T([[12.0]]), T([[0.0]]), T([[0.0]]))  # log 4 - 24, and N's -0.919
    assert log_prob.item() == pytest.approx(-0.9189 - (math.log(4) - 24), abs=1e-3)


def test_E003_46():
    """With 1e-6 in the logarithm it is wrong by 0.26 at u = 7, by 8.8 at 12, and its slope is 0 instead of -2 at 12."""
    for u, error in ((3.0, 0.0001), (5.0, 0.0055), (7.0, 0.2629), (9.0, 2.8573), (12.0, 8.7983)):
        exact = -2 * math.log(math.cosh(u))  # 1 - tanh² = 1 / cosh²
        assert math.log(1 - math.tanh(u) ** 2 + 1e-6) - exact == pytest.approx(error, abs=5e-5)
        mean = T([[u]], requires_grad=True)
        _, log_prob = sac_continuous.squash(mean, T([[0.0]]), T([[0.0]]))
        assert -0.9189385 - log_prob.item() == pytest.approx(exact, abs=1e-5)
    notes = torch.log(1 - mean.tanh() ** 2 + 1e-6)
    assert torch.autograd.grad(notes, mean)[0].item() == 0
    assert torch.autograd.grad(log_prob, mean)[0].item() == pytest.approx(2)


def test_E003_62():
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


def test_E003_50(monkeypatch):
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


def test_E003_63():
    """The listing's backward leaves a gradient in the critics that would raise Q; ours leaves none, and they stay."""
    critic, action = torch.nn.Linear(1, 1), torch.nn.Parameter(T([[0.5]]))
    (-critic(action)).mean().backward()
    assert critic.weight.grad.item() == -0.5 and critic.bias.grad.item() == -1
    agent = sac_agent(critic_lr=1e-9, actor_lr=0.1)
    before = {name: value.clone() for name, value in agent.critics.state_dict().items()}
    agent.update(sac_transitions())
    assert all(parameter.grad is None for parameter in agent.critics.parameters())
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in agent.critics.state_dict().items())


def test_E003_64():
    """Values 1 and 0: the optimum of our loss keeps 0.0067 for the second action, of 10 and 0 it keeps 1.9e-22."""
    for scale, kept in ((1.0, 0.0067), (10.0, 1.9287e-22)):
        policy = best_policy([scale, 0.0], 0.2)
        assert policy[1].item() == pytest.approx(kept, rel=5e-3)
    better = discrete_actor_loss([0.5, 0.5], [10.0, 0.0], 0.2) - discrete_actor_loss(policy, [10.0, 0.0], 0.2)
    assert better > 4.8  # to try the other as often costs 5 and brings no more than 0.2 ln 2


def test_R003_47():
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


def test_R003_48():
    """Q from (0.01, 0) to (-0.01, 0): a greedy policy flips; ours moves 0.512 to 0.488, but flips at α = 0.001."""
    for alpha, expected in ((0.2, (0.5125, 0.4875)), (0.001, (0.99995, 0.00005))):
        moved = [best_policy([q, 0.0], alpha)[0].item() for q in (0.01, -0.01)]
        assert moved == pytest.approx(expected, abs=5e-6 if alpha < 0.01 else 5e-5)
    assert [T([q, 0.0]).argmax().item() for q in (0.01, -0.01)] == [0, 1]


def test_R003_50():
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


def test_R003_51():
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


def test_R003_52():
    """At the optimum the slope of our loss, less its sign, is the same for every action: the multiplier, 0.8646."""
    q, alpha = T([1.0, 0.2, -0.5, 0.9], dtype=torch.float64), 0.4
    policy = best_policy(q, alpha).requires_grad_()
    (gradient,) = torch.autograd.grad(discrete_actor_loss(policy, q, alpha), policy)
    assert (-gradient).tolist() == pytest.approx([0.8646] * 4, abs=1e-4)
    log_z = math.log(sum(math.exp(x / alpha) for x in q.tolist()))
    assert math.exp(-(alpha + 0.8646) / alpha) == pytest.approx(math.exp(-log_z), rel=1e-3)  # 1 / Z, as the note has it


# ---- Note 004: SAC, part 2 ----
def test_E004_4():
    """The softmax of an old policy (0.9, 0.1) is (0.69, 0.31) whatever Q says; ours is the softmax of Q / α."""
    q, alpha = [0.0, 1.0], 0.5
    of_policy = T([0.9, 0.1]).softmax(0).tolist()
    assert of_policy == pytest.approx([0.690, 0.310], abs=5e-4)
    assert best_policy(q, alpha).tolist() == pytest.approx([0.1192, 0.8808], abs=1e-4)  # 1 / (1 + e²)
    assert discrete_actor_loss(of_policy, q, alpha) > discrete_actor_loss([0.1192, 0.8808], q, alpha) + 0.4


def test_R004_1():
    """Cross-entropy, by PyTorch's loss, less entropy is the KL of our actor's loss."""
    p, q = [0.2, 0.5, 0.3], [0.6, 0.1, 0.3]
    cross_entropy = F.cross_entropy(T(q).log(), T(p)).item()
    entropy = torch.distributions.Categorical(T(p)).entropy().item()
    assert cross_entropy - entropy == pytest.approx(discrete_kl(p, q), abs=1e-5)
    assert discrete_kl(p, q) == pytest.approx(0.5850, abs=1e-4)  # 0.2 ln(1/3) + 0.5 ln 5


def test_R004_2():
    """Where q is 0 and p is not, the loss is infinite; where p is 0, that action is never drawn and counts 0."""
    assert discrete_kl([0.5, 0.5], [1.0, 0.0]) == math.inf
    assert discrete_kl([1.0, 0.0], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert discrete_kl([0.5, 0.5, 0.0], [0.25, 0.5, 0.25]) == pytest.approx(0.5 * math.log(2))
    almost = discrete_kl([1 - 1e-9, 1e-9], [0.5, 0.5])  # the limit of p log p at 0
    assert almost == pytest.approx(math.log(2), abs=1e-6)


def test_R004_3():
    """For a fixed p, cross-entropy less KL is H(p) = 1.0297 for every q, and both are least at q = p."""
    p = [0.2, 0.5, 0.3]
    torch.manual_seed(0)
    for q in torch.randn(20, 3).double().softmax(-1):
        cross_entropy = F.cross_entropy(q.log(), T(p).double()).item()
        assert cross_entropy - discrete_kl(p, q.tolist()) == pytest.approx(1.0297, abs=1e-4)
        assert cross_entropy > 1.0297
    least = F.cross_entropy(T(p).log(), T(p)).item()
    assert discrete_kl(p, p) == pytest.approx(0) and least == pytest.approx(1.0297, abs=1e-4)


def test_R004_4():
    """H(p, p) = H(p) = 0.5004 is not 0, and KL has 0.335 in one and 0.382 in the other order."""
    p, q = [0.2, 0.8], [0.6, 0.4]
    assert F.cross_entropy(T(p).log(), T(p)).item() == pytest.approx(0.5004, abs=1e-4)
    assert (discrete_kl(p, q), discrete_kl(q, p)) == pytest.approx((0.3348, 0.3819), abs=1e-4)


def test_R004_5():
    """The Hessian of our squashed policy's KL is Fisher's diag(1 / σ², 2 / σ²), tanh or not."""
    noise, mean, std = normal_noise(20_001), 0.3, 0.7

    def kl(theta):
        return squashed_kl((mean, std), (theta[0], theta[1]), noise)

    hessian = torch.autograd.functional.hessian(kl, T([mean, std], dtype=torch.float64))
    assert torch.allclose(hessian, torch.diag(T([1 / 0.49, 2 / 0.49])).double(), rtol=5e-3, atol=1e-6)


def test_E004_11():
    """N(0, 2) and N(8, 2): KL is 8 if 2 is the deviation, as in our squash, and 16 if it is the variance."""
    noise = normal_noise(4001)
    assert squashed_kl((0.0, 2.0), (8.0, 2.0), noise).item() == pytest.approx(8, abs=1e-3)
    assert squashed_kl((0.0, 2**0.5), (8.0, 2**0.5), noise).item() == pytest.approx(16, abs=1e-3)


def test_E004_1():
    """Our mean is near 8 for 500 as for 5000 samples; it is a sum, 3,900 to 40,000, that grows with their number."""
    torch.manual_seed(0)
    sums = []
    for size in (500, 1000, 2000, 5000):
        noise = torch.randn(size, 1).double()
        mean = squashed_kl((0.0, 2.0), (8.0, 2.0), noise).item()
        assert mean == pytest.approx(8, abs=4 * 4 / math.sqrt(size))  # the log-ratio, 8 - 2 u, has deviation 4
        sums.append(size * mean)
    assert 8 < sums[-1] / sums[0] < 12


def test_E004_2():
    """KL(N(0, 2) || N(3, s)) is 5.31, 0.589 and 1.82 for s = 1, √13 and 20: it is KL that changes, not a bias."""
    noise = normal_noise(100_001)
    for std, exact in ((1.0, 5.3069), (13**0.5, 0.5893), (20.0, 1.8188)):
        assert squashed_kl((0.0, 2.0), (3.0, std), noise).item() == pytest.approx(exact, abs=5e-4)


def test_R004_6():
    """Q = -(a - 1)² at 0: DDPG's gradient is 2 without any draw; single draws of ∇ log π Q, σ = 0.1, by 10.7."""
    action = T([0.0], requires_grad=True)
    ddpg.actor_loss(-((action - 1) ** 2)).backward()
    assert -action.grad.item() == 2
    noise = normal_noise(100_001)[:, 0]
    score = noise / 0.1 * -((0.1 * noise - 1) ** 2)  # ∇ log N(a; 0, 0.1) times the value
    assert score.mean().item() == pytest.approx(2, abs=1e-3) and score.std().item() == pytest.approx(10.7, abs=0.05)


def test_E004_10():
    """Of several actions none has probability 1; a single one has."""
    actions = torch.arange(3)
    several, _ = ppo_discrete.categorical(T([1.0, 2.0, 3.0]).expand(3, 3), actions)
    assert several.exp().tolist() == pytest.approx([0.0900, 0.2447, 0.6652], abs=1e-4)
    single, _ = ppo_discrete.categorical(T([[5.0]]), T([0]))
    assert single.exp().item() == 1


def test_E004_6():
    """A softmax over Q changes with Q; our actions have a squashed Gaussian's quantiles whatever the critics."""
    agent = sac_agent(mean=0.3, log_std=-1.5)
    drawn = []
    for value in (0.0, 100.0):
        for critic in agent.critics:
            critic.net[-1].bias.data.fill_(value)
            critic.net[-1].weight.data.normal_()
        torch.manual_seed(0)
        drawn.append(np.array([agent.act(np.zeros(3), explore=True)[0] for _ in range(1000)]))
    assert np.array_equal(*drawn)
    for quantile, z in ((0.1, -1.2816), (0.5, 0.0), (0.9, 1.2816)):
        assert np.quantile(drawn[0], quantile) == pytest.approx(math.tanh(0.3 + math.exp(-1.5) * z), abs=0.03)


def test_R004_7():
    """Our optimum sums to 1, gives each action a share, and is winner-take-all only as the temperature goes to 0."""
    q = [1.0, 0.9, 0.2]
    warm, cold, hot = (best_policy(q, alpha) for alpha in (0.5, 0.01, 1e3))
    for policy in (warm, cold, hot):
        assert policy.sum().item() == pytest.approx(1)
    assert warm.tolist() == pytest.approx([0.495, 0.405, 0.100], abs=5e-4)
    assert cold[0] > 0.999 and hot.tolist() == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_E004_3():
    """Cross-entropy alone makes the policy greedy; our loss, with α log π, has the softmax (0.495, 0.100, 0.405)."""
    q, alpha = T([1.0, 0.2, 0.9], dtype=torch.float64), 0.5
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(2000):
        loss = -(logits.softmax(0) @ (q / alpha).log_softmax(0))  # H(π, p)
        logits.data -= 10 * torch.autograd.grad(loss, logits)[0]
    assert logits.softmax(0)[0] > 0.999
    assert best_policy(q, alpha).tolist() == pytest.approx([0.495, 0.100, 0.405], abs=5e-4)


def test_E004_9():
    """σ = exp(2): of a Gaussian 89% are outside of [-1, 1], its entropy is 3.4; ours stays inside, and below ln 2."""
    std, noise = math.exp(2.0), normal_noise(4001)
    normal = torch.distributions.Normal(0.0, std)
    assert 2 * normal.cdf(T(-1.0)).item() == pytest.approx(0.892, abs=1e-3)
    assert normal.entropy().item() == pytest.approx(3.419, abs=1e-3)
    action, log_prob = sac_continuous.squash(T([[0.0]]), T([[2.0]]), noise)
    assert action.abs().max() <= 1 and -log_prob.mean().item() < math.log(2)
    agent = sac_agent(mean=0.0, log_std=50.0)  # at the bound, 2
    assert all(abs(agent.act(np.zeros(3), explore=True)[0]) <= 1 for _ in range(20))


def test_E004_5():
    """Q = (1, 0), α = 0.5: a softmax of Q itself has 0.731, our loss 0.881 = softmax(Q / α); they agree for α = 1."""
    assert T([1.0, 0.0]).softmax(0)[0].item() == pytest.approx(0.731, abs=5e-4)
    assert best_policy([1.0, 0.0], 0.5)[0].item() == pytest.approx(0.881, abs=5e-4)
    assert best_policy([1.0, 0.0], 1.0)[0].item() == pytest.approx(0.731, abs=5e-4)


def test_R004_8():
    """With α log Z our loss is α KL, without it less by the constant α log Z; the gradients are the same."""
    alpha, grid = 0.2, torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    log_z = torch.trapezoid((-((grid - 0.3) ** 2) / alpha).exp(), grid).log()
    noise, results = normal_noise(2001), []
    for constant in (torch.zeros(()), log_z):
        mean, log_std = (T([[x]], dtype=torch.float64, requires_grad=True) for x in (0.5, -0.4))
        action, log_prob = sac_continuous.squash(mean, log_std, noise)
        q = -((action[:, 0] - 0.3) ** 2) - alpha * constant
        loss = sac_continuous.actor_loss(log_prob, q, q, T(alpha))
        results.append([loss, *torch.autograd.grad(loss, [mean, log_std])])
    (bare, *without), (whole, *with_z) = results
    assert torch.allclose(torch.cat(without), torch.cat(with_z), atol=1e-12)
    assert (whole - bare).item() == pytest.approx(alpha * log_z.item()) and whole > 0


def test_R004_11():
    """Targets of the critics only: 67,844 parameters of the actor, 4 times 67,585 of a critic, and log α."""
    agent = sac_agent(action_dim=2)
    actor = (3 * 256 + 256) + (256 * 256 + 256) + (256 * 4 + 4)
    critic = (5 * 256 + 256) + (256 * 256 + 256) + (256 + 1)
    assert sum(parameter.numel() for parameter in agent.parameters()) == actor + 4 * critic + 1


def test_R004_9(monkeypatch):
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


def test_E004_7():
    """KL(0, 2) = 2 > 0.5 + 0.5 breaks the triangle inequality; the distance is √(2 KL): 2 = 1 + 1."""
    noise = normal_noise(4001)
    far, near, rest = (squashed_kl((a, 1.0), (b, 1.0), noise).item() for a, b in ((0.0, 2.0), (0.0, 1.0), (1.0, 2.0)))
    assert (far, near, rest) == pytest.approx((2, 0.5, 0.5), abs=1e-3)
    assert math.sqrt(2 * far) == pytest.approx(math.sqrt(2 * near) + math.sqrt(2 * rest), abs=1e-3)


def test_E004_8():
    """On Q = -a² the deterministic action has 0, the stochastic policy -0.045: not better everywhere."""
    noise, zero = normal_noise(4001), T([[0.0]], dtype=torch.float64)
    action, _ = sac_continuous.squash(zero, zero - 1.5, noise)  # σ = exp(-1.5) = 0.2231
    assert -(action**2).mean().item() == pytest.approx(-0.045, abs=5e-4)
    agent = sac_agent(mean=0.0, log_std=-1.5)
    assert agent.act(np.zeros(3), explore=False)[0] == 0
    drawn = np.array([agent.act(np.zeros(3), explore=True)[0] for _ in range(1000)])
    assert -(drawn**2).mean() == pytest.approx(-0.045, abs=0.006)


def test_R004_10():
    """No pair of distributions has a KL below 0 in our actor's loss; in bits it is the same over ln 2."""
    torch.manual_seed(0)
    for p, q in (2 * torch.randn(100, 2, 3).double()).softmax(-1):
        nats = discrete_kl(p.tolist(), q.tolist())
        assert nats > 0
        assert (p * (p / q).log2()).sum().item() == pytest.approx(nats / math.log(2))


def test_R004_12():
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


def test_R004_13():
    """tanh has slope 0.00018 at 5; and where the critic is flat along the action, no reward moves the actor at all."""
    agent = make(ddpg, actor_lr=0.1, critic_lr=0.1)
    outputs(agent.actor.net[-1], [5.0, 0.0])
    agent.actor(torch.zeros(1, 4)).sum().backward()
    saturated, free = agent.actor.net[-1].bias.grad.tolist()
    assert saturated == pytest.approx((math.tanh(5.001) - math.tanh(4.999)) / 0.002, abs=5e-6)
    assert saturated == pytest.approx(0.00018, abs=5e-6) and free == 1
    agent.zero_grad(set_to_none=True)
    fill(agent.critic, 0.0)
    outputs(agent.critic.net[-1], [1.0])  # Q = 1 everywhere, and right: each transition has reward 1 and ends the task
    before = [parameter.clone() for parameter in agent.actor.parameters()]
    for _ in range(5):
        agent.update(transitions(ddpg, reward=torch.ones(16), terminated=torch.ones(16)))
    assert all(torch.equal(a, b) for a, b in zip(before, agent.actor.parameters(), strict=True))


def test_R004_14():
    """Raising one input of three lowers the other two probabilities, and by the same factor: their ratio stays e."""
    shares = []
    for third in (3.0, 4.0):
        log_prob, _ = ppo_discrete.categorical(T([1.0, 2.0, third]).expand(3, 3), torch.arange(3))
        shares.append(log_prob.exp())
        assert shares[-1].sum().item() == pytest.approx(1) and shares[-1][1] / shares[-1][0] == pytest.approx(math.e)
    assert shares[0].tolist() == pytest.approx([0.0900, 0.2447, 0.6652], abs=5e-5)
    assert shares[1].tolist() == pytest.approx([0.0420, 0.1142, 0.8438], abs=5e-5)


def test_R004_15():
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


def test_E004_12():
    """An outcome split into two equal halves: 2 KL stays 0.0004, the squared plain distance falls to 0.00015."""
    whole, split = ([0.5, 0.5], [0.51, 0.49]), ([0.25, 0.25, 0.5], [0.255, 0.255, 0.49])
    assert [2 * discrete_kl(*pair) for pair in (whole, split)] == pytest.approx([0.0004] * 2, abs=5e-7)
    plain = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in (whole, split)]
    assert plain == pytest.approx([0.0002, 0.00015])
