# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "numpy==2.4.6", "gymnasium[box2d,classic-control,mujoco]==1.4.0", "mujoco==4.0.0",
#     "tyro==1.0.17", "tqdm==4.70.1", "tensorboard==2.21.0", "wandb==0.31.0", "moviepy==2.2.1"]
# ///
"""Soft Actor-Critic (SAC) for continuous actions, with a learned temperature.

Paper      T. Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905, 2018
Run        python sac_continuous.py --env-id HalfCheetah-v5
           python sac_continuous.py --resume RUN_DIR
           python sac_continuous.py --evaluate RUN_DIR --capture-video
Results    mean ± deviation over 3 seeds, of Pendulum 5, of the last deterministic evaluation; curves in
           benchmark/results
           HalfCheetah-v5  9150 ± 1275    Hopper-v5  2291 ± 754    300,000 steps
           Pendulum-v1  -130.8 ± 1.0    20,000 steps
           With α fixed at 0.2 (--no-autotune --learning-starts 10_000), as in Tianshou's benchmark, Hopper has
           3336 ± 146; learned, α falls to 0.05 there, and agents stumble now and then

Symbols    s, a, r, s'   obs [B, obs_dim], action [B, action_dim] in [-1, 1], reward [B], next_obs [B, obs_dim]
           d             terminated [B]: 1 at a true end of the task, 0 everywhere else, also at a time limit
           μ, log σ      mean, log_std [B, action_dim]: the Gaussian that the actor π puts before tanh
           ε, u          noise ~ N(0, I) and u = μ + σ ε [B, action_dim]
           log π(a|s)    log_prob [B], summed over the action's dimensions
           Qᵢ, Q̄ᵢ        critics, critics_target; their values q1, q2 [B]
           y, γ, τ       target of a step [B], gamma, tau
           α, H̄          alpha = exp(log_alpha), the temperature, and target_entropy []

Algorithm  in each environment step (the paper's Algorithm 1):
           act a ~ π(s), store (s, a, r, s', d), draw a batch from all that is stored    ReplayBuffer
           a = tanh(u),  log π(a|s) = Σⱼ log N(uⱼ; μⱼ, σⱼ) - log(1 - tanh² uⱼ)           squash
           y = r + γ (1 - d) [minᵢ Q̄ᵢ(s', a') - α log π(a'|s')],  a' ~ π(s')             td_target
           descend Σᵢ mean (Qᵢ(s, a) - y)²                                               critic_loss
           descend mean [α log π(ã|s) - minᵢ Qᵢ(s, ã)],  ã ~ π(s) through ε              actor_loss
           descend -log α mean [log π(ã|s) + H̄]                                          alpha_loss
           Q̄ᵢ ← τ Qᵢ + (1 - τ) Q̄ᵢ                                                        polyak_update

Differs    the mask (1 - d), without which Q bootstraps past the end of the task
from the   no factor 1/2 in the critics' loss, which Adam would not notice
paper      log α is descended, not α, so that α stays positive: same sign, same fixed point
           log σ is bounded to [-5, 2] smoothly, because a clamp has no gradient outside its bounds; it starts near 0:
           three seeds of HalfCheetah-v5 then had a mean of 6117 after 100,000 steps, but 5346 from σ = 0.2
           the first learning_starts actions are uniformly random; α starts at 0.2, as in the notes
           actor and critics step by 1e-3, as in Spinning Up and Tianshou

The notes  kept: twin critics with target copies, α = 0.2 at the start, a target entropy that moves.
           Put right (rows of NOTES.md): the sign of H̄ (E003-43) and of log π (E001-1) in α's loss, either of which
           lets α run away; log π summed twice (E003-41); the missing mask (E003-48); 1e-6 inside the logarithm, whose
           gradient is wrong beyond |u| = 6 and 0 beyond 10 (E003-46); log π left out of the actor's gradient (E003-42).
           KL(π || exp(Q/α)/Z) is the reverse, mode-seeking KL: exploration comes from the entropy alone (E003-40).
"""

