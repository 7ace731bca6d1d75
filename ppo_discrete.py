# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "numpy==2.4.6", "gymnasium[box2d,classic-control,mujoco]==1.4.0",
#     "tyro==1.0.17", "tqdm==4.70.1", "tensorboard==2.21.0", "wandb==0.31.0", "moviepy==2.2.1", "ale-py==0.12.1",
#     "stable-baselines3==2.9.2", "opencv-python-headless==5.0.0.93"]
# ///
# ======== Part 1: the algorithm ========
"""Proximal Policy Optimization (PPO) for discrete actions, from vectors or from Atari's frames.

Paper      J. Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347, 2017
Run        python ppo_discrete.py --env-id CartPole-v1
Results    last 100 training episodes of 500,000 steps, mean ± standard deviation of 5 seeds: CartPole-v1 486.5 ± 10.5,
           Acrobot-v1 -83.4 ± 1.3; more, with curves and comparisons, in benchmark/README.md

Symbols    T, N, B       num_steps, num_envs, and B samples of the T N of a rollout; a shape [] is a scalar
           s, a, r, s'   obs [T, N, *obs_shape], action [T, N], reward [T, N], next_obs [T, N, *obs_shape]; an action of
                         several components (MultiDiscrete) is [T, N, heads]: the actor has a head for each, k = 0, 1, …
           d             terminated [T, N]: 1 if s' is a true end of the task, 0 everywhere else, also at a time limit
           e             done [T, N]: 1 if the episode ended at s', by an end of the task or by a time limit
           π, V          actor, critic: log_prob = log π(a|s), value; π_old, V_old: those of the rollout, fixed
           A, δ          advantage, one-step TD error
           ρ, ε          ratio π / π_old, and its clip range clip_coef
           γ, λ          gamma, gae_lambda
           Hₖ, cₖ, H̄ₖ    entropy of head k in nats [B, heads]; ent_coef, target_entropy [heads]; of one head H, c, H̄

Algorithm  in each iteration (the paper's Algorithm 1):
           step size, cₖ and H̄ₖ may move                                                 linear_schedule
           act a ~ π(s) for T steps of N environments                                    Agent.act, Rollout
           log π(a|s) = Σₖ log πₖ(aₖ|s), and Hₖ, of the softmax of each head's logits    categorical
           Aₜ = δₜ + γ λ (1 - eₜ) Aₜ₊₁,  δ = r + γ (1 - d) V(s') - V(s)                  gae
           in update_epochs passes, for each of num_minibatches:
           ρ = π(a|s) / π_old(a|s);  -mean min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)             policy_loss
           mean ½ (V(s) - (A + V_old(s)))²                                               value_loss
           minimise policy_loss + vf_coef value_loss - Σₖ cₖ mean Hₖ                     total_loss
           minimise Σₖ log cₖ (mean Hₖ - H̄ₖ), if cₖ is learned                           ent_coef_loss

The sign   The paper maximises an objective with + c mean H; the loss that is minimised here therefore has - c mean H.

Differs    a time limit is not an end of the task: δ has V of the true last observation
from the   as in its authors' code: advantages normalised in each minibatch, gradient norm clipped, orthogonal initial
paper      weights, value loss with a factor ½, Adam's ε of 1e-5; but no clipping of the value loss
           a checkpoint cuts all episodes, as a time limit would
           each head may have its own weight and target of the entropy

The study notes that this collection follows add c mean H to the loss, among other mistakes: NOTES.md
"""

import contextlib
import functools
import importlib.util
import io
import json
import math
import os
import re
import shlex
import signal
import sys
import time
import traceback
import warnings
import zipfile
from collections import deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C outside of training, as in these imports: no traceback

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

PerHead = float | tuple[float, ...]  # one value for all heads of the policy, or one for each


@dataclass
class Args:
    # the run: the same in every script
    env_id: str = "CartPole-v1"  # Gymnasium id of the environment
    seed: int = 1  # seed of the networks, the noise, the batches and the environment
    total_timesteps: int = 500_000  # total number of environment steps
    cuda: bool = True  # use CUDA where there is a device, else the CPU
    torch_threads: int = 1  # CPU threads of PyTorch
    compile: bool = False  # compile the update with torch.compile; where there is no compiler, run it as it is
    cudagraphs: bool = False  # replay the update as a CUDA graph
    track: bool = False  # send scalars, arguments and videos to Weights & Biases too
    wandb_project: str = "plainrl"  # project at Weights & Biases
    wandb_entity: str | None = None  # user or team at Weights & Biases
    capture_video: bool = False  # record the first episode of each evaluation; with --evaluate all episodes
    log_interval: int = 1_000  # environment steps between two logs of the losses
    eval_interval: int = 10_000  # environment steps between two evaluations; 0: none
    eval_episodes: int = 10  # deterministic episodes in an evaluation
    checkpoint_interval: int = 50_000  # minimum number of environment steps between checkpoints; 0: only the last
    resume: str | None = None  # RUN_DIR of a run to go on with, by its arguments; --total-timesteps may make it longer
    evaluate: str | None = None  # RUN_DIR of a run, to play eval_episodes with its agent and stop
    out_dir: str = "runs"  # folder in which the run makes a folder of its own
    # the algorithm
    num_envs: int = 4  # N, environments that are stepped together (CleanRL; paper, Atari: 8)
    num_steps: int = 128  # T, steps of each environment in a rollout (paper, Table 5)
    num_minibatches: int = 4  # parts of a rollout, one for each step of Adam (CleanRL)
    update_epochs: int = 4  # passes over a rollout (CleanRL; paper, Table 5: 3)
    learning_rate: float = 2.5e-4  # Adam step size (paper, Table 5)
    anneal_lr: bool = True  # let the step size fall linearly to 0 (paper, Table 5)
    gamma: float = 0.99  # γ, discount (paper, Table 5)
    gae_lambda: float = 0.95  # λ of generalised advantage estimation (paper, Table 5)
    clip_coef: float = 0.2  # ε, clip range of π / π_old (paper, Section 6.1; Table 5: 0.1, falling to 0)
    vf_coef: float = 0.5  # weight of the value loss (authors' code; paper, Table 5: 1, of a loss without the ½)
    max_grad_norm: float = 0.5  # largest norm of the gradient, which is clipped to it (authors' code)
    target_kl: float | None = None  # stop the passes once the mean KL(π_old || π) of one exceeds this; None: never
    norm_adv: bool = True  # normalise the advantages in each minibatch (authors' code)
    ent_coef: PerHead = 0.01  # c, weight of the entropy bonus, or its initial value; or one per head (paper, Table 5)
    ent_coef_schedule: Literal["constant", "linear", "exponential"] = "constant"  # how c goes to ent_coef_end
    ent_coef_end: float | None = None  # final value of c
    ent_coef_duration: int = 0  # environment steps until c is at ent_coef_end
    ent_autotune: bool = False  # learn c, so that the entropy approaches target_entropy
    ent_coef_lr: float = 1e-3  # Adam step size of log c
    target_entropy: PerHead | None = None  # H̄ / largest entropy, or its initial value; or one per head; None: 0.5
    target_entropy_end: float | None = None  # final value of H̄, to which it goes linearly
    target_entropy_duration: int = 0  # environment steps until H̄ is at target_entropy_end


