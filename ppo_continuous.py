# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "numpy==2.4.6", "gymnasium[box2d,classic-control,mujoco]==1.4.0", "mujoco==4.0.0",
#     "tyro==1.0.17", "tqdm==4.70.1", "tensorboard==2.21.0", "wandb==0.31.0", "moviepy==2.2.1"]
# ///
"""Proximal Policy Optimization (PPO) for continuous actions.

Paper      J. Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347, 2017
Run        python ppo_continuous.py --env-id HalfCheetah-v5
           python ppo_continuous.py --resume RUN_DIR
           python ppo_continuous.py --evaluate RUN_DIR --capture-video
Results    mean ± deviation over 5 seeds of the last deterministic evaluation, of HalfCheetah over 10; curves in
           benchmark/results; with --num-envs 64 --num-steps 32 HalfCheetah-v5 has 6600 ± 1294
           HalfCheetah-v5  4505 ± 1198    Hopper-v5            3207 ± 639    1,000,000 steps
           Walker2d-v5     4018 ± 1210    InvertedPendulum-v5  1000 ± 0      1,000,000 steps
           Pendulum-v1     -149.3 ± 5.4                                        100,000 steps

Symbols    T, N          num_steps, num_envs: a rollout is T steps of N environments
           s, a, r, s'   obs [T, N, obs_dim], action [T, N, action_dim], reward [T, N], next_obs [T, N, obs_dim]
           d             terminated [T, N]: 1 at a true end of the task, 0 everywhere else, also at a time limit
           e             done [T, N]: 1 at the end of an episode of either kind
           π, V          actor, critic; log_prob = log π(a|s) and value [B]; π_old, V_old as they were in the rollout
           A, δ          advantage [T, N], and the part of it from one step
           ρ, ε          ratio of π to the acting π_old [B]; clip_coef, the distance from 1 where it stops to pay
           γ, λ          gamma, gae_lambda
           μ, log σ      mean, log_std [B, action_dim] of the Gaussian π
           H, c, H̄       entropy of π(·|s) in nats [B], summed over the action's dimensions, and ent_coef,
                         target_entropy []

Algorithm  in each iteration (the paper's Algorithm 1):
           act a ~ π(s) for T steps of N environments                                    Rollout
           log π(a|s) and H of the Gaussian N(μ, σ²)                                     gaussian
           Aₜ = δₜ + γ λ (1 - eₜ) Aₜ₊₁,  δ = r + γ (1 - d) V(s') - V(s)                  gae, discounted_sum
           in update_epochs passes, for each of num_minibatches:
           ρ = π(a|s) / π_old(a|s);  -mean min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)             policy_loss
           mean ½ (V(s) - A - V_old(s))²                                                 value_loss
           descend policy_loss + vf_coef value_loss - c mean H                           total_loss
           c or log c along a line, or descend log c (mean H - H̄)                        linear_schedule, ent_coef_loss

The sign   What is descended contains -c H, whose gradient pushes the entropy up: a bonus for acting at random.
           The paper writes an objective to be climbed, with +c S: the same. Libraries that log an "entropy loss", -H,
           and add c times that, do the same too. But c H added to what is descended makes the policy certain of an
           action before it knows which is good: note 002's formula. A learning curve hardly shows it, since easy tasks
           are solved all the same; a step in which all advantages are 0 does: with c > 0 it must raise the entropy.

Differs    a time limit is no end: V of the true last observation goes into δ
from the   advantages normalised in each minibatch, gradients cut to a norm, orthogonal initial weights, a value
paper      loss with a factor ½, step size annealed: as in its authors' code, whose clipping of that loss is left out
           rewards and observations scaled by running statistics, those of observations as they were before the rollout
           actions are clipped to their range by the environment, so that log π is that of the Gaussian
           log σ is bounded to [-5, 2], since the bonus only ever pushes it up: the parameter after each step, a head by
           a smooth function
           log σ begins at -0.5 where the authors' code has 0: with 0 three seeds of HalfCheetah-v5 had 1765, 1974 and
           1905 after 1,000,000 steps (not kept), presumably since more of their actions were clipped
           c annealed or learned towards an entropy, as the notes describe

The notes  kept: one loss of policy, value and entropy; c from 0.01 to 0.0001; c learned; σ as parameter or as a head.
           Put right (rows of NOTES.md): the sign of the entropy in the loss (E002-1); entropy as a mean over the
           action's dimensions, here a sum (E001-3); the direction of the learned c (E001-1); σ itself as a parameter,
           which a step can make negative: log σ (E000-5). That the entropy's gradient reaches σ alone holds for the
           parameter; a head passes it on to the layers below (E000-1).
           The bonus is no part of the return: advantages and targets of a rollout do not contain c (E000-7).
"""