import contextlib
import copy
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
    env_id: str = "Hopper-v5"  # Gymnasium id of the environment
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
    gamma: float = 0.99  # γ, discount (paper, Appendix D)
    tau: float = 0.005  # τ, target smoothing coefficient (paper, Appendix D)
    batch_size: int = 256  # transitions in a batch (paper, Appendix D)
    buffer_size: int = 1_000_000  # transitions kept for sampling (paper, Appendix D)
    learning_starts: int = 5_000  # uniformly random steps before the first update (CleanRL)
    actor_lr: float = 1e-3  # Adam step size of the actor (Spinning Up, Tianshou; paper: 3e-4)
    critic_lr: float = 1e-3  # Adam step size of the critics (CleanRL, Spinning Up, Tianshou; paper: 3e-4)
    alpha_lr: float = 3e-4  # Adam step size of log α (paper, Appendix D)
    autotune: bool = True  # learn α (paper, Section 5)
    alpha: float = 0.2  # α, or its first value with autotune (note 001)
    target_entropy: float | None = None  # H̄, or its first value; None: -action_dim (paper, Appendix D)
    target_entropy_end: float | None = None  # last value of an H̄ that moves linearly (note 001)
    target_entropy_duration: int = 0  # updates until a moving H̄ arrives


# ---- Equations: tensors and floats in, tensors out ----
@torch.no_grad()
def polyak_update(source: Iterable[Tensor], target: Iterable[Tensor], tau: float) -> None:
    """Q̄ ← τ Q + (1 - τ) Q̄ in place: each target moves towards its source; tau = 1 is the hard copy.

    source, target: the parameters of Q and of Q̄, in pairs of equal shape; tau: τ in [0, 1].
    Source: arXiv:1509.02971, Algorithm 1.
    """
    torch._foreach_lerp_(list(target), list(source), tau)


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(u) with u = μ + σ ε, and log π(a|s) = Σⱼ log N(uⱼ; μⱼ, σⱼ) - log(1 - tanh² uⱼ).

    mean, log_std, noise: μ, log σ, ε [B, action_dim]. Returns action [B, action_dim] and log_prob [B].
    2 (log 2 - u - softplus(-2u)) is log(1 - tanh² u), and stays exact where tanh rounds to 1, its gradient too.
    Source: arXiv:1812.05905, Appendix C.
    """
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return u.tanh(), (log_normal - log_slope).sum(-1)


def td_target(
    reward: Tensor, terminated: Tensor, next_q1: Tensor, next_q2: Tensor,
    gamma: float, next_log_prob: Tensor, alpha: Tensor,
) -> Tensor:  # fmt: skip
    """y = r + γ (1 - d) [min(Q̄₁, Q̄₂) - α log π(a'|s')] [B]: after the end there is neither value nor entropy.

    reward, terminated: r, d [B]; next_q1, next_q2, next_log_prob: Q̄₁, Q̄₂, log π at (s', a') [B]; gamma: γ;
    alpha: α []. Source: arXiv:1812.05905, Sections 4.2 and 6, and the mask.
    """
    return reward + gamma * (1 - terminated) * (torch.minimum(next_q1, next_q2) - alpha * next_log_prob)


def critic_loss(q1: Tensor, q2: Tensor, target: Tensor) -> Tensor:
    """Σᵢ mean (Qᵢ(s, a) - y)² []. q1, q2, target: Q₁, Q₂, y [B]. Source: arXiv:1812.05905, Sections 4.2, 6."""
    return F.mse_loss(q1, target) + F.mse_loss(q2, target)


def actor_loss(log_prob: Tensor, q1: Tensor, q2: Tensor, alpha: Tensor) -> Tensor:
    """mean [α log π(ã|s) - min(Q₁, Q₂)(s, ã)] []: α KL(π || exp(Q/α)/Z) but for the constant α log Z.

    log_prob, q1, q2: log π, Q₁, Q₂ at (s, ã) [B]; alpha: α []. Source: arXiv:1812.05905, Sections 4.2 and 6.
    """
    return (alpha * log_prob - torch.minimum(q1, q2)).mean()


def alpha_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: Tensor) -> Tensor:
    """-log α mean [log π(ã|s) + H̄] []: descending it raises α while the entropy, -mean log π, is below H̄.

    log_alpha: log α []; log_prob: log π(ã|s) [B], a constant here; target_entropy: H̄ [].
    Source: arXiv:1812.05905, Section 5, with log α for α.
    """
    return -(log_alpha * (log_prob.detach() + target_entropy)).mean()


# ---- Networks ----
# Matrix products through oneDNN: in float32 twice as fast on an AMD CPU as MKL, which PyTorch takes on its own. As an
# operator of its own, because that is what torch.compile can take into its graph.
onednn = torch.library.Library(f"onednn_{__name__.strip('_')}", "FRAGMENT")
onednn.define("linear(Tensor x, Tensor w, Tensor? b) -> Tensor", tags=(torch.Tag.needs_exact_strides,))
onednn.impl("linear", lambda x, w, b: torch.ops.mkldnn._linear_pointwise.default(x, w, b, "none", [], ""), "CPU")
onednn.impl("linear", lambda x, w, b: x.new_empty(len(x), len(w)), "Meta")
onednn_linear = getattr(torch.ops, onednn.ns).linear.default
has_onednn = torch.backends.mkldnn.is_available()


class LinearFunction(torch.autograd.Function):
    """x wᵀ + b by oneDNN; x [B, in], w [out, in], b [out], all contiguous, for which alone oneDNN is fast."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return onednn_linear(x, w, b)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        grad_x = onednn_linear(grad, w.t(), None) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:  # frozen
            return grad_x, None, None
        if x.shape[1] < grad.shape[1]:  # transposes the smaller one
            return grad_x, onednn_linear(x.t().contiguous(), grad.t(), None).t(), grad.sum(0)
        return grad_x, onednn_linear(grad.t().contiguous(), x.t(), None), grad.sum(0)


