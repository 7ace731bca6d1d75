"""Environment steps per second of a script and of its peers, alternated on this machine with equal sizes.

    python benchmark/speed.py                                # every case, with one thread and with all
    python benchmark/speed.py td3 dqn --threads 1            # two of them
    python benchmark/speed.py sac_continuous td3 --cuda      # on a GPU, and captured as a CUDA graph

"PlainRL" is a script with --no-compile, "PlainRL compiled" with --compile, whatever its default is, and "captured" adds
--cudagraphs. Each measurement is a process of its own; the clock runs from step 1,000 to the end, with updates from
step 500 on (PPO: from step 2,048), so that compilation is over. On a CPU each process is held to as many cores as it
has threads. Rounds alternate all contestants; the ratio is taken in each round, and its median printed.

Equal are environments, batches, networks (two hidden layers of 256; DQN: 120 and 84, from frames the Nature network;
PPO: 64), updates per step, the noise of actions and, in DQN, the share of random ones. Evaluation, checkpoints and
video are off everywhere. Not equal are each library's ways of acting, storing and logging, which are what is measured:
- ours alone writes TensorBoard's files and a line of progress; its PPO evaluates the value of each next observation,
  and with continuous actions scales observations and rewards;
- SB3's DQN clips gradients, and both peers' has the Huber loss; SBX's has 120 and 120 units;
- SBX's TD3 moves its targets in every step, and its actor climbs the smaller of both critics;
- neither peer has Double DQN: their DQN stands beside ours.

SBX takes part where sbx-rl is installed, on a GPU only if JAX finds it (pip install "jax[cuda12]"). With --save, all
rounds are written to benchmark/results/speed/<case>.json, which report.py reads; what was measured there on the same
machine with the same versions and code, with another number of threads, stays.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from grid import code_hash
from run import machine, num_cores, write_json

ROOT = Path(__file__).parent.parent
OFF_POLICY = {"ours": ["--learning-starts", "500"], "peer": "learning_starts=500, gradient_steps=1, "}
CONTINUOUS = {
    "env": "Hopper-v5",
    "ours": OFF_POLICY["ours"],
    "peer_env": 'gym.make("Hopper-v5")',
    "peer": OFF_POLICY["peer"]
    + 'policy="MlpPolicy", batch_size=256, policy_kwargs={"net_arch": [256, 256]}, train_freq=1',
}
NOISE = ", action_noise=NormalActionNoise(np.zeros(3), np.full(3, 0.1))"
DISCRETE = {
    "env": "CartPole-v1",
    "ours": [*OFF_POLICY["ours"], "--buffer-size", "10000"],
    "peer_env": 'gym.make("CartPole-v1", disable_env_checker=True)',
    "peer": OFF_POLICY["peer"]
    + 'policy="MlpPolicy", batch_size=128, policy_kwargs={"net_arch": [120, 84]}, train_freq=10, buffer_size=10_000, '
    "target_update_interval=500, exploration_fraction=0.1, exploration_final_eps=0.05",
}
ATARI = {
    "env": "PongNoFrameskip-v4",
    "ours": [*OFF_POLICY["ours"], "--buffer-size", "10000", "--batch-size", "32", "--train-interval", "4"],
    "peer_env": 'VecFrameStack(make_atari_env("ale_py:PongNoFrameskip-v4", env_kwargs=UNCHECKED), 4)',
    "peer": OFF_POLICY["peer"]
    + 'policy="CnnPolicy", batch_size=32, train_freq=4, buffer_size=10_000, target_update_interval=500, '
    "exploration_fraction=0.1, exploration_final_eps=0.05",
    "without": ["SBX"],  # its convolutions on the CPU made 9 steps/s in one round beside our 94, too slow for five
}
CASES = {  # the peers' name of the algorithm
    "sac_continuous": {"script": "sac_continuous", "name": "SAC", **CONTINUOUS},
    "td3": {"script": "td3", "name": "TD3", **CONTINUOUS, "peer": CONTINUOUS["peer"] + NOISE},
    "ddpg": {"script": "ddpg", "name": "DDPG", **CONTINUOUS, "peer": CONTINUOUS["peer"] + NOISE},
    "dqn": {"script": "dqn", "name": "DQN", **DISCRETE},
    "ddqn": {"script": "ddqn", "name": "DQN", **DISCRETE},
    "dqn-atari": {"script": "dqn", "name": "DQN", **ATARI},
    "ppo_continuous": {
        "script": "ppo_continuous",
        "name": "PPO",
        "env": "Hopper-v5",
        "ours": [],
        "peer_env": 'gym.make("Hopper-v5")',
        "peer": 'policy="MlpPolicy", n_steps=2048, batch_size=64, n_epochs=10',
    },
    "ppo_discrete": {
        "script": "ppo_discrete",
        "name": "PPO",
        "env": "CartPole-v1",
        "ours": [],
        "peer_env": 'make_vec_env("CartPole-v1", n_envs=4, env_kwargs=UNCHECKED)',
        "peer": 'policy="MlpPolicy", n_steps=128, batch_size=128, n_epochs=4',
    },
}

PEER = """
import sys, time
library, threads, total = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
import numpy as np
import torch
torch.set_num_threads(threads)
import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecFrameStack
UNCHECKED = {"disable_env_checker": True}
if library == "sbx":
    from sbx import NAME as Algorithm