import contextlib
import functools
import importlib.util
import io
import itertools
import json
import math
import os
import re
import shutil
import signal
import sys
import time
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    # the run: the same in every script
    env_id: str = "HalfCheetah-v5"  # Gymnasium id of the environment
    seed: int = 1  # seed of the networks, the noise, the batches and the environment
    total_timesteps: int = 1_000_000  # total number of environment steps
    cuda: bool = True  # use CUDA where there is a device, else the CPU
    torch_threads: int = 1  # CPU threads of PyTorch
    compile: bool = False  # compile the update with torch.compile, in about a minute at the start
    cudagraphs: bool = False  # replay the update as a CUDA graph
    track: bool = False  # send scalars, arguments and videos to Weights & Biases too
    wandb_project: str = "plainrl"  # project at Weights & Biases
    wandb_entity: str | None = None  # user or team at Weights & Biases
    capture_video: bool = False  # record the first episode of an evaluation; with --evaluate all
    log_interval: int = 1_000  # environment steps between two logs of the losses
    eval_interval: int = 10_000  # environment steps between two evaluations; 0: none
    eval_episodes: int = 10  # deterministic episodes in an evaluation
    checkpoint_interval: int = 50_000  # least number of environment steps between checkpoints; 0: only the last
    resume: str | None = None  # RUN_DIR of an interrupted run, to go on with all its arguments
    evaluate: str | None = None  # RUN_DIR of a run, to play eval_episodes with its agent and stop
    out_dir: str = "runs"  # folder in which the run makes one of its own
    # the algorithm
    num_envs: int = 1  # N, environments that are stepped together (authors' code)
    num_steps: int = 2048  # T, steps of each environment in a rollout (paper, Table 3)
    num_minibatches: int = 32  # parts of a rollout, one for each step of Adam (paper, Table 3: of 64)
    update_epochs: int = 10  # passes over a rollout (paper, Table 3)
    learning_rate: float = 3e-4  # Adam step size (paper, Table 3)
    anneal_lr: bool = True  # let the step size fall linearly to 0 (authors' code)
    gamma: float = 0.99  # γ, discount (paper, Table 3)
    gae_lambda: float = 0.95  # λ of generalised advantage estimation (paper, Table 3)
    clip_coef: float = 0.2  # ε, bound of the ratio's distance to 1 (paper, Section 6.1)
    vf_coef: float = 0.5  # weight of the value loss (authors' code)
    max_grad_norm: float = 0.5  # norm to which longer gradients are cut (authors' code)
    target_kl: float | None = None  # end the passes after one with a larger KL(π_old || π); None: never (CleanRL)
    norm_adv: bool = True  # normalise the advantages in each minibatch (authors' code)
    ent_coef: float = 0.0  # c, weight of the entropy, or its first value (paper, Section 6.1)
    ent_coef_schedule: Literal["constant", "linear", "exponential"] = "constant"  # how c moves to ent_coef_end
    ent_coef_end: float | None = None  # last value of a c that moves (note 001: 0.0001)
    ent_coef_duration: int = 0  # environment steps until a moving c arrives
    ent_autotune: bool = False  # learn c, so that the entropy approaches target_entropy (note 001)
    ent_coef_lr: float = 1e-3  # Adam step size of log c (note 001)
    target_entropy: float | None = None  # H̄ in nats, or its first value; None: -action_dim (note 001)
    target_entropy_end: float | None = None  # last value of an H̄ that moves linearly (note 001)
    target_entropy_duration: int = 0  # environment steps until a moving H̄ arrives
    std: Literal["parameter", "head"] = "parameter"  # log σ: one for all states (authors' code) or a head (note 000)
    norm_obs: bool = True  # scale observations by their running mean and deviation (authors' code)
    norm_reward: bool = True  # scale rewards by the running deviation of the discounted return (authors' code)


# ---- Equations: tensors and floats in, tensors out ----
def linear_schedule(start: float, end: float, duration: int, step: int) -> float:
    """From start to end along a line, and end from then on: of the step size, of c and of H̄.

    start, end: values at step 0 and at step duration; step: environment steps before the rollout.
    Source: arXiv:1707.06347, Table 5 (α).
    """
    return start + (end - start) * min(step / max(duration, 1), 1)


