# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "numpy==2.4.6", "gymnasium[box2d,classic-control,mujoco]==1.4.0",
#     "tyro==1.0.17", "tqdm==4.70.1", "tensorboard==2.21.0", "wandb==0.31.0", "moviepy==2.2.1", "ale-py==0.12.1",
#     "stable-baselines3==2.9.2", "opencv-python-headless==5.0.0.93"]
# ///
# ======== Part 1: the algorithm ========
"""Deep Q-Network (DQN) for discrete actions, from vectors or from Atari's frames.

Paper      V. Mnih et al., "Human-level control through deep reinforcement learning", Nature 518, 2015
Run        python dqn.py --env-id CartPole-v1
Results    last 100 training episodes of 500,000 steps, mean ± standard deviation of 5 seeds: CartPole-v1 475.7 ± 39.5,
           Acrobot-v1 -90.9 ± 2.9; more, with curves and comparisons, in benchmark/README.md

Symbols    s, a, r, s'   obs [B, *obs_shape], action [B], reward [B], next_obs [B, *obs_shape]
           d             terminated [B]: 1 if s' is a true end of the task, 0 everywhere else, also at a time limit
           Q, Q̄          q_network, q_network_target; their values q [B, n_actions]
           ε             epsilon: the share of uniformly random actions
           y, γ, τ       target [B], gamma, tau; B is the size of a batch, a shape [] a scalar

Algorithm  in each environment step (the paper's Algorithm 1):
           ε from ε_start to ε_end                                                linear_schedule, exponential_schedule
           act a = argmaxₐ Q(s, a), at random with probability ε; store (s, a, r, s', d)      ReplayBuffer
           in every train_interval-th step, with a batch of what is stored:
           y = r + γ (1 - d) maxₐ Q̄(s', a)                                                    td_target
           minimise mean (Q(s, a) - y)²                                                       q_loss
           in every target_update_interval-th step of the whole run:
           Q̄ ← τ Q + (1 - τ) Q̄, with τ = 1 a copy                                             polyak_update

Differs    Adam in place of RMSProp, and the square of the error where the paper clips the error to [-1, 1]
from the   networks, step sizes and intervals are for classic control by default; README.md has arguments for Atari
paper      Atari: a time limit is no end of the task

The study notes that this collection follows leave out the mask, among other mistakes: NOTES.md
"""

import contextlib
import copy
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
from collections.abc import Callable, Iterable, Iterator
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
    gamma: float = 0.99  # γ, discount (paper, Extended Data Table 1)
    tau: float = 1.0  # τ, how far the target moves towards the network: 1 copies (paper)
    batch_size: int = 128  # transitions in a batch (CleanRL; paper: 32)
    buffer_size: int = 10_000  # transitions kept for sampling (CleanRL; paper: 1,000,000)
    learning_starts: int = 10_000  # steps before the first update (CleanRL; paper: 50,000)
    train_interval: int = 10  # environment steps from one update to the next (CleanRL; paper: 4)
    gradient_steps: int = 1  # updates each time (paper, Algorithm 1)
    learning_rate: float = 2.5e-4  # Adam step size (CleanRL)
    target_update_interval: int = 500  # steps between two moves of the target (CleanRL; paper: 10,000 updates)
    epsilon_start: float = 1.0  # ε at the first step (paper)
    epsilon_end: float = 0.05  # final ε (CleanRL; paper: 0.1)
    epsilon_schedule: Literal["linear", "exponential"] = "linear"  # how ε falls (paper: linear)
    epsilon_duration: int = 250_000  # linear: environment steps until epsilon_end (CleanRL)
    epsilon_decay: float = 0.99998  # exponential: factor in each step; with this one 150,000 steps until 0.05


# ---- Equations: tensors and floats in, tensors out ----
@torch.no_grad()
def polyak_update(source: Iterable[Tensor], target: Iterable[Tensor], tau: float) -> None:
    """Q̄ ← τ Q + (1 - τ) Q̄ in place; tau = 1 copies. Source: arXiv:1509.02971 (DDPG), Algorithm 1."""
    for q, q_target in zip(source, target, strict=True):
        q_target.lerp_(q, tau)


