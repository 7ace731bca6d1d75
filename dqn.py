# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "numpy==2.4.6", "gymnasium[box2d,classic-control,mujoco]==1.4.0",
#     "tyro==1.0.17", "tqdm==4.70.1", "tensorboard==2.21.0", "wandb==0.31.0", "moviepy==2.2.1", "ale-py==0.12.1",
#     "stable-baselines3==2.9.2", "opencv-python-headless==5.0.0.93"]
# ///
"""Deep Q-Network (DQN) for discrete actions, from vectors or from Atari's frames.

Paper      V. Mnih et al., "Human-level control through deep reinforcement learning", Nature 518, 2015
Run        python dqn.py --env-id CartPole-v1
           python dqn.py --resume RUN_DIR
           python dqn.py --evaluate RUN_DIR --capture-video
Results    mean ± deviation over 5 seeds of the last 100 training episodes; curves in benchmark/results
           CartPole-v1  475.7 ± 39.5    Acrobot-v1  -90.9 ± 2.9    500,000 steps
           LunarLander-v3  194.9 ± 39.4    300,000 steps, with the README's arguments

Symbols    s, a, r, s'   obs [B, *obs_shape], action [B], reward [B], next_obs [B, *obs_shape]
           d             terminated [B]: 1 at a true end of the task, 0 everywhere else, also at a time limit
           Q, Q̄          q_network, q_network_target; their values q [B, n_actions]
           ε             epsilon: the share of uniformly random actions
           y, γ, τ       target of a step [B], gamma, tau

Algorithm  in each environment step (the paper's Algorithm 1):
           ε from ε_start to ε_end                               linear_schedule, exponential_schedule
           act a = argmaxₐ Q(s, a), at random with probability ε; store (s, a, r, s', d)   ReplayBuffer, FrameBuffer
           in every train_interval-th step, with a batch from all that is stored:
           y = r + γ (1 - d) maxₐ Q̄(s', a)                                                 td_target
           descend mean (Q(s, a) - y)²                                                     q_loss
           in every target_update_interval-th step of the whole run:
           Q̄ ← τ Q + (1 - τ) Q̄, with τ = 1 a copy                                          polyak_update

Differs    Adam for RMSProp, and the square of the error where the paper clips the error to [-1, 1]
from the   networks, step sizes and intervals for classic control by default; the README has arguments for Atari
paper      Atari: ended episodes at a lost life, rewards clipped to their sign and frames as in the paper, in training
           only; a time limit is no end

The notes  kept: ε in each step by either rule; targets copied or moved softly; y = r at a true end.
           Put right (rows of NOTES.md): the sign of the loss's gradient (E003-1); the missing mask, without which a
           one-step task of reward 1 is worth 100 (E003-2); the copy counted within the episode, which in short ones
           never comes (E003-3); an obs that stands still until learning starts (E003-4). Taking the largest of noisy
           values overestimates: the largest of n errors has a mean above 0, not each maximum a positive error (E003-9).
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
    env_id: str = "CartPole-v1"  # Gymnasium id of the environment
    seed: int = 1  # seed of the networks, the noise, the batches and the environment
    total_timesteps: int = 500_000  # total number of environment steps
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
    gamma: float = 0.99  # γ, discount (paper, Extended Data Table 1)
    tau: float = 1.0  # τ, how far the target moves towards the network: 1 copies (paper)
    batch_size: int = 128  # transitions in a batch (CleanRL; paper: 32)
    buffer_size: int = 10_000  # transitions kept for sampling (CleanRL; paper: 1,000,000)
    learning_starts: int = 10_000  # steps before the first update (CleanRL; paper: 50,000)
    learning_rate: float = 2.5e-4  # Adam step size (CleanRL)
    train_interval: int = 10  # environment steps between two updates (CleanRL; paper: 4)
    target_update_interval: int = 500  # steps between two moves of the target (CleanRL; paper: 10,000 updates)
    epsilon_start: float = 1.0  # ε at the first step (paper)
    epsilon_end: float = 0.05  # final ε (CleanRL; paper: 0.1)
    epsilon_schedule: Literal["linear", "exponential"] = "linear"  # how ε falls (paper: linear; note 003: exponential)
    epsilon_duration: int = 250_000  # linear: environment steps until epsilon_end (CleanRL)
    epsilon_decay: float = 0.99998  # exponential: factor in each step (note 003: 0.995, at 0.05 after 600 steps)


# ---- Equations: tensors and floats in, tensors out ----
@torch.no_grad()
def polyak_update(source: Iterable[Tensor], target: Iterable[Tensor], tau: float) -> None:
    """Q̄ ← τ Q + (1 - τ) Q̄ in place: each target moves towards its source; tau = 1 is the hard copy.

    source, target: the parameters of Q and of Q̄, in pairs of equal shape; tau: τ in [0, 1].
    Source: arXiv:1509.02971, Algorithm 1.
    """
    torch._foreach_lerp_(list(target), list(source), tau)


def linear_schedule(start: float, end: float, duration: int, step: int) -> float:
    """ε(step) from start to end along a line, and end from then on.

    start, end: ε at step 0 and at step duration; step: environment steps so far.
    Source: Mnih et al. 2015, Methods, Training details.
    """
    return start + (end - start) * min(step / max(duration, 1), 1)


def exponential_schedule(start: float, end: float, decay: float, step: int) -> float:
    """ε(step) = max(end, start decayˢᵗᵉᵖ).

    start: ε at step 0; end: its floor; decay: the factor in each step; step: environment steps so far.
    Source: note 003, per environment step.
    """
    return max(end, start * decay**step)


def td_target(reward: Tensor, terminated: Tensor, next_q_target: Tensor, gamma: float) -> Tensor:
    """y = r + γ (1 - d) maxₐ Q̄(s', a) [B]: after the end there is no value.

    reward, terminated: r, d [B]; next_q_target: Q̄(s', ·) [B, n_actions]; gamma: γ.
    Source: Mnih et al. 2015, Algorithm 1.
    """
    return reward + gamma * (1 - terminated) * next_q_target.amax(-1)


def q_loss(q: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """mean (Q(s, a) - y)² []. q: Q(s, ·) [B, n_actions]; action: a [B] int64; target: y [B].

    Source: Mnih et al. 2015, Algorithm 1.
    """
    return F.mse_loss(q.gather(-1, action.unsqueeze(-1)).squeeze(-1), target)


# ---- Networks ----
class QNetwork(nn.Module):
    """obs [B, *obs_shape] -> q [B, n_actions]; for frames, uint8 [4, 84, 84], the paper's network."""

    def __init__(self, obs_shape: tuple[int, ...], num_actions: int):
        super().__init__()
        self.has_frames = len(obs_shape) == 3
        sizes = [3136, 512, num_actions] if self.has_frames else [obs_shape[0], 120, 84, num_actions]
        if self.has_frames:
            convs = [nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()]
            self.convs = nn.Sequential(*convs, nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten())
        self.linears = nn.ModuleList(itertools.starmap(nn.Linear, itertools.pairwise(sizes)))
        self.weights = [(linear.weight, linear.bias) for linear in self.linears]

    def forward(self, obs: Tensor) -> Tensor:
        x = obs
        if self.has_frames:  # in this order of strides a third faster on the CPU
            x = self.convs((obs / 255).contiguous(memory_format=torch.channels_last))
        *hidden, last = self.weights
        for weight, bias in hidden:  # without calls of modules, which took a fifth of the time
            x = F.linear(x, weight, bias).relu_()
        return F.linear(x, *last)


# ---- Replay buffer ----
# float32: obs, next_obs [B, obs_dim], from frames uint8 [B, 4, 84, 84]; action [B, 1], reward, terminated [B]
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


class FrameBuffer:
    """The last `capacity` transitions between stacks of frames, each frame kept once, in uint8, on the training device.

    The frames of an episode lie in a row, from its whole first stack on. A transition is the place of its newest frame:
    obs is the stack that ends there, next_obs the one that ends at the next place, never in another episode. Where
    episodes are so short that their first stacks fill the tenth of spare frames, the oldest transitions go earlier.
    """

    saved_size = 1e9  # bytes: more frames than that are left out of a checkpoint, and gathered anew after a resume

    def __init__(self, obs_shape: tuple[int, ...], capacity: int, device: torch.device):
        self.stack, self.capacity, num_places = obs_shape[0], capacity, capacity + capacity // 10 + 2 * obs_shape[0]
        size, free = 1e-9 * num_places * math.prod(obs_shape[1:]), 1e-9 * free_memory(device)
        print(f"replay buffer: {capacity:,} transitions, {size:.2f} GB on {device}")
        if size > free:
            raise MemoryError(f"--buffer-size {capacity} takes {size:.2f} GB, but {free:.2f} GB are free: lower it")
        self.frames = torch.empty(num_places, *obs_shape[1:], dtype=torch.uint8, device=device)
        self.rows = torch.zeros(capacity, 3, device=device)  # action, reward, terminated
        self.places = np.zeros(capacity, np.int64)  # of the newest frame, counted over the run; the ring takes the rest
        self.places_on_device = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.window = torch.zeros(2, dtype=torch.int64, device=device)  # first transition and their number
        self.num_frames = self.num_added = self.first = 0
        self.last_obs = None

    def add_frame(self, frame: np.ndarray) -> None:
        place, frame = self.num_frames % len(self.frames), torch.from_numpy(np.ascontiguousarray(frame))
        self.frames[place].copy_(frame, non_blocking=True)  # returns once the frame has been read
        self.num_frames += 1

    def add(self, obs: np.ndarray, action: np.ndarray, reward: float, next_obs: np.ndarray, terminated: bool) -> None:
        """Stores over the oldest; next_obs is the true successor, also where an episode ends."""
        if self.last_obs is None or not np.array_equal(obs, self.last_obs):  # an episode starts
            for frame in obs:
                self.add_frame(frame)
        self.add_frame(next_obs[-1])
        self.last_obs = next_obs.copy()
        slot = self.num_added % self.capacity
        self.places[slot] = self.places_on_device[slot] = self.num_frames - 2
        self.rows[slot].copy_(torch.tensor([float(action), reward, terminated]), non_blocking=True)
        self.num_added += 1
        self.first = max(self.first, self.num_added - self.capacity)
        while self.places[self.first % self.capacity] - self.stack + 1 < self.num_frames - len(self.frames):
            self.first += 1
        self.window.copy_(torch.tensor([self.first, self.num_added - self.first]), non_blocking=True)

    def sample(self, batch_size: int) -> Batch:
        """Uniform over what is stored, with replacement; obs and next_obs are uint8 [B, stack, height, width]."""
        first, num_stored = self.window
        device = self.frames.device
        slot = (first + torch.randint(2**62, (batch_size,), device=device) % num_stored) % self.capacity
        around = torch.arange(1 - self.stack, 2, device=device)
        frames = self.frames[(self.places_on_device[slot, None] + around) % len(self.frames)]
        action, reward, terminated = self.rows[slot].split(1, dim=-1)
        return Batch(frames[:, :-1], action, reward.squeeze(-1), frames[:, 1:], terminated.squeeze(-1))

    def state_dict(self) -> dict:
        num_places = min(self.num_frames, len(self.frames))
        if num_places * self.frames[0].nbytes > self.saved_size:
            return {"rows": torch.zeros(0, 3)}
        num_rows = min(self.num_added, self.capacity)
        tensors = {"rows": self.rows[:num_rows], "frames": self.frames[:num_places]}
        tensors["places"] = torch.from_numpy(self.places[:num_rows])
        tensors = {name: torch.from_numpy(value.cpu().numpy()) for name, value in tensors.items()}
        return tensors | {"num_frames": self.num_frames, "num_added": self.num_added, "first": self.first}

    def load_state_dict(self, state: dict) -> None:
        if "frames" not in state:
            return
        self.rows[: len(state["rows"])] = state["rows"]
        self.frames[: len(state["frames"])] = state["frames"]
        self.places[: len(state["places"])] = state["places"].numpy()
        self.places_on_device[: len(state["places"])] = state["places"]
        self.num_frames, self.num_added, self.first = state["num_frames"], state["num_added"], state["first"]
        self.window.copy_(torch.tensor([self.first, self.num_added - self.first]))


def make_buffer(obs_shape: tuple[int, ...], capacity: int, device: torch.device) -> ReplayBuffer | FrameBuffer:
    if len(obs_shape) == 3:
        return FrameBuffer(obs_shape, capacity, device)
    return ReplayBuffer(obs_shape[0], 1, capacity, device)


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


def epsilon_at(step: int, args: Args) -> float:
    if args.epsilon_schedule == "linear":
        return linear_schedule(args.epsilon_start, args.epsilon_end, args.epsilon_duration, step)
    return exponential_schedule(args.epsilon_start, args.epsilon_end, args.epsilon_decay, step)


class Agent(nn.Module):
    """DQN's networks and optimizer for Boxes [obs_dim] or [4, 84, 84] and discrete actions; steps no environment."""

    def __init__(self, obs_space: gym.spaces.Box, action_space: gym.spaces.Discrete, args: Args):
        super().__init__()
        self.args, self.device = args, pick_device(args)
        self.action_space, self.epsilon = action_space, args.epsilon_start
        self.q_network = QNetwork(obs_space.shape, int(action_space.n))
        self.q_network_target = copy.deepcopy(self.q_network).requires_grad_(False)
        self.to(self.device)
        self.optimizer = Adam(self.q_network.parameters(), args.learning_rate)
        self.views = []  # NumPy's, of the parameters

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "views": []}  # a copy has parameters of its own

    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        """action [] for one obs [*obs_shape]: the greedy one, to explore a random one with probability epsilon."""
        if explore and self.action_space.np_random.random() < self.epsilon:
            return np.array(self.action_space.sample())
        if self.q_network.has_frames or self.device.type == "cuda":
            with torch.inference_mode():
                obs = torch.as_tensor(obs).to(self.device, non_blocking=True).float()
                return self.q_network(obs.unsqueeze(0)).argmax().cpu().numpy()
        # a small network on the CPU: PyTorch's calls take several times longer than the arithmetic, NumPy's do not
        self.views = self.views or [(w.detach().numpy(), b.detach().numpy()) for w, b in self.q_network.weights]
        *hidden, (weight, bias) = self.views
        x = obs.astype(np.float32, copy=False)
        for hidden_weight, hidden_bias in hidden:
            x = np.maximum(hidden_weight @ x + hidden_bias, 0)
        return np.array((weight @ x + bias).argmax())

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the Q-network; returns detached scalars. Its target moves by update_target."""
        obs, action, reward, next_obs, terminated = batch

        with torch.no_grad():
            target = td_target(reward, terminated, self.q_network_target(next_obs), self.args.gamma)
        q = self.q_network(obs)
        metrics = {"q_loss": q_loss(q, action.squeeze(-1).long(), target), "q": q.detach().amax(-1).mean()}
        self.optimizer.descend(metrics["q_loss"])
        return {name: value.detach() for name, value in metrics.items()}

    def update_target(self) -> None:
        """Due in every target_update_interval-th environment step."""
        polyak_update(self.q_network.parameters(), self.q_network_target.parameters(), self.args.tau)


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


class WholeGame(gym.Wrapper):
    """Goes on after a lost life, with what a reset does there, a press of FIRE say, until the game is over."""

    def step(self, action: int) -> tuple:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated and "episode" not in info:
            (obs, _), terminated = self.env.reset(), False
        return obs, reward, terminated, truncated, info


def make_env(env_id: str, render: bool = False, training: bool = False) -> gym.Env:
    """The environment with info["episode"] at an episode's end; Atari's with the preprocessing of Mnih et al., 2015.

    training: Atari's episodes end at each lost life and its rewards are clipped to their sign; info["episode"] has the
    raw score of a whole game either way, in the step in which it is over.
    """
    try:
        if env_id not in gym.registry:
            with contextlib.suppress(ImportError):
                import ale_py  # registers Atari's games

                ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of old environments
            env = gym.make(env_id, render_mode="rgb_array" if render else None, disable_env_checker=True)
        if "ale_py" not in str(env.spec.entry_point):
            env = gym.wrappers.RecordEpisodeStatistics(env)
        else:
            from stable_baselines3.common import atari_wrappers

            env = atari_wrappers.NoopResetEnv(env, noop_max=30)
            if env.spec.kwargs.get("frameskip") == 1:
                env = atari_wrappers.MaxAndSkipEnv(env, skip=4)
            env = gym.wrappers.RecordEpisodeStatistics(env)
            env = atari_wrappers.EpisodicLifeEnv(env)
            env = atari_wrappers.FireResetEnv(env) if "FIRE" in env.unwrapped.get_action_meanings() else env
            env = atari_wrappers.ClipRewardEnv(env) if training else WholeGame(env)
            env = gym.wrappers.ReshapeObservation(atari_wrappers.WarpFrame(env), (84, 84))
            env = gym.wrappers.FrameStackObservation(env, 4)
    except Exception as error:  # an environment's own code may raise anything
        raise UsageError(f"--env-id {env_id} cannot be made: {first_line(error)}") from error
    space = env.observation_space
    if not isinstance(space, gym.spaces.Box) or not (len(space.shape) == 1 or space.shape == (4, 84, 84)):
        raise UsageError(
            f"--env-id {env_id}: its observations must be a Box [n] or frames [4, 84, 84], but are {space}"
        )
    if not isinstance(env.action_space, gym.spaces.Discrete) or env.action_space.start != 0:
        raise UsageError(f"--env-id {env_id}: its action space must be Discrete, from 0, but is {env.action_space}")
    return env


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
    limits |= dict.fromkeys(["train_interval", "target_update_interval", "epsilon_duration"], (1, math.inf))
    limits |= dict.fromkeys(["epsilon_start", "epsilon_end", "epsilon_decay"], (0, 1))
    limits |= {"learning_rate": (1e-9, 1e9)}
    limits |= {"seed": (0, 2**32 - 1), "gamma": (0, 1), "tau": (1e-9, 1)}
    for name, (low, high) in limits.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"--{name.replace('_', '-')} {value} is outside of [{low}, {high}]")
    if args.batch_size > args.buffer_size:
        raise UsageError("--batch-size is larger than --buffer-size: lower it")
    if args.learning_starts >= args.total_timesteps:
        raise UsageError("--learning-starts must be below --total-timesteps, or nothing is learned")
    if args.log_interval % args.train_interval:
        raise UsageError("--log-interval must be a multiple of --train-interval, whose losses it logs")
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
    env = make_env(args.env_id, training=True)
    env.action_space.seed(args.seed)
    agent = Agent(env.observation_space, env.action_space, args)
    buffer = make_buffer(env.observation_space.shape, min(args.buffer_size, args.total_timesteps), agent.device)
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
            learning = buffer.num_added >= args.learning_starts
            agent.epsilon = epsilon_at(step, args)
            action = agent.act(obs, explore=True)
            # step the environment
            next_obs, reward, terminated, truncated, info = env.step(action)
            buffer.add(obs, action, reward, next_obs, terminated)
            obs = next_obs
            # learn
            if learning and step % args.target_update_interval == 0:
                agent.update_target()
            if learning and step % args.train_interval == 0:
                metrics = learn()
                if step % args.log_interval == 0:
                    check_finite(metrics.items(), step)
                    losses = zip(metrics, torch.stack([*metrics.values()]).tolist(), strict=True)
                    sps = (step - log_step) / (time.perf_counter() - log_time)
                    charts = {"charts/SPS": sps, "charts/epsilon": agent.epsilon}
                    logger.scalars({f"losses/{name}": loss for name, loss in losses} | charts, step)
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
                if episode := info.get("episode"):  # none at a lost life
                    log = {"charts/episodic_return": episode["r"], "charts/episodic_length": episode["l"]}
                    logger.scalars(log, step)
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
