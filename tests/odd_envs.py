"""Environments in which something happens at a certain step: odd_envs:Odd/Box-v0, /Discrete-v0, /Heads-v0, /Frames-v0.

The variable ODD says what and when, counted over all environments of the process: ODD="raise 130".
  raise    the step raises
  reset    the next reset raises
  reward   from this step on rewards are nan
  obs      from this step on observations are nan
  hang     the step never ends
  SIGTERM  the process gets a signal, this one or another
ODD_LENGTH is the number of steps of an episode, 20 if it is not there; 0: episodes never end.
"""

import os
import signal
import time

import gymnasium as gym
import numpy as np

num_steps = 0  # of all environments of this process


class Odd(gym.Env):
    """obs = [time, a random number]; reward: a random number."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, action_space: gym.Space, render_mode: str | None = None):
        self.action_space, self.time = action_space, 0
        self.length = int(os.environ.get("ODD_LENGTH", 20))
        self.event, _, when = os.environ.get("ODD", "").partition(" ")
        self.when = int(when or 10**9)

    def obs(self) -> np.ndarray:
        nan = self.event == "obs" and num_steps >= self.when
        return np.array([0.1 * self.time, np.nan if nan else self.np_random.normal()], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.event == "reset" and num_steps >= self.when:
            raise RuntimeError("the simulator\nhas crashed")
        self.time = 0
        return self.obs(), {}

    def step(self, action):
        global num_steps
        num_steps += 1
        self.time += 1
        assert num_steps < 20_000, "a run that should have ended went on"
        if num_steps == self.when:
            if self.event == "raise":
                raise RuntimeError("the simulator\nhas crashed")
            if self.event == "hang":
                print("hanging", flush=True)
                time.sleep(600)
            if self.event.startswith("SIG"):
                os.kill(os.getpid(), signal.Signals[self.event])
        nan = self.event == "reward" and num_steps >= self.when
        return self.obs(), np.nan if nan else self.np_random.normal(), False, self.time == self.length, {}


class Frames(Odd):
    """Observations are stacks of four frames of random pixels."""

    observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)

    def obs(self) -> np.ndarray:
        self.frames = getattr(self, "frames", [])[-3:] if self.time else []
        while len(self.frames) < 4:
            self.frames.append(self.np_random.integers(256, size=(84, 84), dtype=np.uint8))
        return np.stack(self.frames)


for name, kind, action_space in (
    ("Box", Odd, gym.spaces.Box(-1, 1, (1,), np.float32)),
    ("Discrete", Odd, gym.spaces.Discrete(2)),
    ("Heads", Odd, gym.spaces.MultiDiscrete([3, 2, 4])),
    ("Frames", Frames, gym.spaces.Discrete(2)),
    ("Unbounded", Odd, gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)),
):
    gym.register(f"Odd/{name}-v0", kind, disable_env_checker=True, kwargs={"action_space": action_space})