def linear_schedule(start: float, end: float, duration: int, step: int) -> float:
    """Linear from start to end over `duration` steps, then constant. Source: Mnih et al. 2015, Methods."""
    return start + (end - start) * min(step / max(duration, 1), 1)


def exponential_schedule(start: float, end: float, decay: float, step: int) -> float:
    """max(end, start decayˢᵗᵉᵖ). Source: the study notes."""
    return max(end, start * decay**step)


def td_target(reward: Tensor, terminated: Tensor, next_q_target: Tensor, gamma: float) -> Tensor:
    """y = r + γ (1 - d) maxₐ Q̄(s', a): after the end there is no value.

    Source: Mnih et al. 2015, Algorithm 1.
    """
    return reward + gamma * (1 - terminated) * next_q_target.amax(-1)


def q_loss(q: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """mean (Q(s, a) - y)² [], with q [B, n_actions] and action [B] int64. Source: Mnih et al. 2015, Algorithm 1."""
    return F.mse_loss(q.gather(-1, action.unsqueeze(-1)).squeeze(-1), target)


# ---- Networks ----
class QNetwork(nn.Module):
    """obs [B, *obs_shape] -> q [B, n_actions]."""

    def __init__(self, obs_shape: tuple[int, ...], num_actions: int):
        super().__init__()
        if len(obs_shape) == 3:  # Atari's frames
            self.net = nn.Sequential(NatureCNN(), nn.Linear(512, num_actions))
        else:  # CleanRL's sizes
            hidden = [nn.Linear(obs_shape[0], 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
            self.net = nn.Sequential(*hidden, nn.Linear(84, num_actions))

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs)


# ---- Replay buffer ----
Batch = namedtuple("Batch", "obs action reward next_obs terminated")  # tensors [B, ...]


class ReplayBuffer:
    """The last `capacity` transitions on the training device, each a row of float32: it gets there in one copy."""

    def __init__(self, obs_dim: int, action_dim: int, capacity: int, device: torch.device):
        self.widths = [obs_dim, action_dim, 1, obs_dim, 1]  # of the parts of a row, in the order of Batch
        check_memory(capacity, 4 * capacity * sum(self.widths), device)  # a float32 has 4 bytes
        self.rows = torch.empty(capacity, sum(self.widths), device=device)
        self.num_added = 0

    def add(self, obs: np.ndarray, action: np.ndarray, reward: float, next_obs: np.ndarray, terminated: bool) -> None:
        """Stores over the oldest; next_obs is the true successor, also where an episode ends."""
        row = np.hstack([obs, action, reward, next_obs, terminated], dtype=np.float32)
        self.rows[self.num_added % len(self.rows)] = torch.from_numpy(row)
        self.num_added += 1

    def sample(self, batch_size: int) -> Batch:
        """Uniform over what is stored, with replacement."""
        num_stored = min(self.num_added, len(self.rows))
        index = torch.randint(num_stored, (batch_size,), device=self.rows.device)
        obs, action, reward, next_obs, terminated = self.rows.index_select(0, index).split(self.widths, dim=-1)
        return Batch(obs, action, reward.squeeze(-1), next_obs, terminated.squeeze(-1))

    def state_dict(self) -> dict:
        stored = self.rows[: self.num_added].cpu().numpy()  # torch.save would write all of a PyTorch slice's storage
        return {"rows": torch.from_numpy(stored), "num_added": self.num_added}

    def load_state_dict(self, state: dict) -> None:
        self.rows[: len(state["rows"])] = state["rows"]
        self.num_added = state["num_added"]


# ---- Agent ----
class Agent(nn.Module):
    """DQN's networks and optimizer, for Box observations [obs_dim] or [4, 84, 84] and discrete actions."""

    def __init__(self, obs_space: gym.spaces.Box, action_space: gym.spaces.Discrete, args: Args):
        super().__init__()
        self.args, self.device = args, pick_device(args)
        self.num_actions, self.epsilon = int(action_space.n), args.epsilon_start
        self.q_network = QNetwork(obs_space.shape, self.num_actions)
        self.q_network_target = copy.deepcopy(self.q_network).requires_grad_(False)
        self.to(self.device)
        self.optimizer = Adam(self, "q_network", args.learning_rate)

    def forward(self, obs: Tensor) -> Tensor:
        """The greedy policy argmaxₐ Q(s, a) [B]."""
        return self.q_network(obs).argmax(-1)

    @torch.inference_mode()
    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        """action [] for one obs [*obs_shape]: the greedy one, to explore a random one with probability epsilon."""
        if explore and torch.rand(()) < self.epsilon:
            return torch.randint(self.num_actions, ()).numpy()
        obs = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        return self(obs.unsqueeze(0))[0].cpu().numpy()

    def anneal(self, step: int) -> None:
        """Sets ε for environment step `step`."""
        args = self.args
        if args.epsilon_schedule == "linear":
            self.epsilon = linear_schedule(args.epsilon_start, args.epsilon_end, args.epsilon_duration, step)
        else:
            self.epsilon = exponential_schedule(args.epsilon_start, args.epsilon_end, args.epsilon_decay, step)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the Q-network; returns detached scalars. Its target moves by update_target."""
        obs, action, reward, next_obs, terminated = batch

        with torch.no_grad():
            target = td_target(reward, terminated, self.q_network_target(next_obs), self.args.gamma)
        q = self.q_network(obs)
        losses = {"q_loss": q_loss(q, action.squeeze(-1).long(), target), "q": q.amax(-1).mean()}
        self.optimizer.minimize(losses["q_loss"])
        return {name: value.detach() for name, value in losses.items()}

    def update_target(self) -> None:
        """Due in every target_update_interval-th environment step."""
        polyak_update(self.q_network.parameters(), self.q_network_target.parameters(), self.args.tau)


# ---- Training ----
def train(args: Args) -> Agent:
    """The paper's Algorithm 1; returns the trained agent."""
    with Run(args) as run:  # folder, logs, progress bar, checkpoints, signals: part 2
        args = run.args  # with --resume those of the run
        agent = Agent(run.env.observation_space, run.env.action_space, args)
        capacity = min(args.buffer_size, args.total_timesteps)
        buffer = make_buffer(run.env.observation_space, capacity, agent.device)
        update = speed_up(agent.update, args)
        obs = run.start(agent, buffer)
        for step in run.steps():
            # act
            learning = buffer.num_added >= args.learning_starts
            agent.anneal(step)
            action = agent.act(obs, explore=True)
            # step the environment
            next_obs, reward, terminated, truncated, info = run.step_env(action)
            buffer.add(obs, action, reward, next_obs, terminated)
            obs = next_obs
            # learn
            if learning and step % args.train_interval == 0:
                for _ in range(args.gradient_steps):
                    losses = update(buffer.sample(args.batch_size))
                run.log_losses(losses, epsilon=agent.epsilon)
            if learning and step % args.target_update_interval == 0:
                agent.update_target()
            # evaluate
            run.evaluate_if_due()
            if terminated or truncated:
                obs = run.next_episode(info)  # saves a checkpoint if one is due
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


class FrameBuffer:
    """The last `capacity` transitions between stacks of frames, each frame kept once, in uint8, on the training device.

    The frames of an episode lie in a row, from its whole first stack on. obs is the stack that ends with a certain
    frame, next_obs the one that ends with the next, never in another episode. Where episodes are so short that their
    first stacks fill the tenth of spare frames, the oldest transitions go earlier.
    """

    saved_size = 1e9  # bytes: more frames than that are left out of a checkpoint, and gathered anew after a resume

    def __init__(self, obs_shape: tuple[int, ...], capacity: int, device: torch.device):
        self.stack, self.capacity, num_kept = obs_shape[0], capacity, capacity + capacity // 10 + 2 * obs_shape[0]
        check_memory(capacity, num_kept * math.prod(obs_shape[1:]), device)
        self.frames = torch.empty(num_kept, *obs_shape[1:], dtype=torch.uint8, device=device)
        self.rows = torch.zeros(capacity, 3, device=device)  # action, reward, terminated
        self.newest = torch.zeros(capacity, dtype=torch.int64, device=device)  # number of the last frame of obs
        self.stored = deque()  # the same of the transitions that can be sampled
        self.num_frames = self.num_added = 0  # a frame's place is its number modulo len(frames)
        self.last_obs = None

    def add_frame(self, frame: np.ndarray) -> None:
        self.frames[self.num_frames % len(self.frames)] = torch.from_numpy(np.ascontiguousarray(frame))
        self.num_frames += 1

    def add(self, obs: np.ndarray, action: int, reward: float, next_obs: np.ndarray, terminated: bool) -> None:
        """Stores over the oldest; next_obs is the true successor, also where an episode ends."""
        if self.last_obs is None or not np.array_equal(obs, self.last_obs):  # an episode starts
            for frame in obs:
                self.add_frame(frame)
        if not np.array_equal(next_obs[:-1], obs[1:]):
            raise UsageError("an obs [4, 84, 84] must be the last four frames, which are kept once; this one is not")
        slot, self.last_obs = self.num_added % self.capacity, next_obs
        self.newest[slot] = self.num_frames - 1
        self.stored.append(self.num_frames - 1)
        self.rows[slot] = torch.tensor([float(action), reward, terminated])
        self.add_frame(next_obs[-1])
        self.num_added += 1
        while len(self.stored) > self.capacity or self.stored[0] - self.stack < self.num_frames - len(self.frames) - 1:
            self.stored.popleft()

    def sample(self, batch_size: int) -> Batch:
        """Uniform over what is stored, with replacement; obs and next_obs are uint8 [B, stack, height, width]."""
        device = self.frames.device
        slot = (self.num_added - 1 - torch.randint(len(self.stored), (batch_size,), device=device)) % self.capacity
        numbers = self.newest[slot, None] + torch.arange(1 - self.stack, 2, device=device)
        frames = self.frames[numbers % len(self.frames)]
        action, reward, terminated = self.rows[slot].split(1, dim=-1)
        return Batch(frames[:, :-1], action, reward.squeeze(-1), frames[:, 1:], terminated.squeeze(-1))

    def state_dict(self) -> dict:
        self.last_obs = None  # after a checkpoint an episode begins
        counts = {"num_frames": self.num_frames, "num_added": self.num_added, "num_stored": len(self.stored)}
        tensors = {"frames": self.frames[: self.num_frames]}
        if tensors["frames"].nbytes > self.saved_size:
            return {}
        tensors |= {"rows": self.rows[: self.num_added], "newest": self.newest[: self.num_added]}
        return counts | {name: torch.from_numpy(value.cpu().numpy()) for name, value in tensors.items()}

    def load_state_dict(self, state: dict) -> None:
        if state:
            frames = state["frames"]
            self.rows[: len(state["rows"])], self.newest[: len(state["newest"])] = state["rows"], state["newest"]
            self.num_frames, self.num_added = state["num_frames"], state["num_added"]
            numbers = torch.arange(self.num_frames - len(frames), self.num_frames)  # a longer run has more places
            self.frames[numbers % len(self.frames)] = frames[numbers % len(frames)].to(self.frames.device)
            numbers = range(self.num_added - state["num_stored"], self.num_added)
            self.stored = deque(int(state["newest"][number % self.capacity]) for number in numbers)


def make_buffer(obs_space: gym.spaces.Box, capacity: int, device: torch.device) -> ReplayBuffer | FrameBuffer:
    if len(obs_space.shape) == 3:
        return FrameBuffer(obs_space.shape, capacity, device)
    return ReplayBuffer(obs_space.shape[0], 1, capacity, device)


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
    except Exception as error:  # an environment's own code may raise anything
        hint = "; put its folder on PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
        raise UsageError(f"--env-id {env_id} cannot be made: {first_line(error)}{hint}") from error
    space = env.observation_space
    is_stack = space.shape == (4, 84, 84) and space.dtype == np.uint8
    if not isinstance(space, gym.spaces.Box) or not (len(space.shape) == 1 or is_stack):
        what = "a Box of one dimension (gymnasium's FlattenObservation makes one of a Dict) or Atari's frames"
        raise UsageError(f"--env-id {env_id}: its observations must be {what}, but are {space}")
    if not isinstance(env.action_space, gym.spaces.Discrete) or env.action_space.start != 0:
        raise UsageError(f"--env-id {env_id}: actions must be Discrete, from 0 (Box: td3.py), not {env.action_space}")
    return gym.wrappers.TransformAction(env, int, env.action_space)  # environments index with it


def make_training_env(args: Args) -> gym.Env:
    return make_env(args.env_id, training=True)


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
            obs, _, terminated, truncated, info = env.step(agent.act(np.array(obs), explore=False))  # as in training
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
        "batch_size buffer_size learning_starts train_interval gradient_steps": (1, math.inf),
        "tau": (1e-9, 1),
        "learning_rate": (1e-9, 1e9),
        "target_update_interval epsilon_duration": (1, math.inf),
        "epsilon_start epsilon_end epsilon_decay": (0, 1),
    }
    for name, (low, high) in ((name, ranges[names]) for names in ranges for name in names.split()):
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"--{name.replace('_', '-')} {value} is outside of [{low}, {high}]")
    if args.learning_starts >= args.total_timesteps:
        raise UsageError("--learning-starts must be below --total-timesteps, or nothing is learned")
    if args.log_interval % args.train_interval:
        raise UsageError("--log-interval must be a multiple of --train-interval, whose losses it logs")
    if args.epsilon_schedule == "linear" and args.epsilon_duration > args.total_timesteps and args.evaluate is None:
        say(f"epsilon falls until step {args.epsilon_duration:,}, after the end of the run: see --epsilon-duration")
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


