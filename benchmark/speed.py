"""Environment steps per second of a script and of its peers, alternated on this machine with equal sizes.

    python benchmark/speed.py --threads 1 2                                 # ours and Stable-Baselines3
    python benchmark/speed.py --sbx-python PATH/TO/ENV/bin/python           # and SBX, from an environment with sbx-rl

Each measurement is a process of its own: Hopper-v5, one environment, batch 256, two hidden layers of 256, one update
of everything per environment step; the clock runs from step 1,000 to the end. Rounds alternate all contestants; the
ratio is taken in each round, and its median printed. Different on purpose: each library's own way of acting, storing
and logging is part of what is measured; evaluation, checkpoints and video are off everywhere.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
WARM_UP = 1_000  # steps before the clock starts; updates start at step 500, so that compilation is over

PEER = """
import sys, time
library, threads, total = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
import torch
torch.set_num_threads(threads)
import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
if library == "sbx":
    from sbx import SAC
else:
    from stable_baselines3 import SAC

class Clock(BaseCallback):
    def _on_step(self):
        if self.num_timesteps == WARM_UP:
            self.start = time.perf_counter()
        return True

clock = Clock()
model = SAC("MlpPolicy", gym.make("Hopper-v5"), batch_size=256, policy_kwargs={"net_arch": [256, 256]}, seed=0,
            learning_starts=500, train_freq=1, gradient_steps=1, buffer_size=total, device="cpu")
model.learn(total, callback=clock)
print("SPS", (total - WARM_UP) / (time.perf_counter() - clock.start))
""".replace("WARM_UP", str(WARM_UP))


def measure(contestant: str, threads: int, steps: int, sbx_python: str | None) -> float:
    """Environment steps per second of one process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        total = WARM_UP + steps
        if contestant.startswith("PlainRL"):
            command = [sys.executable, str(ROOT / "sac_continuous.py"), "--env-id", "Hopper-v5", "--out-dir", folder]
            command += ["--total-timesteps", str(total), "--learning-starts", "500", "--no-cuda"]
            command += ["--torch-threads", str(threads), "--log-interval", str(WARM_UP), "--eval-interval", "0"]
            command += ["--checkpoint-interval", "0"] + ["--compile"] * contestant.endswith("compiled")
        else:
            python = sbx_python if contestant == "SBX" else sys.executable
            command = [python, "-c", PEER, contestant.lower(), str(threads), str(total)]
            if contestant == "SBX" and hasattr(os, "sched_setaffinity"):  # XLA takes its threads from the cores it sees
                cores = sorted(os.sched_getaffinity(0))[:threads]
                command = ["taskset", "-c", ",".join(map(str, cores)), *command]
        result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"{contestant} failed:\n{result.stderr}")
        if contestant.startswith("PlainRL"):
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            events = EventAccumulator(str(next(Path(folder).iterdir())))
            events.Reload()
            logged = [event.value for event in events.Scalars("charts/SPS") if event.step > WARM_UP]
            return len(logged) / sum(1 / value for value in logged)  # equal numbers of steps: the harmonic mean
        return float(result.stdout.split("SPS")[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3_000, help="timed steps of each process")
    parser.add_argument("--compiled", action="store_true", help="also with --compile")
    parser.add_argument("--sbx-python", help="Python of an environment that has sbx-rl and gymnasium[mujoco]")
    parser.add_argument("--json", type=Path, help="also write all measurements here")
    options = parser.parse_args()
    contestants = ["PlainRL"] + ["PlainRL compiled"] * options.compiled + ["SB3"]
    contestants += ["SBX"] * bool(options.sbx_python)
    measured = {}
    for threads in options.threads:
        rounds = []
        for _ in range(options.rounds):
            rounds.append({c: measure(c, threads, options.steps, options.sbx_python) for c in contestants})
            print(threads, rounds[-1], file=sys.stderr, flush=True)
        measured[threads] = rounds
        print(f"\n{platform.processor() or platform.machine()}, {threads} thread(s), {len(rounds)} rounds")
        print("| | steps/s: median (min to max) | PlainRL / it, median of rounds |\n|---|---|---|")
        for contestant in contestants:
            values = [one[contestant] for one in rounds]
            ratio = statistics.median(one["PlainRL"] / one[contestant] for one in rounds)
            speed = f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"
            print(f"| {contestant} | {speed} | {ratio:.2f} |")
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