class Linear(nn.Linear):
    """nn.Linear, on the CPU by oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        if has_onednn and x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 2:
            return LinearFunction.apply(x.contiguous(), self.weight, self.bias)
        return super().forward(x)


def mlp(num_inputs: int, num_outputs: int) -> nn.Sequential:
    """Two hidden layers of 256 rectified units."""
    hidden = [Linear(num_inputs, 256), nn.ReLU(), Linear(256, 256), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(256, num_outputs))


class Actor(nn.Module):
    """obs [B, obs_dim] -> mean, log_std [B, action_dim] of the Gaussian before tanh."""

    def __init__(self, obs_dim: int, action_dim: int):
        super().__init__()
        self.net = mlp(obs_dim, 2 * action_dim)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.net(obs).chunk(2, dim=-1)
        return mean, -1.5 + 3.5 * ((log_std + 1.5) / 3.5).tanh()  # in [-5, 2], hardly changed in the middle


class Critic(nn.Module):
    """obs [B, obs_dim], action [B, action_dim] -> q [B]."""

    def __init__(self, obs_dim: int, action_dim: int):
        super().__init__()
        self.net = mlp(obs_dim + action_dim, 1)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([obs, action], dim=-1)).squeeze(-1)


# ---- Replay buffer ----
# float32: obs, next_obs [B, obs_dim], action [B, action_dim], reward, terminated [B]
Batch = namedtuple("Batch", "obs action reward next_obs terminated")


class ReplayBuffer:
    """The last `capacity` transitions, each a row of float32, on the training device; MemoryError if they don't fit."""

    def __init__(self, obs_dim: int, action_dim: int, capacity: int, device: torch.device):
        self.widths = [obs_dim, action_dim, obs_dim, 1, 1]
        size, free = 4e-9 * capacity * sum(self.widths), 1e-9 * free_memory(device)
        print(f"replay buffer: {capacity:,} transitions, {size:.2f} GB on {device}")
        if size > free:
            raise MemoryError(f"--buffer-size {capacity} takes {size:.2f} GB, but {free:.2f} GB are free: lower it")
        self.rows = torch.empty(capacity, sum(self.widths), device=device)
        self.parts = list(itertools.starmap(slice, itertools.pairwise(itertools.accumulate(self.widths, initial=0))))
        self.num_added = 0
        self.num_filled = torch.zeros((), dtype=torch.int64, device=device)  # a tensor, so that a CUDA graph reads it

    def add(self, obs: np.ndarray, action: np.ndarray, reward: float, next_obs: np.ndarray, terminated: bool) -> None:
        """Stores over the oldest; next_obs is the true successor, also where an episode ends."""
        place, is_cuda = self.num_added % len(self.rows), self.rows.is_cuda  # on the CPU written in place, by NumPy
        row = np.empty(self.rows.shape[1], np.float32) if is_cuda else self.rows.numpy()[place]
        for part, value in zip(self.parts, (obs, action, next_obs, reward, terminated), strict=True):
            row[part] = value
        if is_cuda:
            self.rows[place].copy_(torch.from_numpy(row), non_blocking=True)
        self.num_added += 1
        self.num_filled.fill_(min(self.num_added, len(self.rows)))

    def sample(self, batch_size: int) -> Batch:
        """Uniform over what is stored, with replacement."""
        index = torch.randint(2**62, (batch_size,), device=self.rows.device) % self.num_filled
        obs, action, next_obs, reward, terminated = self.rows.index_select(0, index).split(self.widths, dim=-1)
        return Batch(obs, action, reward.squeeze(-1), next_obs, terminated.squeeze(-1))

    def state_dict(self) -> dict:
        rows = self.rows[: min(self.num_added, len(self.rows))]
        rows = torch.from_numpy(rows.cpu().numpy())  # torch.save would write a slice's whole storage; this one's fits
        return {"rows": rows, "num_added": self.num_added}

    def load_state_dict(self, state: dict) -> None:
        self.rows[: len(state["rows"])] = state["rows"]
        self.num_added = state["num_added"]
        self.num_filled.fill_(len(state["rows"]))