# ---- Run ----
def free_memory() -> float:
    """Bytes that the machine and every container around this process (cgroups) have left; inf where none says so."""
    meminfo, cgroups = Path("/proc/meminfo"), Path("/proc/self/cgroup")
    if not (meminfo.exists() and cgroups.exists()):  # not on Linux
        return math.inf
    free = 1024.0 * int(re.search(r"MemAvailable:\s*(\d+)", meminfo.read_text())[1])
    for line in cgroups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)  # no controllers: version 2
        group = Path("/sys/fs/cgroup", controllers, path[1:])
        for folder in (group, *group.parents):
            for limit in (folder / "memory.max", folder / "memory.limit_in_bytes"):
                with contextlib.suppress(OSError):  # not of this version, or hidden in this container
                    used = re.search(r"^(?:anon|total_rss) (\d+)", (folder / "memory.stat").read_text(), re.M)[1]
                    free = min(free, float(limit.read_text().replace("max", "inf")) - int(used))
    return free


def check_memory(capacity: int, size: float, device: torch.device) -> None:
    """Says how large the replay buffer is; MemoryError if `size`, in bytes, does not fit."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    size, free = 1e-9 * size, 1e-9 * free - 1  # 1 GB for networks, gradients and the compiler
    say(f"replay buffer: {capacity:,} transitions, {size:.2f} GB on {device}")
    if size > free:
        raise MemoryError(f"--buffer-size {capacity} takes {size:.2f} GB, but {free:.2f} GB are free: lower it")


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
            if longer.total_timesteps < of_run.total_timesteps:
                raise UsageError("--total-timesteps can only make a run longer")
            args = replace(longer, cudagraphs=longer.cudagraphs and pick_device(longer).type == "cuda")
        check_args(args)
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
        """The numbers of the environment steps to come; ends with SystemExit after a signal."""
        if self.owes_evaluation:
            self.evaluate()
        while not self.signals and self.completed < self.args.total_timesteps:
            yield self.completed + 1
            self.bar.update(self.step - self.completed)
            self.completed = self.step
            if not self.on_terminal and time.perf_counter() - self.line_time > 60:  # seconds
                say(str(self.bar))
                self.line_time = time.perf_counter()
        if self.signals:
            raise SystemExit(128 + self.signals[0])

    def step_env(self, action: np.ndarray) -> tuple:
        """env.step with a copy of obs, as in reset."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.step += 1
        self.check_env("obs", np.isfinite(obs).all())
        self.check_env("reward", math.isfinite(reward))
        return np.array(obs), float(reward), terminated, truncated, info

    def next_episode(self, info: dict) -> np.ndarray:
        """Logs the episode that has ended, saves a checkpoint if one is due, and returns the first obs of the next."""
        if "episode" in info:  # none at a lost life of Atari's
            self.log_episode(info["episode"]["r"], info["episode"]["l"])
        if self.is_checkpoint_due():
            self.save(self.step)
            return self.restart()
        return self.reset()

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