def gaussian(mean: Tensor, log_std: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """log π(a|s) = Σⱼ log N(aⱼ; μⱼ, σⱼ) [B], and H = Σⱼ (log σⱼ + ½ log 2πe) [B] in nats, of a Gaussian policy.

    mean, action: μ, a [B, action_dim]; log_std: log σ [B, action_dim], or [action_dim], and then H is [].
    Source: arXiv:1707.06347, Sections 5 (S) and 6.1.
    """
    log_normal = -0.5 * ((action - mean) * (-log_std).exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
    return log_normal.sum(-1), (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def discounted_sum(x: Tensor, kept: Tensor) -> Tensor:
    """yₜ = xₜ + keptₜ yₜ₊₁ [T, N], with no y after the last row. x, kept: [T, N].

    In log₂ T rounds, each of which doubles the number of rows whose x is in every y: T steps would take longer.
    Source: W. D. Hillis and G. L. Steele, "Data Parallel Algorithms", Communications of the ACM 29 (12), 1986.
    """
    num_rows = 1
    while num_rows < len(x):
        later_x, later_kept = F.pad(torch.stack([x, kept])[:, num_rows:], (0, 0, 0, num_rows))
        x, kept = x + kept * later_x, kept * later_kept
        num_rows *= 2
    return x


def gae(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Aₜ = δₜ + γ λ (1 - eₜ) Aₜ₊₁ [T, N] with δ = r + γ (1 - d) V(s') - V(s): no value after an end of the task, and
    nothing of the next episode after an end of either kind.

    reward, value, next_value, terminated, done: r, V(s), V(s'), d, e [T, N], s' the true successor; gamma: γ;
    gae_lambda: λ. Source: arXiv:1506.02438, Section 3; arXiv:1707.06347, Section 5; the masks are ours.
    """
    delta = reward + gamma * (1 - terminated) * next_value - value
    return discounted_sum(delta, gamma * gae_lambda * (1 - done))


def policy_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_coef: float) -> Tensor:
    """-mean min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) [] with ρ = π(a|s) / π_old(a|s): no gain from going further than ε.

    log_prob, old_log_prob: log π, log π_old [B]; advantage: A [B]; clip_coef: ε.
    Source: arXiv:1707.06347, Section 3.
    """
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_coef, 1 + clip_coef) * advantage).mean()


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """mean ½ (V(s) - target)² []. value, target: V(s), A + V_old(s) [B].

    Source: arXiv:1707.06347, Section 5; the ½ is of its authors' code.
    """
    return 0.5 * F.mse_loss(value, target)


def total_loss(policy_loss: Tensor, value_loss: Tensor, entropy: Tensor, vf_coef: float, ent_coef: Tensor) -> Tensor:
    """policy_loss + vf_coef value_loss - c H [], to be descended: the entropy is subtracted.

    policy_loss, value_loss: []; entropy: mean H [], in nats, not negated; vf_coef: weight; ent_coef: c [].
    Source: arXiv:1707.06347, Section 5, whose objective is climbed and has the other signs.
    """
    return policy_loss + vf_coef * value_loss - ent_coef * entropy


def ent_coef_loss(log_ent_coef: Tensor, entropy: Tensor, target_entropy: Tensor) -> Tensor:
    """log c (H - H̄) []: descending it raises c while the entropy is below its target, and lowers c while above.

    log_ent_coef: log c []; entropy: mean H [], a constant here; target_entropy: H̄ [].
    Source: arXiv:1812.05905, Section 5, with log c for its α, and the entropy for -log π.
    """
    return log_ent_coef * (entropy.detach() - target_entropy)


# ---- Networks ----
def linear(num_inputs: int, num_outputs: int, gain: float) -> nn.Linear:
    """A layer with orthogonal weights, scaled by `gain`, and no bias at first."""
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Two hidden layers of 64 tanh units."""

    def __init__(self, num_inputs: int, num_outputs: int, gain: float):
        super().__init__()
        sizes = (num_inputs, 64, 2**0.5), (64, 64, 2**0.5), (64, num_outputs, gain)
        self.linears = nn.ModuleList(itertools.starmap(linear, sizes))
        self.weights = [(layer.weight, layer.bias) for layer in self.linears]

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.weights
        for weight, bias in hidden:  # without calls of modules, which cost time in networks so small
            x = F.linear(x, weight, bias).tanh_()
        return F.linear(x, *last)


class ActorCritic(nn.Module):
    """obs [B, obs_dim] -> mean [B, action_dim], log_std [B, action_dim] or for all states [action_dim], value [B]."""

    def __init__(self, obs_dim: int, action_dim: int, std: str):
        super().__init__()
        self.actor = MLP(obs_dim, action_dim * (2 if std == "head" else 1), 0.01)
        self.log_std = nn.Parameter(torch.full((action_dim,), -0.5)) if std == "parameter" else None
        self.critic = MLP(obs_dim, 1, 1.0)

    def policy(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.actor(obs)
        if self.log_std is not None:
            return mean, self.log_std
        mean, log_std = mean.chunk(2, dim=-1)
        return mean, -1.5 + 3.5 * (log_std / 3.5 + 0.294).tanh()  # in [-5, 2], and -0.5 at 0, where it begins

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *self.policy(obs), self.critic(obs).squeeze(-1)


class Normalizer(nn.Module):
    """x [B, *shape] -> x with running mean 0 and deviation 1, within [-10, 10]. `update` takes x into the statistics.

    A module, so that they are part of the agent's state_dict. Source: Chan et al., "Algorithms for computing the sample
    variance", 1983.
    """

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        self.register_buffer("count", torch.zeros(()))

    def update(self, x: Tensor) -> None:
        share = len(x) / (self.count + len(x))  # of x in all that was seen
        shift, var = x.mean(0) - self.mean, self.std.square()
        var = var + share * (x.var(0, correction=0) - var) + share * (1 - share) * shift.square()
        self.std.copy_(var.sqrt().clamp(min=1e-4))
        self.mean.add_(share * shift)
        self.count.add_(len(x))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).clamp(-10, 10)


class RewardScaler(nn.Module):
    """reward, done [T, N] -> reward over the running deviation of the discounted return, within [-10, 10].

    The return Rₜ = rₜ + γ Rₜ₋₁ goes on from one call to the next, and starts anew after an end of either kind.
    """

    def __init__(self, num_envs: int, gamma: float):
        super().__init__()
        self.gamma, self.statistics = gamma, Normalizer(())
        self.register_buffer("carried", torch.zeros(num_envs), persistent=False)  # a resumed run has new episodes

    def forward(self, reward: Tensor, done: Tensor) -> Tensor:
        kept, first = self.gamma * (1 - done), reward[:1] + self.carried
        # Rₜ = rₜ + keptₜ₋₁ Rₜ₋₁ is a sum as in `gae`, but from front to back; nothing comes before row 0
        returns = discounted_sum(torch.cat([first, reward[1:]]).flip(0), kept.roll(1, 0).flip(0)).flip(0)
        self.carried.copy_(kept[-1] * returns[-1])
        self.statistics.update(returns.flatten())
        return (reward / self.statistics.std).clamp(-10, 10)


# ---- Rollout ----
# obs, next_obs [T, N, *obs_shape], action [T, N, *action_shape], reward, terminated, done [T, N]
Batch = namedtuple("Batch", "obs action reward next_obs terminated done")


class Rollout:
    """T steps of N environments in NumPy's arrays; values and log-probabilities are computed afterwards, at once."""

    def __init__(self, obs_space: gym.spaces.Box, action_space: gym.spaces.Space, num_steps: int, num_envs: int):
        dtype = np.uint8 if len(obs_space.shape) == 3 else np.float32
        obs = np.zeros((num_steps, num_envs, *obs_space.shape), dtype)
        action = np.zeros((num_steps, num_envs, *action_space.shape), action_space.dtype)
        reward, terminated, done = np.zeros((3, num_steps, num_envs), np.float32)
        self.arrays = Batch(obs, action, reward, np.zeros_like(obs), terminated, done)

    def add(self, t: int, *values: np.ndarray) -> None:
        """Step t: values as in Batch, each [N, ...]; next_obs is the true successor, also where an episode ends."""
        for array, value in zip(self.arrays, values, strict=True):
            array[t] = value

    def batch(self, device: torch.device) -> Batch:
        return Batch(*(torch.from_numpy(array).to(device) for array in self.arrays))


# ---- Agent ----
# PyTorch's fused kernel as an operator of its own, which torch.compile takes into its graph as it is: fused into other
# loops, Adam is several times slower on a CPU.
adam = torch.library.Library(f"adam_{__name__.strip('_')}", "FRAGMENT")
adam.define(
    "step(Tensor(a!)[] p, Tensor(b!)[] grads, Tensor(c!)[] means, Tensor(d!)[] squares, "
    "Tensor t, Tensor lr, Tensor scale, Tensor loss) -> ()"
)
adam.impl("step", lambda *tensors: fused_adam(*tensors), "CompositeExplicitAutograd")
adam.impl("step", lambda *_: None, "Meta")
adam_step = getattr(torch.ops, adam.ns).step.default


def fused_adam(parameters, grads, means, squares, num_steps, lr, scale, _) -> None:
    options = {"lr": lr, "beta1": 0.9, "beta2": 0.999, "eps": 1e-5, "weight_decay": 0.0, "grad_scale": scale}
    steps = [num_steps] * len(grads)
    torch._fused_adam_(parameters, grads, means, squares, [], steps, **options, amsgrad=False, maximize=False)


class Adam(nn.Module):
    """Adam (arXiv:1412.6980, Algorithm 1): torch.optim.Adam's numbers, but torch.compile keeps it within one graph.

    A module, so that its moments are part of the agent's state_dict. ε is 1e-5, as in the authors' code.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float):
        super().__init__()
        self.owned = list(parameters)
        self.register_buffer("lr", torch.tensor(lr, device=self.owned[0].device))
        self.register_buffer("num_steps", torch.zeros((), device=self.owned[0].device))
        for i, parameter in enumerate(self.owned):
            self.register_buffer(f"mean{i}", torch.zeros_like(parameter))
            self.register_buffer(f"square{i}", torch.zeros_like(parameter))
        self.means = [self.get_buffer(f"mean{i}") for i in range(len(self.owned))]
        self.squares = [self.get_buffer(f"square{i}") for i in range(len(self.owned))]

    def descend(self, loss: Tensor, max_norm: float) -> None:
        """One step down `loss` with the parameters of this optimizer; a gradient longer than max_norm is cut to it."""
        grads = [grad.contiguous() for grad in torch.autograd.grad(loss, self.owned)]  # the kernel ignores strides
        with torch.no_grad():
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            scale = (norm / max_norm).clamp(min=1)  # the kernel divides by it
            self.num_steps.add_(1)
            # torch.compile may compute a loss that is only logged after the step, unless the step takes it
            adam_step(self.owned, grads, self.means, self.squares, self.num_steps, self.lr, scale, loss.detach())


class Agent(nn.Module):
    """PPO's networks and optimizers for 1-D Boxes of observations and of actions; steps no environment."""

    def __init__(self, obs_space: gym.spaces.Box, action_space: gym.spaces.Box, args: Args):
        super().__init__()
        self.args, self.device = args, pick_device(args)
        obs_dim, action_dim = obs_space.shape[0], action_space.shape[0]
        self.network = ActorCritic(obs_dim, action_dim, args.std)
        self.normalizer, self.reward_scaler = Normalizer((obs_dim,)), RewardScaler(args.num_envs, args.gamma)
        start = float(-action_dim if args.target_entropy is None else args.target_entropy)
        end = start if args.target_entropy_end is None else args.target_entropy_end
        self.target_entropies = start, end
        self.register_buffer("target_entropy", torch.tensor(start))
        self.register_buffer("ent_coef", torch.tensor(args.ent_coef))
        self.log_ent_coef = nn.Parameter(torch.tensor(args.ent_coef if args.ent_autotune else 1.0).log())
        self.to(self.device)
        self.optimizer = Adam(self.network.parameters(), args.learning_rate)
        self.ent_coef_optimizer = Adam([self.log_ent_coef], args.ent_coef_lr)
        self.action_space = action_space
        self.views = []  # NumPy's, of the policy and of the normalizer

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "views": []}  # a copy has parameters of its own

    def load_state_dict(self, *args, **kwargs):
        self.views = []
        return super().load_state_dict(*args, **kwargs)

    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        """action [N, action_dim] for obs [N, obs_dim]: drawn from π(s) to explore, otherwise μ(s); not clipped."""
        if self.args.std == "head":
            with torch.inference_mode():
                obs = torch.as_tensor(obs, dtype=torch.float32).to(self.device, non_blocking=True)
                mean, log_std = self.network.policy(self.normalizer(obs) if self.args.norm_obs else obs)
                mean, std = mean.cpu().numpy(), log_std.exp().cpu().numpy()
        else:
            mean, std = self.numpy_policy(obs.astype(np.float32, copy=False))
        if not explore:
            return mean
        return mean + std * self.action_space.np_random.standard_normal(mean.shape, np.float32)

    def numpy_policy(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """μ, σ of the small policy on the CPU, also where the rest is on a GPU: its calls would take longer."""
        if not self.views:
            layers = [(w.detach().cpu().numpy().T, b.detach().cpu().numpy()) for w, b in self.network.actor.weights]
            others = self.network.log_std, self.normalizer.mean, self.normalizer.std
            self.views = [layers, *(tensor.detach().cpu().numpy() for tensor in others)]
        (*hidden, (weight, bias)), log_std, obs_mean, obs_std = self.views
        if self.args.norm_obs:
            x = np.maximum(np.minimum((x - obs_mean) / obs_std, 10), -10)
        for hidden_weight, hidden_bias in hidden:
            x = np.tanh(x @ hidden_weight + hidden_bias)
        return x @ weight + bias, np.exp(log_std)

    def judge(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log π(a|s), H, V(s) [B] for scaled obs [B, obs_dim] and action [B, action_dim]."""
        mean, log_std, value = self.network(obs)
        return *gaussian(mean, log_std, action), value

    def anneal(self, step: int) -> None:
        """Sets step size, c and H̄ for the update from the rollout that began at environment step `step`."""
        args = self.args
        if args.anneal_lr:
            self.optimizer.lr.fill_(linear_schedule(args.learning_rate, 0, args.total_timesteps, step))
        if args.ent_coef_schedule == "linear":
            self.ent_coef.fill_(linear_schedule(args.ent_coef, args.ent_coef_end, args.ent_coef_duration, step))
        if args.ent_coef_schedule == "exponential":
            logs = math.log(args.ent_coef), math.log(args.ent_coef_end)
            self.ent_coef.fill_(math.exp(linear_schedule(*logs, args.ent_coef_duration, step)))
        self.target_entropy.fill_(linear_schedule(*self.target_entropies, args.target_entropy_duration, step))

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """update_epochs passes over a rollout [T, N, ...] in minibatches; returns detached means over all of them."""
        self.views = []  # copies, if the parameters are on a GPU
        obs, action, reward, next_obs, terminated, done = batch
        obs, action, next_obs = (x.flatten(0, 1) for x in (obs, action, next_obs))
        seen_obs = obs
        if self.args.norm_obs:  # by what it was while acting, or log π would not be that of the policy that acted
            obs, next_obs = self.normalizer(obs), self.normalizer(next_obs)
        if self.args.norm_reward:
            reward = self.reward_scaler(reward, done)

        with torch.no_grad():
            old_log_prob, _, value = self.judge(obs, action)
            value, next_value = value.view_as(reward), self.network(next_obs)[-1].view_as(reward)
            advantage = gae(reward, value, next_value, terminated, done, self.args.gamma, self.args.gae_lambda)
        data = [obs, action, old_log_prob, advantage.flatten(), (advantage + value).flatten()]
        minibatch_size = len(obs) // self.args.num_minibatches
        rows = []
        for _ in range(self.args.update_epochs):
            order = torch.randperm(len(obs), device=self.device)
            for minibatch in zip(*(x[order].split(minibatch_size) for x in data), strict=True):
                metrics = self.update_minibatch(*minibatch)
                rows.append(torch.stack([*metrics.values()]))
            if self.args.target_kl is not None:
                of_pass = torch.stack(rows[-self.args.num_minibatches :]).mean(0)
                if dict(zip(metrics, of_pass, strict=True))["approx_kl"] > self.args.target_kl:
                    break
        if self.args.norm_obs:
            self.normalizer.update(seen_obs)
        return dict(zip(metrics, torch.stack(rows).mean(0), strict=True))

    def update_minibatch(
        self, obs: Tensor, action: Tensor, old_log_prob: Tensor, advantage: Tensor, target: Tensor
    ) -> dict[str, Tensor]:
        """One step of networks and c; old_log_prob, advantage, target: log π_old, A, A + V_old(s) [B]."""
        if self.args.norm_adv and len(advantage) > 1:
            std, mean = torch.std_mean(advantage)
            advantage = (advantage - mean) / (std + 1e-8)
        ent_coef = self.log_ent_coef.detach().exp() if self.args.ent_autotune else self.ent_coef
        log_prob, entropy, value = self.judge(obs, action)
        metrics = {"policy_loss": policy_loss(log_prob, old_log_prob, advantage, self.args.clip_coef)}
        metrics |= {"value_loss": value_loss(value, target), "entropy": entropy.mean()}
        metrics["total_loss"] = total_loss(*metrics.values(), self.args.vf_coef, ent_coef)
        self.optimizer.descend(metrics["total_loss"], self.args.max_grad_norm)
        if self.network.log_std is not None:
            with torch.no_grad():
                self.network.log_std.clamp_(-5, 2)

        if self.args.ent_autotune:
            metrics["ent_coef_loss"] = ent_coef_loss(self.log_ent_coef, metrics["entropy"], self.target_entropy)
            self.ent_coef_optimizer.descend(metrics["ent_coef_loss"], math.inf)
            metrics["target_entropy"] = self.target_entropy
        log_ratio = (log_prob - old_log_prob).detach()
        ratio = log_ratio.exp()
        metrics["approx_kl"] = (ratio - 1 - log_ratio).mean()  # estimates KL(π_old || π)
        metrics["clip_fraction"] = ((ratio - 1).abs() > self.args.clip_coef).mean(dtype=ratio.dtype)
        metrics["ent_coef"] = ent_coef
        return {name: value.detach() for name, value in metrics.items()}


def pick_device(args: Args) -> torch.device:
    return torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")


def compiled(update: Callable) -> Callable:
    """`update` in one graph: forward, backward and optimizers; with the random numbers of the plain one."""
    torch._dynamo.config.trace_autograd_ops = True
    torch._inductor.config.fallback_random = True
    return torch.compile(update, fullgraph=True)


class CudaGraph:
    """Calls `function` with one launch, as a CUDA graph, after three plain calls in which it allocates what it needs.

    Inputs are copied to where the graph reads them; what `function` returns is overwritten by the next call.
    """

    def __init__(self, function: Callable):
        self.function, self.graph, self.num_calls = function, torch.cuda.CUDAGraph(), 0
        self.stream = torch.cuda.Stream()

    def __call__(self, *inputs: Tensor):
        self.num_calls += 1
        if self.num_calls <= 3:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                output = self.function(*inputs)
            torch.cuda.current_stream().wait_stream(self.stream)
            return output
        if self.num_calls == 4:
            self.inputs = [x.clone() for x in inputs]
            with torch.cuda.graph(self.graph, stream=self.stream):  # records, does not run
                self.output = self.function(*self.inputs)
        torch._foreach_copy_(self.inputs, inputs)
        self.graph.replay()
        return self.output


# ---- Environment and evaluation ----
class UsageError(Exception):
    """What the user can put right: the script ends with its one line and status 2."""


def make_env(env_id: str, render: bool = False) -> gym.Env:
    """The environment with its actions rescaled to [-1, 1] and clipped, and info["episode"] at an episode's end."""
    if render and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo draws without a display
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of old environments
            env = gym.make(env_id, render_mode="rgb_array" if render else None)
        if render:
            with contextlib.suppress(AttributeError, KeyError):  # MuJoCo's runners leave the picture of a still camera
                env.unwrapped.mujoco_renderer.camera_id = env.unwrapped.model.camera("track").id
    except Exception as error:  # an environment's own code may raise anything
        raise UsageError(f"--env-id {env_id} cannot be made: {first_line(error)}") from error
    for name, space in {"observation": env.observation_space, "action": env.action_space}.items():
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise UsageError(f"--env-id {env_id}: its {name} space must be a Box of one dimension, but is {space}")
    if not np.isfinite([env.action_space.low, env.action_space.high]).all():
        raise UsageError(f"--env-id {env_id}: its action space is unbounded: wrap the environment to bound it")
    env = gym.wrappers.RescaleAction(gym.wrappers.RecordEpisodeStatistics(env), np.float32(-1), np.float32(1))
    return gym.wrappers.ClipAction(env)


def make_envs(args: Args) -> gym.vector.SyncVectorEnv:
    """num_envs environments for training; one that ends is reset in the same step, with its last obs in the info."""
    make = functools.partial(make_env, args.env_id)
    return gym.vector.SyncVectorEnv([make] * args.num_envs, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)


def evaluate(agent: Agent, args: Args, video: Path | None = None) -> list[float]:
    """Returns of eval_episodes deterministic episodes on fixed seeds, in an environment of its own.

    video: folder / first part of the names of the files to record.
    """
    env = make_env(args.env_id, render=video is not None)
    if video:
        recorded = range(1 if args.evaluate is None else args.eval_episodes)
        trigger, name = recorded.__contains__, video.name
        env = gym.wrappers.RecordVideo(env, str(video.parent), trigger, name_prefix=name, disable_logger=True)
    returns = []
    for episode in range(args.eval_episodes):
        obs, _ = env.reset(seed=2**31 - 1 - episode)  # far from the seeds of training
        done = False
        while not done:
            obs, _, terminated, truncated, info = env.step(agent.act(obs[None], explore=False)[0])
            done = terminated or truncated
        returns.append(float(info["episode"]["r"]))
    env.close()
    return returns


def evaluate_run(args: Args) -> None:
    """--evaluate RUN_DIR: plays the agent of RUN_DIR/agent.pt, and records into RUN_DIR/videos."""
    own = {
        name: getattr(args, name) for name in ("cuda", "torch_threads", "capture_video", "eval_episodes", "evaluate")
    }
    if args != Args(**own):
        raise UsageError(f"--evaluate takes only {', '.join(own)}, and the rest from the run: drop other arguments")
    saved = load(Path(args.evaluate, "agent.pt"))
    run_args = replace(Args(**saved["args"]), **own, compile=False, cudagraphs=False)
    check_args(run_args)
    torch.set_num_threads(args.torch_threads)
    env = make_env(run_args.env_id)
    agent = Agent(env.observation_space, env.action_space, run_args)
    agent.load_state_dict(saved["agent"])
    returns = evaluate(agent, run_args, Path(args.evaluate, "videos", "evaluate") if args.capture_video else None)
    print(*(f"episode {episode}: {value:.2f}" for episode, value in enumerate(returns)), sep="\n")
    print(f"mean ± std of {len(returns)} episodes: {np.mean(returns):.2f} ± {np.std(returns):.2f}")


# ---- Command line and files of a run ----
def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def parse_args() -> Args:
    """Args from the command line. Integers may be written 1e6; a mistake gives one line instead of tyro's box."""
    argv, integers = [], [field.name for field in fields(Args) if field.type is int]
    for previous, arg in itertools.pairwise(["", *sys.argv[1:]]):
        flag, equals, value = arg.rpartition("=")
        whole = re.fullmatch(r"\d+(\.\d+)?e\+?\d\d?", value) and float(value).is_integer()
        whole = whole and (flag or previous).lstrip("-").replace("-", "_") in integers
        argv.append(flag + equals + str(int(float(value))) if whole else arg)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(Args, args=argv)
    except SystemExit as stop:
        if not stop.code:
            raise
    lines = [line.strip("│ ") for line in box.getvalue().splitlines()[1:]]
    raise UsageError(" ".join(itertools.takewhile(lambda line: line.strip("─╰╯"), lines)))


def check_args(args: Args) -> None:
    """UsageError for what cannot work, before anything is written."""
    limits = dict.fromkeys(["total_timesteps", "torch_threads", "log_interval", "eval_episodes"], (1, math.inf))
    limits |= dict.fromkeys(["eval_interval", "checkpoint_interval"], (0, math.inf))
    limits |= dict.fromkeys(["num_envs", "num_steps", "num_minibatches", "update_epochs"], (1, math.inf))
    limits |= dict.fromkeys(["learning_rate", "ent_coef_lr", "clip_coef", "max_grad_norm", "target_kl"], (1e-9, 1e9))
    limits |= dict.fromkeys(["vf_coef", "ent_coef", "ent_coef_end"], (0, 1e9)) | {"gae_lambda": (0, 1)}
    limits |= dict.fromkeys(["ent_coef_duration", "target_entropy_duration"], (0, math.inf))
    limits |= dict.fromkeys(["target_entropy", "target_entropy_end"], (-1e9, 1e9))
    limits |= {"seed": (0, 2**32 - 1), "gamma": (0, 1)}
    for name, (low, high) in limits.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"--{name.replace('_', '-')} {value} is outside of [{low}, {high}]")
    if args.num_envs * args.num_steps % args.num_minibatches:
        size = f"--num-envs {args.num_envs} times --num-steps {args.num_steps}"
        raise UsageError(f"{size} must be a multiple of --num-minibatches {args.num_minibatches}")
    moves, is_complete = args.ent_coef_schedule != "constant", args.ent_coef_end is not None and args.ent_coef_duration
    if moves != bool(is_complete) or (not moves and (args.ent_coef_end is not None or args.ent_coef_duration)):
        raise UsageError(
            "--ent-coef-schedule linear or exponential, --ent-coef-end and --ent-coef-duration go together"
        )
    if args.ent_coef_schedule == "exponential" and not (args.ent_coef > 0 and args.ent_coef_end > 0):
        raise UsageError("--ent-coef-schedule exponential needs --ent-coef and --ent-coef-end above 0")
    if args.ent_autotune and (moves or args.ent_coef == 0):
        raise UsageError("--ent-autotune starts at --ent-coef, above 0, and leaves no room for --ent-coef-schedule")
    if (args.target_entropy_end is None) != (args.target_entropy_duration == 0):
        raise UsageError("--target-entropy-end and --target-entropy-duration go together: give both or none")
    if not args.ent_autotune and (args.target_entropy, args.target_entropy_end) != (None, None):
        raise UsageError("--target-entropy needs --ent-autotune: without it c is not learned")
    if args.compile and not any(map(shutil.which, ["g++", "clang++", "cl"])):
        raise UsageError("--compile needs a C++ compiler: install one, g++ say, or drop it")
    if args.compile and pick_device(args).type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UsageError("--compile on a GPU needs Triton: install triton, or drop it")
    if args.cudagraphs and pick_device(args).type != "cuda":
        raise UsageError("--cudagraphs needs a CUDA device: drop it")
    if args.capture_video:
        env = make_env(args.env_id, render=True)
        try:
            import moviepy  # noqa: F401  RecordVideo writes with it

            env.reset(seed=args.seed)
            env.render()
        except Exception as error:
            raise UsageError(f"--capture-video cannot work here: {first_line(error)}") from error


def make_run_dir(args: Args) -> Path:
    """A new folder in out_dir, with args.json."""
    name = f"{re.sub('[^A-Za-z0-9.-]', '-', args.env_id)}__{Path(__file__).stem}__{args.seed}__{time.time_ns()}"
    run_dir = Path(args.out_dir, name)
    try:
        run_dir.mkdir(parents=True)
        (run_dir / "args.json").write_text(json.dumps(asdict(args), indent=2))
    except OSError as error:
        raise UsageError(f"--out-dir {args.out_dir} cannot be written: {first_line(error)}") from error
    return run_dir


class Logger:
    """Scalars to TensorBoard and, with --track, to Weights & Biases, whose failure costs a warning and not the run."""

    def __init__(self, args: Args, run_dir: Path, step: int):
        self.writer = SummaryWriter(run_dir, purge_step=step + 1)  # hides what a killed run wrote past its checkpoint
        self.tracking = args.track
        names = {"project": args.wandb_project, "entity": args.wandb_entity, "name": run_dir.name, "id": run_dir.name}
        self.track(lambda wandb: wandb.init(**names, resume="allow", dir=run_dir, config=asdict(args)))
        self.track(lambda wandb: wandb.define_metric("*", step_metric="global_step"))

    def track(self, call: Callable) -> None:
        if self.tracking:
            try:
                import wandb

                call(wandb)
            except Exception as error:
                self.tracking = False
                print(f"warning: going on without Weights & Biases: {first_line(error)}", file=sys.stderr)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.track(lambda wandb: wandb.log({**values, "global_step": step}))

    def close(self) -> None:
        self.writer.close()
        self.track(lambda wandb: wandb.finish())


def save(state: dict, path: Path) -> None:
    """Writes a temporary file and moves it into place, so that `path` is whole at every moment."""
    with open(path.with_suffix(".tmp"), "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # or a power cut may leave the new name with nothing in it
    os.replace(path.with_suffix(".tmp"), path)


def load(path: Path) -> dict:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        Args(**state["args"])
        return state
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist: give the folder of a run that has it") from error
    except Exception as error:  # what is raised depends on the damage
        raise UsageError(f"{path} is damaged or not from this script: {first_line(error)}") from error


def check_finite(values: Iterable[tuple[str, Tensor]], step: int) -> None:
    for name, value in values:
        if not value.sum(dtype=torch.float64).isfinite():  # of a large replay buffer, isfinite().all() takes a copy
            raise FloatingPointError(f"step {step}: {name} is not finite; the last checkpoint, if any, is from before")


def generators(envs: gym.vector.VectorEnv) -> list[np.random.BitGenerator]:
    sources = *(env.unwrapped for env in envs.envs), envs.single_action_space
    return [source.np_random.bit_generator for source in sources]


def checkpoint(run_dir: Path, args: Args, agent: Agent, envs: gym.vector.VectorEnv, step: int, log: Logger) -> None:
    """Writes agent.pt and checkpoint.pt, but nothing that is not finite, and the scalars until here before them."""
    state = {"args": asdict(args), "agent": agent.state_dict()}
    check_finite(state["agent"].items(), step)
    log.writer.flush()
    save(state, run_dir / "agent.pt")
    state |= {"step": step, "numpy_rng": [generator.state for generator in generators(envs)]}
    cuda_rng = torch.cuda.get_rng_state() if agent.device.type == "cuda" else None
    save(state | {"torch_rng": torch.get_rng_state(), "cuda_rng": cuda_rng}, run_dir / "checkpoint.pt")


def restore(state: dict, agent: Agent, envs: gym.vector.VectorEnv) -> int:
    """Undoes `checkpoint`, but for the episodes that were going on; returns the step."""
    agent.load_state_dict(state["agent"])
    for generator, generator_state in zip(generators(envs), state["numpy_rng"], strict=True):
        generator.state = generator_state
    torch.set_rng_state(state["torch_rng"])
    if agent.device.type == "cuda" and state["cuda_rng"] is not None:
        torch.cuda.set_rng_state(state["cuda_rng"])
    return state["step"]


@contextlib.contextmanager
def stop_signals():
    """A list that gets the number of SIGINT or SIGTERM, for a loop to end between two steps; a second one kills."""
    received = []

    def receive(number, _):
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    handlers = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


# ---- Training ----
def in_whole_rollouts(args: Args) -> Args:
    size = args.num_steps * args.num_envs
    total = math.ceil(args.total_timesteps / size) * size
    if total != args.total_timesteps:
        print(f"--total-timesteps {args.total_timesteps:,} is rounded up to {total:,}, whole rollouts of {size:,}")
    return replace(args, total_timesteps=total)


def successors(next_obs: np.ndarray, info: dict) -> tuple[np.ndarray, list[dict[str, float]]]:
    """The true successors [N, *obs_shape], not the first obs of new episodes, and the statistics of ended episodes."""
    if "final_obs" not in info:
        return next_obs, []
    next_obs, final = next_obs.copy(), info["final_info"]
    for i in np.flatnonzero(info["_final_obs"]):
        next_obs[i] = info["final_obs"][i]
    ended = np.flatnonzero(final.get("_episode", []))  # none at a lost life
    return next_obs, [{name: float(final["episode"][name][i]) for name in "rl"} for i in ended]


def train(args: Args) -> Agent:
    """Runs the algorithm and returns the agent. Writes only into a new folder in out_dir, or into RUN_DIR."""
    saved, run_dir = {}, None
    if args.resume is not None:
        if args != Args(resume=args.resume):
            raise UsageError("--resume takes all other arguments from the run: drop them")
        run_dir = Path(args.resume)
        saved = load(run_dir / "checkpoint.pt")
        args = Args(**saved["args"])
        args.cudagraphs &= pick_device(args).type == "cuda"  # the same mathematics where there is no GPU any more
    check_args(args)
    args = in_whole_rollouts(args)
    torch.set_num_threads(args.torch_threads)
    torch.manual_seed(args.seed)
    envs = make_envs(args)
    envs.single_action_space.seed(args.seed + args.num_envs)  # not the seed of an environment
    agent = Agent(envs.single_observation_space, envs.single_action_space, args)
    rollout = Rollout(envs.single_observation_space, envs.single_action_space, args.num_steps, args.num_envs)
    run_dir = run_dir or make_run_dir(args)
    step = log_step = restore(saved, agent, envs) if saved else 0
    obs, _ = envs.reset(seed=None if saved else args.seed)
    if args.compile:
        agent.update_minibatch = compiled(agent.update_minibatch)
    if args.cudagraphs:
        agent.update_minibatch = CudaGraph(agent.update_minibatch)
    print(f"{run_dir}: from step {step:,} on {agent.device}" + ", with new episodes" * bool(saved))
    logger, log_time = Logger(args, run_dir, step), time.perf_counter()
    bar = tqdm(total=args.total_timesteps, initial=step, unit="step", unit_scale=True, disable=None)
    with bar, contextlib.closing(logger), stop_signals() as signals:
        while step < args.total_timesteps and not signals:
            start = step
            for t in range(args.num_steps):
                if signals:
                    break
                # act
                action = agent.act(obs, explore=True)
                # step the environment
                next_obs, reward, terminated, truncated, info = envs.step(action)
                step += args.num_envs
                true_next_obs, episodes = successors(next_obs, info)
                rollout.add(t, obs, action, reward, true_next_obs, terminated, terminated | truncated)
                obs = next_obs
                for episode in episodes:
                    log = {"charts/episodic_return": episode["r"], "charts/episodic_length": episode["l"]}
                    logger.scalars(log, step)
                    bar.set_postfix({"return": f"{episode['r']:.1f}"}, refresh=False)
            if signals:
                step = start  # the agent is as it was then
                break
            # learn
            agent.anneal(start)
            metrics = agent.update(rollout.batch(agent.device))
            bar.update(step - start)
            if step // args.log_interval > start // args.log_interval:
                check_finite(metrics.items(), step)
                losses = zip(metrics, torch.stack([*metrics.values()]).tolist(), strict=True)
                sps = (step - log_step) / (time.perf_counter() - log_time)
                charts = {"charts/SPS": sps, "charts/learning_rate": agent.optimizer.lr.item()}
                logger.scalars({f"losses/{name}": loss for name, loss in losses} | charts, step)
                log_step, log_time = step, time.perf_counter()
            # evaluate
            is_last = step == args.total_timesteps
            if args.eval_interval and (step // args.eval_interval > start // args.eval_interval or is_last):
                video = run_dir / f"videos/step-{step}" if args.capture_video else None
                returns = evaluate(agent, args, video)
                logger.scalars({"eval/episodic_return": np.mean(returns)}, step)
                if video:
                    file, log = f"{video}-episode-0.mp4", {"global_step": step}
                    logger.track(lambda wandb: wandb.log({"eval/video": wandb.Video(file), **log}))  # noqa: B023
                tqdm.write(f"step {step:,}: evaluation {np.mean(returns):.2f} ± {np.std(returns):.2f}")
            if args.checkpoint_interval and step // args.checkpoint_interval > start // args.checkpoint_interval:
                try:
                    checkpoint(run_dir, args, agent, envs, step, logger)
                except (OSError, RuntimeError) as error:  # a full disk, say: tried again after the next interval
                    tqdm.write(f"warning: step {step:,}: no checkpoint: {first_line(error)}", file=sys.stderr)
        checkpoint(run_dir, args, agent, envs, step, logger)
    if signals and step < args.total_timesteps:
        print(f"stopped at step {step:,}, after the last whole rollout; go on with --resume {run_dir}")
        raise SystemExit(128 + signals[0])
    return agent


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # a log file shows what happened until a kill
    try:
        args = parse_args()
        evaluate_run(args) if args.evaluate is not None and args.resume is None else train(args)
    except (UsageError, MemoryError, FloatingPointError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, FloatingPointError) else 2)