def free_memory(device: torch.device) -> float:
    """Bytes free on `device`, or a container's limit; infinite where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] - 1e9  # for networks, gradients and batches
    meminfo, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    free = 1024 * int(re.search(r"MemAvailable:\s*(\d+)", meminfo.read_text())[1]) if meminfo.exists() else math.inf
    return min(free, float(limit.read_text().replace("max", "inf"))) if limit.exists() else free


# ---- Agent ----
# PyTorch's fused kernel as an operator of its own, which torch.compile takes into its graph as it is: fused into other
# loops, Adam is several times slower on a CPU.
adam = torch.library.Library(f"adam_{__name__.strip('_')}", "FRAGMENT")
adam.define("step(Tensor(a!)[] p, Tensor[] grads, Tensor(b!)[] means, Tensor(c!)[] squares, Tensor t, float lr) -> ()")
adam.impl("step", lambda *tensors_and_lr: fused_adam(*tensors_and_lr), "CompositeExplicitAutograd")
adam.impl("step", lambda *_: None, "Meta")
adam_step = getattr(torch.ops, adam.ns).step.default


def fused_adam(parameters, grads, means, squares, num_steps, lr) -> None:
    options = {"lr": lr, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    steps = [num_steps] * len(grads)
    torch._fused_adam_(parameters, grads, means, squares, [], steps, **options, amsgrad=False, maximize=False)


class Adam(nn.Module):
    """Adam (arXiv:1412.6980, Algorithm 1): torch.optim.Adam's numbers, but torch.compile keeps it within one graph.

    A module, so that its moments are part of the agent's state_dict.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float):
        super().__init__()
        self.owned, self.lr = list(parameters), lr
        self.register_buffer("num_steps", torch.zeros((), device=self.owned[0].device))
        for i, parameter in enumerate(self.owned):
            self.register_buffer(f"mean{i}", torch.zeros_like(parameter))
            self.register_buffer(f"square{i}", torch.zeros_like(parameter))
        self.means = [self.get_buffer(f"mean{i}") for i in range(len(self.owned))]
        self.squares = [self.get_buffer(f"square{i}") for i in range(len(self.owned))]

    def descend(self, loss: Tensor) -> None:
        """One step down `loss` with the parameters of this optimizer; others that the loss runs through stay clean."""
        grads = [grad.contiguous() for grad in torch.autograd.grad(loss, self.owned)]  # the kernel ignores strides
        with torch.no_grad():
            self.num_steps.add_(1)
            adam_step(self.owned, grads, self.means, self.squares, self.num_steps, self.lr)