# ---- Equations: tensors and floats in, tensors out ----
def linear_schedule(start: float, end: float, duration: int, step: int) -> float:
    """Linear from start to end over `duration` steps, then constant. Source: arXiv:1707.06347, Table 5."""
    return start + (end - start) * min(step / max(duration, 1), 1)


def categorical(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """log π(a|s), and H = -Σₐ π(a|s) log π(a|s) in nats, of one head: a softmax of logits [B, n_actions].

    Source: arXiv:1707.06347, Section 5 (S).
    """
    log_probs = logits.log_softmax(-1)
    return log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1), -(log_probs.exp() * log_probs).sum(-1)


def gae(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Aₜ = δₜ + γ λ (1 - eₜ) Aₜ₊₁ with δ = r + γ (1 - d) V(s') - V(s) [T, N], where s' is the true successor.

    Source: arXiv:1506.02438, Section 3; arXiv:1707.06347, Section 5; with masks added.
    """
    delta = reward + gamma * (1 - terminated) * next_value - value
    advantage = delta.clone()
    for t in reversed(range(len(delta) - 1)):
        advantage[t] += gamma * gae_lambda * (1 - done[t]) * advantage[t + 1]
    return advantage


def policy_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_coef: float) -> Tensor:
    """-mean min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) [] with ρ = π(a|s) / π_old(a|s). Source: arXiv:1707.06347, Section 3."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_coef, 1 + clip_coef) * advantage).mean()


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """mean ½ (V(s) - target)² [], target = A + V_old(s). Source: arXiv:1707.06347, Section 5; ½: its authors' code."""
    return 0.5 * F.mse_loss(value, target)


def total_loss(policy_loss: Tensor, value_loss: Tensor, entropy: Tensor, vf_coef: float, ent_coef: Tensor) -> Tensor:
    """policy_loss + vf_coef value_loss - Σₖ cₖ mean Hₖ [], to be minimised: the entropy is subtracted.

    Source: arXiv:1707.06347, Section 5, whose objective is maximised and has the opposite signs.
    """
    return policy_loss + vf_coef * value_loss - (ent_coef * entropy).sum()


def ent_coef_loss(log_ent_coef: Tensor, entropy: Tensor, target_entropy: Tensor) -> Tensor:
    """Σₖ log cₖ (mean Hₖ - H̄ₖ) []: minimising it raises cₖ while mean Hₖ, a constant here, is below H̄ₖ.

    Source: arXiv:1812.05905, Section 5, with log c for the temperature and mean H for -mean log π.
    """
    return (log_ent_coef * (entropy.detach() - target_entropy)).sum()


# ---- Networks ----
def orthogonal(layer: nn.Module, gain: float = 2**0.5) -> nn.Module:
    """Initialises with orthogonal weights, scaled by `gain`, and zero bias (authors' code)."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(num_inputs: int, num_outputs: int, gain: float) -> nn.Sequential:
    """Two hidden layers of 64 tanh units (paper, Section 6.1); `gain` is that of the output layer."""
    hidden = [orthogonal(nn.Linear(num_inputs, 64)), nn.Tanh(), orthogonal(nn.Linear(64, 64)), nn.Tanh()]
    return nn.Sequential(*hidden, orthogonal(nn.Linear(64, num_outputs), gain))


class ActorCritic(nn.Module):
    """obs [B, *obs_shape] -> logits [B, n_actions] of all heads, value [B]; Atari's frames have one network."""

    def __init__(self, obs_shape: tuple[int, ...], num_actions: int):
        super().__init__()
        if len(obs_shape) == 3:
            self.features = NatureCNN()
            for layer in self.features:
                if hasattr(layer, "weight"):
                    orthogonal(layer)
            self.actor, self.critic = orthogonal(nn.Linear(512, num_actions), 0.01), orthogonal(nn.Linear(512, 1), 1.0)
        else:
            self.features = nn.Identity()
            self.actor, self.critic = mlp(obs_shape[0], num_actions, 0.01), mlp(obs_shape[0], 1, 1.0)

    def policy(self, obs: Tensor) -> Tensor:
        return self.actor(self.features(obs))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(obs)
        return self.actor(features), self.critic(features).squeeze(-1)


# ---- Rollout ----
Batch = namedtuple("Batch", "obs action reward next_obs terminated done")  # tensors [T, N, ...]
Minibatch = namedtuple("Minibatch", "obs action old_log_prob advantage target")  # tensors [B, ...]


class Rollout:
    """T steps of N environments in NumPy arrays; values and log-probabilities are computed afterwards, in one batch."""

    def __init__(self, obs_space: gym.spaces.Box, action_space: gym.spaces.Space, num_steps: int, num_envs: int):
        dtype = np.uint8 if len(obs_space.shape) == 3 else np.float32  # bytes for Atari's frames
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
class Agent(nn.Module):
    """PPO's networks and optimizers, for Box observations [obs_dim] or [4, 84, 84] and discrete actions."""

    def __init__(self, obs_space: gym.spaces.Box, action_space: gym.Space, args: Args):
        super().__init__()
        self.args, self.device = args, pick_device(args)
        self.action_shape = action_space.shape  # (), or (heads,)
        is_multi = isinstance(action_space, gym.spaces.MultiDiscrete)
        self.num_actions = action_space.nvec.tolist() if is_multi else [int(action_space.n)]  # of each head
        self.network = ActorCritic(obs_space.shape, sum(self.num_actions))
        start = 0.5 if args.target_entropy is None else args.target_entropy
        end = start if args.target_entropy_end is None else args.target_entropy_end
        self.register_buffer("target_entropy_start", self.in_nats(start))
        self.register_buffer("target_entropy_end", self.in_nats(end))
        self.register_buffer("target_entropy", self.in_nats(start))
        ent_coef = torch.tensor(args.ent_coef, dtype=torch.float32).expand(len(self.num_actions)).clone()
        self.register_buffer("ent_coef", ent_coef)
        self.log_ent_coef = nn.Parameter(ent_coef.log() if args.ent_autotune else torch.zeros_like(ent_coef))
        self.to(self.device)
        self.optimizer = Adam(self, "network", args.learning_rate, eps=1e-5)  # of self.network; ε: authors' code
        self.ent_coef_optimizer = Adam(self, "log_ent_coef", args.ent_coef_lr)

    def in_nats(self, share: PerHead) -> Tensor:
        """Entropies [heads] of a share, for all heads or for each, of the largest, log n_actions."""
        largest = torch.tensor(self.num_actions, dtype=torch.float64).log()
        return (torch.tensor(share, dtype=torch.float64) * largest).float()

    def heads(self, logits: Tensor) -> tuple[Tensor, ...]:
        """logits [B, n_actions of all heads] -> those of each head, [B, n_actions]."""
        return logits.split(self.num_actions, dim=-1)

    def forward(self, obs: Tensor) -> Tensor:
        """The deterministic policy, the most likely action [B] or [B, heads]."""
        actions = [logits.argmax(-1) for logits in self.heads(self.network.policy(obs))]
        return torch.stack(actions, dim=-1).view(-1, *self.action_shape)

    @torch.inference_mode()
    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        """action [N] or [N, heads] for obs [N, *obs_shape]: drawn from π(s) to explore, otherwise the most likely."""
        obs = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        if not explore:
            return self(obs).cpu().numpy()
        actions = [logits.softmax(-1).multinomial(1) for logits in self.heads(self.network.policy(obs))]
        return torch.cat(actions, dim=-1).view(-1, *self.action_shape).cpu().numpy()

    def evaluate_actions(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log π(a|s) [B], Hₖ [B, heads], V(s) [B] for obs [B, *obs_shape] and action [B] or [B, heads]."""
        logits, value = self.network(obs)
        action = action.view(len(obs), -1)  # [B, heads]
        heads = [categorical(logits_k, action[:, k]) for k, logits_k in enumerate(self.heads(logits))]
        log_prob = torch.stack([log_prob_k for log_prob_k, _ in heads], dim=-1).sum(-1)
        return log_prob, torch.stack([entropy_k for _, entropy_k in heads], dim=-1), value

    def anneal(self, step: int) -> None:
        """Sets step size, c and H̄ for the iteration that begins after `step` environment steps."""
        args = self.args
        if args.anneal_lr:
            self.optimizer.lr.fill_(linear_schedule(args.learning_rate, 0, args.total_timesteps, step))
        start = torch.tensor(args.ent_coef, dtype=torch.float64)  # [], or [heads]
        if args.ent_coef_schedule == "linear":
            self.ent_coef.copy_(linear_schedule(start, args.ent_coef_end, args.ent_coef_duration, step))
        elif args.ent_coef_schedule == "exponential":  # linear in log c
            end = math.log(args.ent_coef_end)
            self.ent_coef.copy_(linear_schedule(start.log(), end, args.ent_coef_duration, step).exp())
        start, end = self.target_entropy_start, self.target_entropy_end
        self.target_entropy.copy_(linear_schedule(start, end, args.target_entropy_duration, step))

    def set_target_entropy(self, value: PerHead) -> None:
        """Fixes H̄ at a share of the largest entropy, from the next update on: for a change between two stages."""
        for target_entropy in (self.target_entropy_start, self.target_entropy_end, self.target_entropy):
            target_entropy.copy_(self.in_nats(value))

    def update(self, batch: Batch, update_minibatch: Callable | None = None) -> dict[str, Tensor]:
        """update_epochs passes over a rollout [T, N, ...] in minibatches; returns detached means over all of them."""
        update_minibatch = update_minibatch or self.update_minibatch  # the former is a faster form of it, by speed_up
        obs, action, reward, next_obs, terminated, done = batch
        obs, action, next_obs = (x.flatten(0, 1) for x in (obs, action, next_obs))

        with torch.no_grad():  # π_old and V_old: the networks before the first step
            old_log_prob, _, value = self.evaluate_actions(obs, action)
            *_, next_value = self.network(next_obs)
            value, next_value = value.view_as(reward), next_value.view_as(reward)
            inputs = (x.cpu() for x in (reward, value, next_value, terminated, done))  # sequential: faster on the CPU
            advantage = gae(*inputs, self.args.gamma, self.args.gae_lambda).to(self.device)
        target = advantage + value
        data = Minibatch(obs, action, old_log_prob, advantage.flatten(), target.flatten())
        history = []  # the losses of each minibatch
        for _ in range(self.args.update_epochs):
            for rows in torch.randperm(len(obs), device=self.device).chunk(self.args.num_minibatches):
                history.append(update_minibatch(Minibatch(*(x[rows] for x in data))))
            if self.args.target_kl is not None:
                kls = [losses["approx_kl"] for losses in history[-self.args.num_minibatches :]]
                if torch.stack(kls).mean() > self.args.target_kl:
                    break
        means = {name: torch.stack([losses[name] for losses in history]).mean() for name in history[0]}
        unexplained = advantage.var(correction=0)  # of target - value, which is the advantage
        means["explained_variance"] = 1 - unexplained / target.var(correction=0).clamp(min=1e-8)
        return means

    def update_minibatch(self, minibatch: Minibatch) -> dict[str, Tensor]:
        """One step of the networks, and of c where it is learned; returns detached scalars, some by head."""
        obs, action, old_log_prob, advantage, target = minibatch
        if self.args.norm_adv and len(advantage) > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ent_coef = self.log_ent_coef.detach().exp() if self.args.ent_autotune else self.ent_coef
        log_prob, entropy, value = self.evaluate_actions(obs, action)
        entropy = entropy.mean(0)  # [heads]
        pg_loss = policy_loss(log_prob, old_log_prob, advantage, self.args.clip_coef)
        v_loss = value_loss(value, target)
        loss = total_loss(pg_loss, v_loss, entropy, self.args.vf_coef, ent_coef)
        self.optimizer.minimize(loss, self.args.max_grad_norm)

        losses = {"policy_loss": pg_loss, "value_loss": v_loss, "total_loss": loss, "entropy": entropy.sum()}
        losses |= self.by_head("entropy", entropy) | self.by_head("ent_coef", ent_coef)
        if self.args.ent_autotune:
            losses["ent_coef_loss"] = ent_coef_loss(self.log_ent_coef, entropy, self.target_entropy)
            losses |= self.by_head("target_entropy", self.target_entropy)
            self.ent_coef_optimizer.minimize(losses["ent_coef_loss"])
        log_ratio = (log_prob - old_log_prob).detach()
        ratio = log_ratio.exp()
        losses["approx_kl"] = (ratio - 1 - log_ratio).mean()  # Schulman's third estimator of KL(π_old || π)
        losses["clip_fraction"] = ((ratio - 1).abs() > self.args.clip_coef).float().mean()
        return {name: value.detach() for name, value in losses.items()}

    def by_head(self, name: str, values: Tensor) -> dict[str, Tensor]:
        """values [heads] under the names by which they are logged: name, or name_0, name_1, … of several heads."""
        names = [name] if len(values) == 1 else [f"{name}_{k}" for k in range(len(values))]
        return dict(zip(names, values, strict=True))


# ---- Training ----
def train(args: Args) -> Agent:
    """The paper's Algorithm 1; returns the trained agent."""
    with Run(args) as run:  # folder, logs, progress bar, checkpoints, signals: part 2
        args = run.args  # in whole rollouts, or with --resume those of the run
        spaces = run.env.single_observation_space, run.env.single_action_space
        agent = Agent(*spaces, args)
        rollout = Rollout(*spaces, args.num_steps, args.num_envs)
        update_minibatch = speed_up(agent.update_minibatch, args)
        obs = run.start(agent)
        for step in run.steps():
            agent.anneal(step)
            for t in range(args.num_steps):
                # act
                action = agent.act(obs, explore=True)
                # step the environment
                next_obs, reward, terminated, truncated, new_obs = run.step_env(action)
                rollout.add(t, obs, action, reward, next_obs, terminated, terminated | truncated)
                obs = new_obs  # the first one of the next episode where one has ended
            # learn
            losses = agent.update(rollout.batch(agent.device), update_minibatch)
            run.log_losses(losses, learning_rate=agent.optimizer.lr)
            # evaluate
            run.evaluate_if_due()
            obs = run.next_rollout(obs)  # saves a checkpoint if one is due
    return agent


# ======== Part 2: what every run needs ========
# ---- Speed ----
# PyTorch's fused Adam as an operator, which torch.compile calls as it is: the loops that it would write take twice as
# long. It takes the loss because the compiler might otherwise compute one that is only logged after the step.
adam = torch.library.Library("adam_" + re.sub(r"\W", "_", __name__), "FRAGMENT")
adam.define(
    "step(Tensor(a!)[] parameters, Tensor[] grads, Tensor(b!)[] means, Tensor(c!)[] squares, Tensor num_steps, "
    "Tensor lr, float eps, Tensor loss) -> ()"
)
adam.impl("step", lambda *args: None, "Meta")


@torch.library.impl(adam, "step", "CompositeExplicitAutograd")
def fused_adam(parameters, grads, means, squares, num_steps, lr, eps, _) -> None:
    steps, options = [num_steps] * len(grads), {"lr": lr, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": eps}
    torch._fused_adam_(parameters, grads, means, squares, [], steps, **options, amsgrad=False, maximize=False)


class Adam(nn.Module):
    """Adam (arXiv:1412.6980, Algorithm 1) for agent.<name>, a module or a parameter; its moments are in state_dict."""

    def __init__(self, agent: nn.Module, name: str, lr: float, eps: float = 1e-8):
        super().__init__()
        self.owner, self.name, self.eps = (agent,), name, eps  # a tuple keeps nn.Module from registering it
        self.register_buffer("lr", torch.tensor(lr, device=agent.device))
        self.register_buffer("num_steps", torch.zeros((), device=agent.device))
        for i, parameter in enumerate(self.owned()):
            self.register_buffer(f"mean{i}", torch.zeros_like(parameter))
            self.register_buffer(f"square{i}", torch.zeros_like(parameter))

    def owned(self) -> list[nn.Parameter]:
        """Looked up in each step: load_state_dict(assign=True) puts other parameters in their place."""
        part = getattr(self.owner[0], self.name)
        return [part] if isinstance(part, nn.Parameter) else list(part.parameters())

    def minimize(self, loss: Tensor, max_grad_norm: float = math.inf) -> None:
        """One step down `loss`, by a gradient that is cut to max_grad_norm; no other parameter gets a gradient."""
        parameters = self.owned()
        grads = [grad.contiguous() for grad in torch.autograd.grad(loss, parameters)]  # the kernel ignores strides
        with torch.no_grad():
            if max_grad_norm < math.inf:
                norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
                grads = torch._foreach_mul(grads, (max_grad_norm / norm).clamp(max=1))
            moments = [[getattr(self, f"{kind}{i}") for i in range(len(grads))] for kind in ("mean", "square")]
            step = getattr(torch.ops, adam.ns).step.default
            step(parameters, grads, *moments, self.num_steps.add_(1), self.lr, self.eps, loss.detach())


def pick_device(args: Args) -> torch.device:
    return torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")


def speed_up(update: Callable, args: Args) -> Callable:
    """`update` as one graph of forward, backward and optimizers, if args ask for it; the plain one where that fails."""
    if not args.compile and not args.cudagraphs:
        return update
    say("the first update will be compiled: about 20 s, in later runs 5 s; --no-compile does without")
    how = {"options": {"triton.cudagraphs": args.cudagraphs}} if args.compile else {"backend": "cudagraphs"}
    fast = None

    def call(batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        nonlocal fast
        try:
            if fast is None:
                torch._dynamo.config.trace_autograd_ops = True
                torch._dynamo.config.allow_unspec_int_on_nn_module = True  # no graph for each value of a counter
                torch._inductor.config.fallback_random = True  # the random numbers of the plain update
                fast = torch.compile(update, fullgraph=True, **how)
            losses = fast(batch)
        except Exception as error:
            if not isinstance(error, OSError) and not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise  # not the compiler's. (OSError first: without a cache folder torch._dynamo cannot be imported.)
            say(f"going on without --compile, which failed: {first_line(error)}")
            fast = update
            losses = update(batch)
        if args.cudagraphs:  # the next call writes over what this one returned
            losses = {name: loss.clone() for name, loss in losses.items()}
        return losses

    return call


# ---- Atari's frames ----
class NatureCNN(nn.Sequential):
    """frames [B, 4, 84, 84] in 0 to 255 -> features [B, 512]: that of Mnih et al. 2015 but for its last layer."""

    def __init__(self):
        convs = [nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()]
        convs += [nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()]
        super().__init__(*convs, nn.Linear(3136, 512), nn.ReLU())

    def forward(self, obs: Tensor) -> Tensor:
        return super().forward((obs / 255).contiguous(memory_format=torch.channels_last))  # by a third faster on a CPU


class WholeGame(gym.Wrapper):
    """Goes on after a lost life, with what a reset does there, a press of FIRE say, until the game is over."""

    def step(self, action: int) -> tuple:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated and "episode" not in info:
            (obs, _), terminated = self.env.reset(), False
        return obs, reward, terminated, truncated, info


def wrap_atari(env: gym.Env, training: bool) -> gym.Env:
    """The preprocessing of Mnih et al., 2015, by Stable-Baselines3; info["episode"] has the raw score of a whole game.

    training: episodes end at each lost life and rewards are clipped to their sign.
    """
    from stable_baselines3.common import atari_wrappers

    env = atari_wrappers.NoopResetEnv(env, noop_max=30)
    if env.spec.kwargs.get("frameskip") == 1:
        env = atari_wrappers.MaxAndSkipEnv(env, skip=4)
    env = atari_wrappers.EpisodicLifeEnv(gym.wrappers.RecordEpisodeStatistics(env))
    env = atari_wrappers.FireResetEnv(env) if "FIRE" in env.unwrapped.get_action_meanings() else env
    env = atari_wrappers.ClipRewardEnv(env) if training else WholeGame(env)
    env = gym.wrappers.ReshapeObservation(atari_wrappers.WarpFrame(env), (84, 84))
    return gym.wrappers.FrameStackObservation(env, 4)


# ---- Environment and evaluation ----
class UsageError(Exception):
    """What the user can put right: the script ends with its one line and status 2."""


def to_number(reward: float | np.ndarray) -> float:
    """Some environments give an array of one element."""
    return np.asarray(reward).item()


def make_env(env_id: str, render: bool = False, training: bool = False) -> gym.Env:
    """The environment with info["episode"] at an episode's end; Atari's games are wrapped by wrap_atari."""
    try:
        if env_id not in gym.registry:
            with contextlib.suppress(ImportError):
                import ale_py  # registers Atari's games

                ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of old environments
            env = gym.make(env_id, render_mode="rgb_array" if render else None, disable_env_checker=True)
        if "ale_py" in str(env.spec.entry_point):
            env = wrap_atari(env, training)
        else:
            env = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.TransformReward(env, to_number))
            env = gym.wrappers.TransformObservation(env, np.copy, env.observation_space)  # which some write into again
    except Exception as error:  # an environment's own code may raise anything
        hint = "; put its folder on PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
        raise UsageError(f"--env-id {env_id} cannot be made: {first_line(error)}{hint}") from error
    space = env.observation_space
    is_stack = space.shape == (4, 84, 84) and space.dtype == np.uint8
    if not isinstance(space, gym.spaces.Box) or not (len(space.shape) == 1 or is_stack):
        what = "a Box of one dimension (gymnasium's FlattenObservation makes one of a Dict) or Atari's frames"
        raise UsageError(f"--env-id {env_id}: its observations must be {what}, but are {space}")
    space = env.action_space
    if isinstance(space, gym.spaces.MultiDiscrete) and len(space.shape) == 1 and not space.start.any():
        return env
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        what = "Discrete or a MultiDiscrete of one dimension, from 0 (Box: ppo_continuous.py)"
        raise UsageError(f"--env-id {env_id}: its action space must be {what}, but is {space}")
    return gym.wrappers.TransformAction(env, int, space)  # environments index with it


def make_training_env(args: Args) -> gym.vector.VectorEnv:
    """num_envs environments; one that ends is reset in the same step, with its last obs in the info."""
    make = functools.partial(make_env, args.env_id, training=True)
    return gym.vector.SyncVectorEnv([make] * args.num_envs, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)


def close(env: gym.Env) -> None:
    with contextlib.suppress(Exception):  # what cannot be closed is no reason to stop
        env.close()


def play(agent: Agent, args: Args, video: Path | None, signals: list[int]) -> Iterator[tuple[float, int]]:
    """Return and length of eval_episodes deterministic episodes on fixed seeds, in an environment of its own.

    video: folder / first part of the names of the files to record. Stops once the list of signals is not empty.
    """
    env = make_env(args.env_id, render=video is not None)
    if video:
        options = {"disable_logger": True, "episode_trigger": lambda episode: args.evaluate or episode == 0}
        with warnings.catch_warnings(action="ignore"):  # of videos in the same folder, whatever their names
            env = gym.wrappers.RecordVideo(env, str(video.parent), name_prefix=video.name, **options)
    for episode in range(args.eval_episodes):
        obs, _ = env.reset(seed=2**31 - 1 - episode)  # far from the seeds of training
        done = False
        while not done and not signals:
            obs, _, terminated, truncated, info = env.step(agent.act(obs[None], explore=False)[0])
            done = terminated or truncated
        if done:
            yield float(info["episode"]["r"]), int(info["episode"]["l"])
    close(env)


def evaluate(agent: Agent, args: Args, video: Path | None = None) -> list[float]:
    """The returns of these episodes."""
    return [episodic_return for episodic_return, _ in play(agent, args, video, [])]


def evaluate_run(args: Args) -> None:
    """--evaluate RUN_DIR: plays the agent of RUN_DIR/agent.pt, and records into RUN_DIR/videos."""
    saved = load(Path(args.evaluate, "agent.pt"))
    own = {flag: getattr(args, flag) for flag in OWN_OF_EVALUATION}
    args = replace(Args(**saved["args"]), **own, cudagraphs=False)
    check_args(args)
    torch.set_num_threads(args.torch_threads)
    env = make_env(args.env_id)
    agent = Agent(env.observation_space, env.action_space, args)
    restore(agent, saved, "agent")
    say(f"agent of step {saved['step']:,}")
    returns = evaluate(agent, args, Path(args.evaluate, "videos", "evaluate") if args.capture_video else None)
    for episode, episodic_return in enumerate(returns):
        say(f"episode {episode}: {episodic_return:.2f}")
    say(f"mean ± std of {len(returns)} episodes: {np.mean(returns):.2f} ± {np.std(returns):.2f}")


# ---- Command line ----
def say(text: str, file=None) -> None:
    """Prints above the progress bar, at once. A terminal or a pipe that is gone is no reason to stop."""
    with contextlib.suppress(OSError, ValueError, RuntimeError), tqdm.external_write_mode(file):
        print(text, file=file, flush=True)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_integer(words: list[str]) -> int:
    """Of 1000000, 1_000_000, 1e6 or 1.5e6."""
    number = float(words[0]) if "e" in words[0].lower() else int(words[0])
    if number % 1 != 0:
        raise ValueError(f"{words[0]} is not a whole number")
    return int(number)


OWN_OF_EVALUATION = ["evaluate", "eval_episodes", "capture_video", "cuda", "torch_threads"]  # all else is the run's


def parse_args() -> Args:
    """Args from the command line; --resume and --evaluate start from those of the run. A mistake gives one line."""
    registry, spec = tyro.constructors.ConstructorRegistry(), tyro.constructors.PrimitiveConstructorSpec
    integer = spec(1, "INT", read_integer, lambda value: isinstance(value, int), lambda value: [str(value)])
    registry.primitive_rule(lambda info: integer if info.type is int else None)
    title, example, box = __doc__.splitlines()[0], re.search(r"Run +(.*)", __doc__)[1], io.StringIO()
    options = {"registry": registry, "description": f"{title}\n\nExample: {example}"}
    try:
        with contextlib.redirect_stderr(box):
            args = tyro.cli(Args, **options)
            if args.resume is not None:
                own, path = ["resume"], Path(args.resume, "checkpoint.pt")
            elif args.evaluate is not None:
                own, path = OWN_OF_EVALUATION, Path(args.evaluate, "agent.pt")
            else:
                return args
            of_run = replace(Args(**load(path)["args"]), **{flag: getattr(args, flag) for flag in own})
            args = tyro.cli(Args, **options, default=of_run)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        words = re.sub("[│╭╮╰╯─]+|-{9,}", " ", box.getvalue().partition("\n")[2]).split()
        raise UsageError(" ".join(words).partition(" For full helptext")[0]) from None
    given = [flag for flag in asdict(args) if getattr(args, flag) != getattr(of_run, flag)]
    others = ["--" + flag.replace("_", "-") for flag in given if flag != "total_timesteps" or args.resume is None]
    if others:
        raise UsageError(f"--{own[0]} takes its arguments from the run: drop {', '.join(others)}")
    return args


def check_module(args: Args) -> None:
    """UsageError if --env-id names a module among the runs: the folder of a run may come from a stranger."""
    package, *rest = args.env_id.rpartition(":")[0].split(".")
    run_dir = args.resume or args.evaluate
    folder = Path(run_dir).resolve().parent if run_dir else Path(args.out_dir).resolve()
    if Path(__file__).resolve().is_relative_to(folder):  # then so does everything
        folder = Path(run_dir or folder / "runs").resolve()
    spec = importlib.util.find_spec(package) if package not in ("", "__main__") else None  # imports nothing
    for place in [spec.origin, *(spec.submodule_search_locations or [])] if spec else []:
        if place and Path(place, *rest).resolve().is_relative_to(folder):
            raise UsageError(f"--env-id {args.env_id}: a module in the folder of runs, {folder}, is not imported")


def check_args(args: Args) -> None:
    """UsageError for what cannot work, before anything is written."""
    ranges = {  # smallest and largest values
        "total_timesteps torch_threads log_interval eval_episodes": (1, math.inf),
        "eval_interval checkpoint_interval": (0, math.inf),
        "seed": (0, 2**32 - 1),
        "gamma": (0, 1),
        # of this script
        "num_envs num_steps num_minibatches update_epochs": (1, math.inf),
        "learning_rate ent_coef_lr clip_coef max_grad_norm target_kl": (1e-9, 1e9),
        "vf_coef ent_coef ent_coef_end": (0, 1e9),
        "gae_lambda": (0, 1),
        "ent_coef_duration target_entropy_duration": (0, math.inf),
        "target_entropy target_entropy_end": (0.001, 0.999),
    }
    for name, (low, high) in ((name, ranges[names]) for names in ranges for name in names.split()):
        value = getattr(args, name)
        if value is not None and not (low <= np.min(value) and np.max(value) <= high):  # of one value or several
            raise UsageError(f"--{name.replace('_', '-')} {value} is outside of [{low}, {high}]")
    if args.num_envs * args.num_steps % args.num_minibatches:
        size = f"--num-envs {args.num_envs} times --num-steps {args.num_steps}"
        raise UsageError(f"{size} must be a multiple of --num-minibatches {args.num_minibatches}")
    moves = args.ent_coef_schedule != "constant"
    if moves != (args.ent_coef_end is not None) or moves != (args.ent_coef_duration > 0):
        flags = "--ent-coef-schedule linear or exponential, --ent-coef-end and --ent-coef-duration"
        raise UsageError(f"{flags} go together: give all or none")
    if args.ent_coef_schedule == "exponential" and not (np.min(args.ent_coef) > 0 and args.ent_coef_end > 0):
        raise UsageError("--ent-coef-schedule exponential needs --ent-coef and --ent-coef-end above 0")
    if args.ent_autotune and (moves or np.min(args.ent_coef) == 0):
        raise UsageError("--ent-autotune starts at --ent-coef, above 0, and leaves no room for --ent-coef-schedule")
    if (args.target_entropy_end is None) != (args.target_entropy_duration == 0):
        raise UsageError("--target-entropy-end and --target-entropy-duration go together: give both or none")
    if not args.ent_autotune and (args.target_entropy, args.target_entropy_end) != (None, None):
        raise UsageError("--target-entropy needs --ent-autotune: without it c is not learned")
    # of every script
    check_module(args)
    if args.cudagraphs and pick_device(args).type != "cuda":
        raise UsageError("--cudagraphs needs a CUDA device: drop it")
    if args.capture_video:
        try:
            import moviepy  # noqa: F401  RecordVideo writes with it

            env = make_env(args.env_id, render=True)
            env.reset()
            env.render()
        except Exception as error:
            raise UsageError(f"--capture-video cannot work here: {first_line(error)}") from error
    # of this script: needs check_module first
    given = [value for value in (args.ent_coef, args.target_entropy) if isinstance(value, tuple)]
    heads = len(getattr(make_env(args.env_id).action_space, "nvec", [0])) if given else 1
    if any(len(value) != heads for value in given):
        raise UsageError(f"--ent-coef and --target-entropy take one value, or one for each head: here {heads}")


# ---- Run ----
def check_finite(values: dict[str, Tensor], step: int) -> None:
    for name, value in values.items():
        has_numbers = isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0
        if has_numbers and not torch.stack(torch.aminmax(value)).isfinite().all():  # no copy of a large buffer
            raise FloatingPointError(f"step {step:,}: {name} is not finite; the last checkpoint is from before")


def save(state: dict, path: Path) -> None:
    """Writes a temporary file and moves it into place, so that `path` is whole at every moment."""
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            os.fsync(file.fileno())  # or a power cut may leave the new name with nothing in it
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # what a full disk left of it


def load(path: Path) -> dict:
    """What `save` wrote, if it is whole and of this script."""
    try:
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if damaged is not None or state["script"] != Path(__file__).stem:
            raise ValueError(f"{damaged} in it has changed" if damaged else f"it is of {state['script']}.py")
        Args(**state["args"])
        return state
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist: give the folder of a run that has it") from error
    except Exception as error:  # what is raised depends on the damage
        raise UsageError(f"{path} is damaged or not of this script: {first_line(error)}") from error


def restore(part: nn.Module, saved: dict, name: str) -> None:
    """part.load_state_dict(saved[name])"""
    try:
        part.load_state_dict(saved[name])
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"the {name} of the run does not fit the environment or the script: {reason}") from error


def lock(run_dir: Path) -> io.TextIOBase:
    """Keeps other processes out of a run's folder until the file is closed, or this process is killed."""
    file = open(run_dir / "lock", "a+")  # noqa: SIM115
    try:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise UsageError(f"{run_dir} is in use by process {file.read()}") from None
    except (ImportError, OSError):  # Windows, and some network drives, have no such locks
        return file
    file.truncate(0)
    print(os.getpid(), end="", file=file, flush=True)
    return file


@contextlib.contextmanager
def warn_on_error(text: str):
    """Turns an exception in the block into a line of warning."""
    try:
        yield
    except Exception as error:
        say(f"warning: {text}: {first_line(error)}", sys.stderr)


class Run:
    """What surrounds the algorithm: environment, folder, logs, progress, evaluations, checkpoints and signals.

    However `with Run(args) as run:` ends, it saves a checkpoint, unless a number in it is not finite.
    """

    def __init__(self, args: Args):
        self.saved, self.agent, self.wandb, self.evaluation = {}, None, None, ""
        if args.resume is not None:
            self.lock = lock(Path(args.resume))
            self.saved = load(Path(args.resume, "checkpoint.pt"))
            of_run = replace(Args(**self.saved["args"]), resume=args.resume)
            longer = replace(of_run, total_timesteps=args.total_timesteps)
            if args == Args(resume=args.resume) and (args != longer or args.total_timesteps < of_run.total_timesteps):
                longer = of_run  # all of it: from Python, Args(resume=...) says no more than which run
            if longer.total_timesteps < of_run.total_timesteps or (longer != of_run and of_run.anneal_lr):
                raise UsageError("--total-timesteps can only make a run longer, without --anneal-lr")
            args = replace(longer, cudagraphs=longer.cudagraphs and pick_device(longer).type == "cuda")
        check_args(args)
        rollout = args.num_envs * args.num_steps
        total = math.ceil(args.total_timesteps / rollout) * rollout
        if total != args.total_timesteps:
            say(f"--total-timesteps {args.total_timesteps:,} is rounded up to {total:,}, whole rollouts of {rollout:,}")
            args = replace(args, total_timesteps=total)
        self.args, self.step, self.completed = args, 0, 0  # environment steps, and those of complete iterations
        self.owes_evaluation = self.saved.get("owes_evaluation", False)
        torch.set_num_threads(args.torch_threads)
        torch.manual_seed(args.seed)  # of the initial weights
        self.env = make_training_env(args)

    def __enter__(self) -> "Run":
        return self

    def start(self, agent: Agent, buffer: object = None) -> np.ndarray:
        """Makes the folder, or goes on from the checkpoint in it; returns the first obs."""
        args = self.args
        if self.saved:
            self.dir, self.step = Path(args.resume), self.saved["step"]
            restore(agent, self.saved, "agent")
            if buffer is not None:
                restore(buffer, self.saved, "buffer")
            self.saved = {}  # frees the second copy of the replay buffer
        else:
            name = f"{re.sub('[^A-Za-z0-9.-]', '-', args.env_id)}__{Path(__file__).stem}__{args.seed}__{time.time_ns()}"
            self.dir = Path(args.out_dir, name)
            self.dir.mkdir(parents=True)
            self.lock = lock(self.dir)
        (self.dir / "args.json").write_text(json.dumps(asdict(replace(args, resume=None)), indent=2))
        self.completed = self.learned = self.checkpoint_step = self.log_step = self.step
        self.log_time = self.line_time = time.perf_counter()
        self.returns, self.signals, self.handlers = deque(maxlen=100), [], {}
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # Windows has no SIGHUP
            if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                self.handlers[number] = signal.signal(number, self.on_signal)
        say(f"{self.dir}: from step {self.step:,} on {agent.device}")
        spec = getattr(self.env, "envs", [self.env])[0].spec
        if spec.max_episode_steps is None and "ale_py" not in str(spec.entry_point):
            say("no time limit: an episode that never ends holds up all checkpoints, and all training if evaluated")
        self.writer = SummaryWriter(self.dir, purge_step=self.step + 1)  # hides what a kill left past the checkpoint
        rows = "".join(f"|{name}|{value}|\n" for name, value in asdict(args).items())
        self.writer.add_text("arguments", f"|argument|value|\n|-|-|\n{rows}", self.step)
        with warn_on_error("going on without Weights & Biases"):
            if args.track:
                import wandb

                names = dict.fromkeys(["name", "id"], self.dir.resolve().name)
                names |= {"project": args.wandb_project, "entity": args.wandb_entity}
                wandb.init(**names, resume="allow", dir=self.dir, config=asdict(args))
                wandb.define_metric("*", step_metric="global_step")
                self.wandb = wandb
        self.on_terminal = sys.stderr is not None and sys.stderr.isatty()
        options = {"unit": " steps", "unit_scale": True, "mininterval": 0.5, "miniters": 1, "smoothing": 0.02}
        if not self.on_terminal:  # a line now and then
            form = "{n_fmt} of {total_fmt} steps, {rate_fmt}, {remaining} left{postfix}"
            options |= {"file": open(os.devnull, "w"), "bar_format": form}  # noqa: SIM115
        self.bar = tqdm(total=args.total_timesteps, initial=self.step, **options)
        self.agent, self.buffer = agent, buffer
        return self.restart()

    def restart(self) -> np.ndarray:
        """Makes a new environment, seeds it and PyTorch from seed and step, and returns its first obs.

        Done after a resume and after each checkpoint, so that an interrupted run goes on exactly as one that was not.
        """
        seeds = np.random.SeedSequence([self.args.seed, self.step]).generate_state(3).tolist()
        close(self.env)
        self.env = make_training_env(self.args)
        self.env.action_space.seed(seeds[0])
        torch.manual_seed(seeds[1])
        return self.reset(seed=seeds[2])

    def reset(self, **options) -> np.ndarray:
        obs = np.array(self.env.reset(**options)[0])  # a copy: some environments write into the same array again
        self.check_env("obs", np.isfinite(obs).all())
        return obs

    def on_signal(self, number: int, _) -> None:
        self.signals.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one kills
        say(f"{signal.Signals(number).name}: stopping after this step; a second one kills the process")

    def steps(self) -> Iterator[int]:
        """For each rollout to come the number of environment steps before it; ends with SystemExit after a signal."""
        if self.owes_evaluation:
            self.evaluate()
        while not self.signals and self.completed < self.args.total_timesteps:
            yield self.completed
            self.bar.update(self.step - self.completed)
            self.completed = self.step
            if not self.on_terminal and time.perf_counter() - self.line_time > 60:  # seconds
                say(str(self.bar))
                self.line_time = time.perf_counter()
        if self.signals:
            raise SystemExit(128 + self.signals[0])

    def step_env(self, action: np.ndarray) -> tuple:
        """envs.step, with true successors as next_obs; obs, the last value, begins a new episode where one has ended.

        In the last step before a checkpoint it cuts all episodes, as a time limit would: they begin anew after it.
        """
        if self.signals:
            raise SystemExit(128 + self.signals[0])
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.step += self.args.num_envs
        next_obs = obs.copy()
        if "final_obs" in info:
            for i in np.flatnonzero(info["_final_obs"]):
                next_obs[i] = info["final_obs"][i]
            ended = info["final_info"]
            for i in np.flatnonzero(ended.get("_episode", [])):  # none at a lost life of Atari's
                self.log_episode(ended["episode"]["r"][i], ended["episode"]["l"][i])
        self.check_env("obs", np.isfinite(next_obs).all() and np.isfinite(obs).all())
        self.check_env("reward", np.isfinite(reward).all())
        if self.step - self.completed == self.args.num_envs * self.args.num_steps and self.is_checkpoint_due():
            truncated = np.ones_like(truncated)
        return next_obs, reward, terminated, truncated, obs

    def next_rollout(self, obs: np.ndarray) -> np.ndarray:
        """Saves a checkpoint if one is due; returns the obs to act on next."""
        if self.is_checkpoint_due():
            self.save(self.step)
            return self.restart()
        return obs

    def check_env(self, name: str, is_finite: bool) -> None:
        if not is_finite:
            what = f"{name} of {self.args.env_id} is not finite; the last checkpoint, if any, is from before"
            raise FloatingPointError(f"step {self.step:,}: {what}")

    def is_checkpoint_due(self) -> bool:
        return 0 < self.args.checkpoint_interval <= self.step - self.checkpoint_step

    def is_due(self, interval: int) -> bool:
        """Whether this iteration has reached a multiple of `interval`."""
        return interval > 0 and self.step // interval > self.completed // interval

    def log(self, values: dict[str, float], video: str | None = None) -> None:
        writer, wandb, self.writer, self.wandb = self.writer, self.wandb, None, None  # put back if nothing fails
        if writer:
            with warn_on_error("going on without TensorBoard until the next checkpoint"):
                for name, value in values.items():
                    writer.add_scalar(name, value, self.step)
                self.writer = writer
        if wandb:
            with warn_on_error("going on without Weights & Biases"):
                film = {"eval/video": wandb.Video(video)} if video else {}
                wandb.log({**values, **film, "global_step": self.step})
                self.wandb = wandb

    def log_losses(self, losses: dict[str, Tensor], **charts: float) -> None:
        """Every log_interval steps the losses, which are read back from the device here only, and the speed."""
        if self.is_due(self.args.log_interval):
            check_finite(losses, self.step)
            charts["SPS"] = (self.step - self.log_step) / (time.perf_counter() - self.log_time)
            self.log_step, self.log_time = self.step, time.perf_counter()
            values = {f"charts/{name}": float(value) for name, value in charts.items()}
            self.log(values | {f"losses/{name}": float(value) for name, value in losses.items()})

    def log_episode(self, episodic_return: float, length: int) -> None:
        self.log({"charts/episodic_return": float(episodic_return), "charts/episodic_length": float(length)})
        self.returns.append(float(episodic_return))
        self.bar.set_postfix({"return": f"{np.mean(self.returns):.1f}"}, refresh=False)

    def evaluate_if_due(self) -> None:
        """Every eval_interval steps, and after the last one. Comes after learning: this step is in the agent now."""
        self.learned = self.step
        is_last = self.args.eval_interval > 0 and self.step == self.args.total_timesteps
        if self.is_due(self.args.eval_interval) or is_last:
            self.evaluate()

    def evaluate(self) -> None:
        self.owes_evaluation = True  # to the run that goes on, if a signal or an error cuts it short
        video = self.dir / f"videos/step-{self.step}" if self.args.capture_video else None
        episodes = np.array(list(play(self.agent, self.args, video, self.signals)))
        if not self.signals:
            (mean, length), (std, _) = episodes.mean(0), episodes.std(0)
            values = {"eval/episodic_return": mean, "eval/episodic_return_std": std, "eval/episodic_length": length}
            self.log(values, f"{video}-episode-0.mp4" if video else None)
            self.evaluation = f"evaluation {mean:.2f} ± {std:.2f}"
            say(f"step {self.step:,}: {self.evaluation}")
            self.line_time = -math.inf  # the line of progress comes next
            self.owes_evaluation = False

    def save(self, step: int) -> bool:
        """Writes agent.pt and checkpoint.pt, if all numbers are finite; an error of the disk costs a warning."""
        state = {"script": Path(__file__).stem, "args": asdict(replace(self.args, resume=None)), "step": step}
        state["agent"] = self.agent.state_dict()
        stored = self.buffer.state_dict() if self.buffer else {}
        check_finite({**state["agent"], **stored}, step)
        self.checkpoint_step = step
        writer, self.writer = self.writer, None
        with warn_on_error("going on without TensorBoard until the next checkpoint"):
            writer = writer or SummaryWriter(self.dir)  # a new one after an error
            writer.flush()  # the scalars until here come before the checkpoint
            self.writer = writer
        with warn_on_error(f"step {step:,}: no checkpoint"):
            save(state, self.dir / "agent.pt")
            save(state | {"buffer": stored, "owes_evaluation": self.owes_evaluation}, self.dir / "checkpoint.pt")
            return True
        return False

    def __exit__(self, kind, error, _) -> None:
        """Saves, and says what the run has reached, or why it ended and how to go on."""
        close(self.env)
        if self.agent is None:  # it never started
            return
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.bar.close()
        try:
            saved = not isinstance(error, FloatingPointError) and self.save(self.learned)
        finally:  # also where save finds a number that is not finite
            if self.writer:
                with warn_on_error("TensorBoard"):
                    self.writer.close()
            with warn_on_error("Weights & Biases"):
                if self.wandb:
                    self.wandb.finish()
            with contextlib.suppress(OSError):  # of a disk that is gone, say
                (self.dir / "lock").unlink()
            self.lock.close()
        if isinstance(error, FloatingPointError):
            return
        program = [sys.executable, __file__]
        with contextlib.suppress(ValueError):  # Windows, where they are on another drive
            program = [min(path, os.path.relpath(path), key=len) for path in program]
        go_on, play_it = (shlex.join([*program, flag, str(self.dir)]) for flag in ("--resume", "--evaluate"))
        if saved and error is None:
            evaluation = f"last {self.evaluation}, " if self.evaluation else ""
            recent = f"mean return of the last {len(self.returns)} episodes {np.mean(self.returns or [math.nan]):.1f}"
            say(f"finished at step {self.step:,}, {evaluation}{recent}; play it with: {play_it}")
        elif saved and isinstance(error, SystemExit):
            say(f"stopped at step {self.learned:,}; go on with: {go_on}")
        else:
            if error is not None:
                say("".join(traceback.format_exception(error)).rstrip())
            reason = f"{kind.__name__}: {first_line(error)}" if error else "the last checkpoint cannot be written"
            sys.exit(f"{Path(__file__).name}: step {self.step:,}: {reason}; go on with: {go_on}")


if __name__ == "__main__":
    try:
        args = parse_args()
        if args.evaluate is not None and args.resume is None:
            evaluate_run(args)
        else:
            train(args)
    except (UsageError, MemoryError, OSError, FloatingPointError) as error:
        say(f"{Path(__file__).name}: {first_line(error)}", sys.stderr)
        sys.exit(1 if isinstance(error, FloatingPointError) else 2)
