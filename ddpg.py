# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "numpy==2.4.6", "gymnasium[box2d,classic-control,mujoco]==1.4.0", "mujoco==4.0.0",
#     "tyro==1.0.17", "tqdm==4.70.1", "tensorboard==2.21.0", "wandb==0.31.0", "moviepy==2.2.1"]
# ///
"""Deep Deterministic Policy Gradient (DDPG) for continuous actions.

Paper      T. Lillicrap et al., "Continuous control with deep reinforcement learning", arXiv:1509.02971, 2015
Run        python ddpg.py --env-id HalfCheetah-v5
           python ddpg.py --resume RUN_DIR
           python ddpg.py --evaluate RUN_DIR --capture-video
Results    mean ± deviation over 3 seeds, of Pendulum 5, of the last deterministic evaluation; curves in
           benchmark/results
           HalfCheetah-v5  8984 ± 1499    Hopper-v5  780 ± 507    300,000 steps
           Pendulum-v1  -133.3 ± 1.8    20,000 steps, with learning_starts 5,000

Symbols    s, a, r, s'   obs [B, obs_dim], action [B, action_dim] in [-1, 1], reward [B], next_obs [B, obs_dim]
           d             terminated [B]: 1 at a true end of the task, 0 everywhere else, also at a time limit
           μ, μ̄          actor, actor_target: the deterministic policy and its slow copy
           Q, Q̄          critic, critic_target; their value q [B]
           y, γ, τ       target of a step [B], gamma, tau
           N             noise on the action [action_dim], drawn in each step or a process that restarts each episode

Algorithm  in each environment step (the paper's Algorithm 1):
           act a = clip(μ(s) + N, -1, 1), store (s, a, r, s', d), draw a batch           ReplayBuffer
           y = r + γ (1 - d) Q̄(s', μ̄(s'))                                                td_target
           descend mean (Q(s, a) - y)²                                                   critic_loss
           descend -mean Q(s, μ(s))                                                      actor_loss
           Q̄ ← τ Q + (1 - τ) Q̄, and so μ̄                                                 polyak_update

Differs    the mask (1 - d), without which Q bootstraps past the end of the task
from the   networks, batch size, τ, Gaussian noise and 25,000 random actions at first as in TD3's authors' code; no
paper      weight decay; 1e-3 for the actor too: three seeds of HalfCheetah-v5 had 5172 ± 720 after 100,000 steps, with
           the 3e-4 of that code for both networks 4226 ± 416. With 3e-4 and 5,000 random actions it was 4084 ± 174;
           with the paper's τ = 0.001 and step sizes, 1e-4 and 1e-3, 3072 ± 421, presumably too slow for so few steps
           the action is clipped before it is executed and stored, so that the buffer holds what was executed

The notes  kept: the target copies and their soft update; noise as a process.
           Put right (rows of NOTES.md): the lost primes, which make the soft update a hard copy in each step (E003-20);
           the missing mask (E003-21); actions that leave their range (E003-22); learning before there is a batch
           (E003-26). With a replay buffer and a learned critic the policy gradient is an approximation, not unbiased
           (E003-23).
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
    gamma: float = 0.99  # γ, discount (paper, Section 7)
    tau: float = 0.005  # τ, how far the targets move towards the networks (TD3's authors; paper: 0.001)
    batch_size: int = 256  # transitions in a batch (TD3's authors' code; paper: 64)
    buffer_size: int = 1_000_000  # transitions kept for sampling (paper, Section 7)
    learning_starts: int = 25_000  # uniformly random steps before the first update (TD3's authors' later code)
    actor_lr: float = 1e-3  # Adam step size of the actor (Spinning Up, Tianshou; paper: 1e-4)
    critic_lr: float = 1e-3  # Adam step size of the critic (paper, Section 7)
    exploration_noise: float = 0.1  # σ, standard deviation of the noise's random part (TD3's authors; paper: 0.2)
    noise_process: Literal["gaussian", "ou"] = "gaussian"  # fresh noise, or Ornstein-Uhlenbeck: 0.85 of the last stays


# ---- Equations: tensors and floats in, tensors out ----
@torch.no_grad()
def polyak_update(source: Iterable[Tensor], target: Iterable[Tensor], tau: float) -> None:
    """Q̄ ← τ Q + (1 - τ) Q̄ in place: each target moves towards its source; tau = 1 is the hard copy.

    source, target: the parameters of Q and of Q̄, in pairs of equal shape; tau: τ in [0, 1].
    Source: arXiv:1509.02971, Algorithm 1.
    """
    torch._foreach_lerp_(list(target), list(source), tau)


def td_target(reward: Tensor, terminated: Tensor, next_q: Tensor, gamma: float) -> Tensor:
    """y = r + γ (1 - d) Q̄(s', μ̄(s')) [B]: after the end there is no value.

    reward, terminated: r, d [B]; next_q: Q̄ at (s', μ̄(s')) [B]; gamma: γ.
    Source: arXiv:1509.02971, Algorithm 1, and the mask.
    """
    return reward + gamma * (1 - terminated) * next_q


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """mean (Q(s, a) - y)² []. q, target: Q, y [B]. Source: arXiv:1509.02971, Algorithm 1."""
    return F.mse_loss(q, target)


def actor_loss(q: Tensor) -> Tensor:
    """-mean Q(s, μ(s)) []: descending it climbs the value. q: Q [B]. Source: arXiv:1509.02971, Algorithm 1."""
    return -q.mean()


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
    """obs [B, obs_dim] -> action [B, action_dim] in [-1, 1]."""

    def __init__(self, obs_dim: int, action_dim: int):
        super().__init__()
        self.net = mlp(obs_dim, action_dim)

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs).tanh()


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
    """DDPG's networks and optimizers for 1-D Boxes of observations and of actions in [-1, 1]; steps no environment."""

    def __init__(self, obs_space: gym.spaces.Box, action_space: gym.spaces.Box, args: Args):
        super().__init__()
        self.args, self.device = args, pick_device(args)
        obs_dim, action_dim = obs_space.shape[0], action_space.shape[0]
        self.actor = Actor(obs_dim, action_dim)
        self.critic = Critic(obs_dim, action_dim)
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.to(self.device)
        self.actor_optimizer = Adam(self.actor.parameters(), args.actor_lr)
        self.critic_optimizer = Adam(self.critic.parameters(), args.critic_lr)
        self.noise = torch.zeros(action_dim, device=self.device)  # N, to be set to zero where an episode starts

    @torch.inference_mode()
    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        """action [action_dim] for one obs [obs_dim]: μ(s), to explore with noise, within [-1, 1] all the same."""
        obs = torch.as_tensor(obs, dtype=torch.float32).to(self.device, non_blocking=True)
        action = self.actor(obs)
        if explore:
            kept = 0.85 if self.args.noise_process == "ou" else 0.0  # paper, Section 7: θ = 0.15
            self.noise.mul_(kept).add_(torch.randn_like(action), alpha=self.args.exploration_noise)
            action = (action + self.noise).clamp(-1, 1)
        return action.cpu().numpy()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the critic, the actor and the targets; returns detached scalars."""
        obs, action, reward, next_obs, terminated = batch

        with torch.no_grad():
            next_q = self.critic_target(next_obs, self.actor_target(next_obs))
            target = td_target(reward, terminated, next_q, self.args.gamma)
        q = self.critic(obs, action)
        metrics = {"critic_loss": critic_loss(q, target), "q": q.mean()}
        self.critic_optimizer.descend(metrics["critic_loss"])

        new_action = self.actor(obs)
        with frozen(self.critic):
            q = self.critic(obs, new_action)
        metrics["actor_loss"] = actor_loss(q)
        self.actor_optimizer.descend(metrics["actor_loss"])

        polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.args.tau)
        polyak_update(self.actor.parameters(), self.actor_target.parameters(), self.args.tau)
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
    limits |= dict.fromkeys(["eval_interval", "checkpoint_interval"], (0, math.inf))
    limits |= dict.fromkeys(["actor_lr", "critic_lr"], (1e-9, 1e9)) | {"exploration_noise": (0, 1e9)}
    limits |= {"seed": (0, 2**32 - 1), "gamma": (0, 1), "tau": (1e-9, 1)}
    for name, (low, high) in limits.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"--{name.replace('_', '-')} {value} is outside of [{low}, {high}]")
    if args.batch_size > args.buffer_size:
        raise UsageError("--batch-size is larger than --buffer-size: lower it")
    if args.learning_starts >= args.total_timesteps:
        raise UsageError("--learning-starts must be below --total-timesteps, or nothing is learned")
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
                agent.noise.zero_()
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