class Agent(nn.Module):
    """SAC's networks and optimizers for 1-D Boxes of observations and of actions in [-1, 1]; steps no environment."""

    def __init__(self, obs_space: gym.spaces.Box, action_space: gym.spaces.Box, args: Args):
        super().__init__()
        self.args, self.device = args, pick_device(args)
        obs_dim, action_dim = obs_space.shape[0], action_space.shape[0]
        self.actor = Actor(obs_dim, action_dim)
        self.critics = nn.ModuleList([Critic(obs_dim, action_dim), Critic(obs_dim, action_dim)])
        self.critics_target = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(args.alpha).log())
        start = -action_dim if args.target_entropy is None else args.target_entropy
        end = start if args.target_entropy_end is None else args.target_entropy_end
        self.register_buffer("target_entropy", torch.tensor([start, end], dtype=torch.float32))  # first, last value
        self.to(self.device)
        self.actor_optimizer = Adam(self.actor.parameters(), args.actor_lr)
        self.critic_optimizer = Adam(self.critics.parameters(), args.critic_lr)
        self.alpha_optimizer = Adam([self.log_alpha], args.alpha_lr)

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a ~ π(s) [B, action_dim] and log π(a|s) [B], with gradients to the actor."""
        mean, log_std = self.actor(obs)
        return squash(mean, log_std, torch.randn_like(mean))

    @torch.inference_mode()
    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        """action [action_dim] for one obs [obs_dim]: drawn from π(s) to explore, otherwise tanh μ(s)."""
        obs = torch.as_tensor(obs, dtype=torch.float32).to(self.device, non_blocking=True)
        mean, log_std = self.actor(obs)
        u = mean + log_std.exp() * torch.randn_like(mean) if explore else mean
        return u.tanh().cpu().numpy()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the critics, the actor, the temperature and the targets; returns detached scalars."""
        obs, action, reward, next_obs, terminated = batch
        alpha = self.log_alpha.detach().exp()

        with torch.no_grad():
            next_action, next_log_prob = self.sample(next_obs)  # of the current actor: SAC has no target actor
            next_q1, next_q2 = (critic(next_obs, next_action) for critic in self.critics_target)
            target = td_target(reward, terminated, next_q1, next_q2, self.args.gamma, next_log_prob, alpha)
        q1, q2 = (critic(obs, action) for critic in self.critics)
        metrics = {"critic_loss": critic_loss(q1, q2, target), "q": q1.mean(), "alpha": alpha}
        self.critic_optimizer.descend(metrics["critic_loss"])

        new_action, log_prob = self.sample(obs)
        with frozen(self.critics):
            q1, q2 = (critic(obs, new_action) for critic in self.critics)
        metrics |= {"actor_loss": actor_loss(log_prob, q1, q2, alpha), "entropy": -log_prob.mean()}
        self.actor_optimizer.descend(metrics["actor_loss"])

        if self.args.autotune:
            progress = (self.alpha_optimizer.num_steps / max(self.args.target_entropy_duration, 1)).clamp(max=1)
            metrics["target_entropy"] = torch.lerp(*self.target_entropy, progress)
            metrics["alpha_loss"] = alpha_loss(self.log_alpha, log_prob, metrics["target_entropy"])
            self.alpha_optimizer.descend(metrics["alpha_loss"])

        polyak_update(self.critics.parameters(), self.critics_target.parameters(), self.args.tau)
        return {name: value.detach() for name, value in metrics.items()}