else:
    from stable_baselines3 import NAME as Algorithm

class Clock(BaseCallback):
    start = None
    def _on_step(self):
        if self.start is None and self.num_timesteps > WARM_UP:
            self.start = time.perf_counter()
        return True

clock = Clock()
model = Algorithm(env=ENV, seed=0, device=sys.argv[4], PEER)
model.learn(total, callback=clock)
print("SPS", (total - WARM_UP) / (time.perf_counter() - clock.start))
"""


def has_sbx(cuda: bool) -> bool:
    if not cuda or importlib.util.find_spec("sbx") is None:
        return importlib.util.find_spec("sbx") is not None
    program = "import jax; assert jax.default_backend() == 'gpu'"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
    if not found:
        print("without SBX: JAX finds no GPU", file=sys.stderr)
    return found


def contestants(case: str, cuda: bool, sbx: bool) -> list[str]:
    ours = ["PlainRL", "PlainRL compiled"] + ["PlainRL captured", "PlainRL compiled, captured"] * cuda
    return [*ours, "SB3"] + ["SBX"] * (sbx and (cuda or "SBX" not in CASES[case].get("without", [])))


def measure(case: str, contestant: str, threads: int, steps: int, cuda: bool) -> float:
    """Environment steps per second of one process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    hold = None
    if not cuda:
        environment["JAX_PLATFORMS"] = "cpu"
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))[:threads]
            hold = lambda: os.sched_setaffinity(0, cores)  # noqa: E731
    setting, script = CASES[case], CASES[case]["script"]
    is_ppo = script.startswith("ppo")
    warm_up = 2_048 if is_ppo else 1_000  # steps before the clock starts
    total = warm_up + steps
    with tempfile.TemporaryDirectory() as folder:
        if contestant.startswith("PlainRL"):
            command = [sys.executable, str(ROOT / f"{script}.py"), "--env-id", setting["env"], "--out-dir", folder]
            command += ["--total-timesteps", str(total), "--cuda" if cuda else "--no-cuda", *setting["ours"]]
            command += ["--torch-threads", str(threads), "--log-interval", "512" if is_ppo else "1000"]
            command += ["--eval-interval", "0", "--checkpoint-interval", "0"]
            command += ["--compile" if "compiled" in contestant else "--no-compile"]
            command += ["--cudagraphs"] * ("captured" in contestant)
            command += ["--epsilon-duration", str(total // 10)] * script.endswith("dqn")
        else:
            program = PEER.replace("NAME", setting["name"]).replace("ENV", setting["peer_env"])
            program = program.replace("WARM_UP", str(warm_up)).replace("PEER", setting["peer"])
            command = [sys.executable, "-c", program, contestant.lower()]
            command += [str(threads), str(total), "cuda" if cuda else "cpu"]
        pipes = {"capture_output": True, "text": True}
        result = subprocess.run(command, env=environment, cwd=folder, preexec_fn=hold, **pipes)
        if result.returncode or "going on without --compile" in result.stdout:
            sys.exit(f"{contestant} failed:\n{result.stdout}{result.stderr}")
        if contestant.startswith("PlainRL"):
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            events = EventAccumulator(str(next(path for path in Path(folder).iterdir() if path.is_dir())))
            events.Reload()
            logged = [event for event in events.Scalars("charts/SPS") if event.step >= warm_up]
            first, last = logged[0], logged[-1]  # the time between them has our own logging in it
            return (last.step - first.step) / (last.wall_time - first.wall_time)
        return float(result.stdout.split("SPS")[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    help_of_cases = f"of {', '.join(CASES)}; default: all. dqn and ddqn play CartPole-v1, dqn-atari Pong"
    parser.add_argument("cases", nargs="*", metavar="case", help=help_of_cases)
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and all, on a GPU 1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="timed steps of each process: 1,000 times n, of PPO 2,048 times n")
    parser.add_argument("--cuda", action="store_true", help="on a GPU")
    parser.add_argument("--save", action="store_true", help="write benchmark/results/speed/<case>.json")
    options = parser.parse_args()
    options.threads = options.threads or ([1] if options.cuda else sorted({1, num_cores()}))
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    if options.cuda and not torch.cuda.is_available():
        parser.error("--cuda: PyTorch finds no GPU")
    sbx = has_sbx(options.cuda)
    for case in options.cases or CASES:
        peers = contestants(case, options.cuda, sbx)
        names = "torch", "gymnasium", "stable-baselines3", *["sbx-rl", "jax"] * ("SBX" in peers)
        about = {"machine": machine(), "versions": ", ".join(f"{name} {version(name)}" for name in names)}
        about |= {"device": "cuda" if options.cuda else "cpu"}
        about |= {"code": code_hash((ROOT / f"{CASES[case]['script']}.py").read_text("utf-8"))}
        unit = 2_048 if case.startswith("ppo") else 1_000
        units = {"dqn": 20, "ddqn": 20, "ppo_continuous": 10, "ppo_discrete": 40}.get(case, 20 if options.cuda else 2)
        steps = options.steps or unit * units
        if steps % unit:
            parser.error(f"--steps must be a multiple of {unit} for {case}")
        for threads in options.threads:
            rounds = []
            for _ in range(options.rounds):
                rounds.append({peer: measure(case, peer, threads, steps, options.cuda) for peer in peers})
                print(case, threads, rounds[-1], file=sys.stderr, flush=True)
            print(f"\n{case}: {about['machine']}, {threads} thread(s), {len(rounds)} rounds; {about['versions']}")
            print("| | steps/s: median (min to max) | PlainRL / it, median of rounds |\n|---|---|---|")
            for peer in rounds[0]:
                values = [one[peer] for one in rounds]
                ratio = statistics.median(one["PlainRL"] / one[peer] for one in rounds)
                speed = f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"
                print(f"| {peer} | {speed} | {ratio:.2f} |")
            if options.save:
                save(f"{case}{'-cuda' * options.cuda}", about, threads, rounds)


def save(name: str, about: dict, threads: int, rounds: list[dict]) -> None:
    """Beside the rounds of other numbers of threads, if they are of the same machine, versions and code."""
    path = ROOT / "benchmark" / "results" / "speed" / f"{name}.json"
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    kept = before["rounds"] if {name: before.get(name) for name in about} == about else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**about, "rounds": {**kept, str(threads): rounds}})


if __name__ == "__main__":
    main()