@contextlib.contextmanager
def frozen(module: nn.Module):
    """Spares gradients of the parameters of `module`, which would not be used; torch.compile finds that out itself."""
    module.requires_grad_(torch.compiler.is_compiling())
    yield
    module.requires_grad_(True)


def pick_device(args: Args) -> torch.device:
    return torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")


def compiled(update: Callable) -> Callable:
    """`update` in one graph: forward, backward and optimizers; with the random numbers of the plain one."""
    torch._dynamo.config.trace_autograd_ops = True
    torch._inductor.config.fallback_random = True
    return torch.compile(update, fullgraph=True)


class CudaGraph:
    """Calls `function` with one launch, as a CUDA graph, after three plain calls in which it allocates what it needs.

    What `function` reads must stay at its address; what it returns is overwritten by the next call.
    """

    def __init__(self, function: Callable):
        self.function, self.graph, self.num_calls = function, torch.cuda.CUDAGraph(), 0
        self.stream = torch.cuda.Stream()

    def __call__(self):
        self.num_calls += 1
        if self.num_calls <= 3:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                output = self.function()
            torch.cuda.current_stream().wait_stream(self.stream)
            return output
        if self.num_calls == 4:
            with torch.cuda.graph(self.graph, stream=self.stream):  # records, does not run
                self.output = self.function()
        self.graph.replay()
        return self.output


# ---- Environment and evaluation ----
class UsageError(Exception):
    """What the user can put right: the script ends with its one line and status 2."""


def make_env(env_id: str, render: bool = False) -> gym.Env:
    """The environment with its actions rescaled to [-1, 1], and info["episode"] at an episode's end."""
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
    return gym.wrappers.RescaleAction(gym.wrappers.RecordEpisodeStatistics(env), np.float32(-1), np.float32(1))


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
            obs, _, terminated, truncated, info = env.step(agent.act(obs, explore=False))
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
    limits |= dict.fromkeys(["batch_size", "buffer_size", "learning_starts"], (1, math.inf))
    limits |= dict.fromkeys(["eval_interval", "checkpoint_interval", "target_entropy_duration"], (0, math.inf))
    limits |= dict.fromkeys(["actor_lr", "critic_lr", "alpha_lr", "alpha"], (1e-9, 1e9))
    limits |= dict.fromkeys(["target_entropy", "target_entropy_end"], (-1e9, 1e9))
    limits |= {"seed": (0, 2**32 - 1), "gamma": (0, 1), "tau": (1e-9, 1)}
    for name, (low, high) in limits.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"--{name.replace('_', '-')} {value} is outside of [{low}, {high}]")
    if args.batch_size > args.buffer_size:
        raise UsageError("--batch-size is larger than --buffer-size: lower it")
    if args.learning_starts >= args.total_timesteps:
        raise UsageError("--learning-starts must be below --total-timesteps, or nothing is learned")
    if (args.target_entropy_end is None) != (args.target_entropy_duration == 0):
        raise UsageError("--target-entropy-end and --target-entropy-duration belong together: give both or none")
    if not args.autotune and (args.target_entropy, args.target_entropy_end) != (None, None):
        raise UsageError("--no-autotune fixes the temperature: drop --target-entropy")
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


def checkpoint(
    run_dir: Path, args: Args, agent: Agent, buffer: ReplayBuffer, env: gym.Env, step: int, log: Logger
) -> None:
    """Writes agent.pt and checkpoint.pt, but nothing that is not finite, and the scalars until here before them."""
    state, stored = {"args": asdict(args), "agent": agent.state_dict()}, buffer.state_dict()
    check_finite((state["agent"] | {"the replay buffer": stored["rows"]}).items(), step)
    log.writer.flush()
    save(state, run_dir / "agent.pt")
    generators = env.unwrapped.np_random.bit_generator, env.action_space.np_random.bit_generator
    state |= {"step": step, "buffer": stored, "numpy_rng": [generator.state for generator in generators]}
    cuda_rng = torch.cuda.get_rng_state() if agent.device.type == "cuda" else None
    save(state | {"torch_rng": torch.get_rng_state(), "cuda_rng": cuda_rng}, run_dir / "checkpoint.pt")


def restore(state: dict, agent: Agent, buffer: ReplayBuffer, env: gym.Env) -> int:
    """Undoes `checkpoint`; returns the step."""
    agent.load_state_dict(state["agent"])
    buffer.load_state_dict(state["buffer"])
    generators = env.unwrapped.np_random.bit_generator, env.action_space.np_random.bit_generator
    for generator, generator_state in zip(generators, state["numpy_rng"], strict=True):
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
    torch.set_num_threads(args.torch_threads)
    torch.manual_seed(args.seed)
    env = make_env(args.env_id)
    env.action_space.seed(args.seed)
    agent = Agent(env.observation_space, env.action_space, args)
    dims = env.observation_space.shape[0], env.action_space.shape[0]
    buffer = ReplayBuffer(*dims, min(args.buffer_size, args.total_timesteps), agent.device)
    run_dir = run_dir or make_run_dir(args)
    step = checkpoint_step = log_step = restore(saved, agent, buffer, env) if saved else 0
    obs, _ = env.reset(seed=None if saved else args.seed)
    saved.clear()  # it has a second replay buffer
    update = compiled(agent.update) if args.compile else agent.update
    learn = lambda: update(buffer.sample(args.batch_size))  # noqa: E731
    learn = CudaGraph(learn) if args.cudagraphs else learn
    print(f"{run_dir}: from step {step:,} on {agent.device}")
    logger, log_time = Logger(args, run_dir, step), time.perf_counter()
    bar = tqdm(total=args.total_timesteps, initial=step, unit="step", unit_scale=True, disable=None)
    with bar, contextlib.closing(logger), stop_signals() as signals:
        while step < args.total_timesteps and not signals:
            step += 1
            # act
            learning = step > args.learning_starts
            action = agent.act(obs, explore=True) if learning else env.action_space.sample()
            # step the environment
            next_obs, reward, terminated, truncated, info = env.step(action)
            buffer.add(obs, action, reward, next_obs, terminated)
            obs = next_obs
            # learn
            if learning:
                metrics = learn()
                if step % args.log_interval == 0:
                    check_finite(metrics.items(), step)
                    losses = zip(metrics, torch.stack([*metrics.values()]).tolist(), strict=True)
                    sps = (step - log_step) / (time.perf_counter() - log_time)
                    logger.scalars({f"losses/{name}": loss for name, loss in losses} | {"charts/SPS": sps}, step)
                    log_step, log_time = step, time.perf_counter()
            # evaluate
            if args.eval_interval and (step % args.eval_interval == 0 or step == args.total_timesteps):
                video = run_dir / f"videos/step-{step}" if args.capture_video else None
                returns = evaluate(agent, args, video)
                logger.scalars({"eval/episodic_return": np.mean(returns)}, step)
                if video:
                    file, log = f"{video}-episode-0.mp4", {"global_step": step}
                    logger.track(lambda wandb: wandb.log({"eval/video": wandb.Video(file), **log}))  # noqa: B023
                tqdm.write(f"step {step:,}: evaluation {np.mean(returns):.2f} ± {np.std(returns):.2f}")
            if terminated or truncated:
                episode = info["episode"]
                logger.scalars({"charts/episodic_return": episode["r"], "charts/episodic_length": episode["l"]}, step)
                bar.set_postfix({"return": f"{episode['r']:.1f}"}, refresh=False)
                if args.checkpoint_interval and step - checkpoint_step >= args.checkpoint_interval:
                    try:
                        checkpoint(run_dir, args, agent, buffer, env, step, logger)
                        checkpoint_step = step
                    except (OSError, RuntimeError) as error:  # a full disk, say: tried again after the next episode
                        tqdm.write(f"warning: step {step:,}: no checkpoint: {first_line(error)}", file=sys.stderr)
                obs, _ = env.reset()
            bar.update()
        checkpoint(run_dir, args, agent, buffer, env, step, logger)
    if signals and step < args.total_timesteps:
        print(f"stopped at step {step:,}, within an episode; go on with --resume {run_dir}")
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
