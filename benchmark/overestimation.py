"""How much a critic overestimates: Q(s, a) beside the discounted return that was measured from the same states.

    python benchmark/overestimation.py              # draws benchmark/figures/overestimation-*.png from the CSV files
    python benchmark/overestimation.py run td3 1    # trains with seed 1 and writes its CSV file anew

At each evaluation of a run, the greedy policy plays three episodes in an environment with the time limit moved away by
HORIZON steps, since a time limit is no end to a critic. From every tenth state before the old limit, the rewards that
followed are summed with γᵗ, to the true end or for at least HORIZON steps; Q is the critic's value of the same states
and the same actions (of TD3's two, the first). Both are averaged over the states. The training itself is the script's.
"""

import argparse
import csv
import importlib
import sys
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

FOLDER = Path(__file__).parent
HORIZON = 500  # steps: γ = 0.99 leaves 0.7 % of what comes after
LUNAR = {"learning_rate": 5e-4, "buffer_size": 100_000, "learning_starts": 1_000, "train_interval": 4}
LUNAR |= {"epsilon_duration": 60_000, "epsilon_end": 0.02}
CASES = {  # script: environment, steps, arguments that differ from the defaults, seeds
    "ddpg": ("Hopper-v5", 50_000, {"learning_starts": 5_000}, 3),
    "td3": ("Hopper-v5", 50_000, {"learning_starts": 5_000}, 3),
    "dqn": ("LunarLander-v3", 200_000, LUNAR, 5),
    "ddqn": ("LunarLander-v3", 200_000, LUNAR, 5),
}


def q_and_return(script: str, agent: torch.nn.Module, env_id: str, gamma: float) -> tuple[float, float]:
    """Means over states of Q(s, a), a the greedy action, and of the discounted return that followed."""
    spec = gym.spec(env_id)
    limit, long_id = spec.max_episode_steps, f"Long{env_id}"
    if long_id not in gym.registry:
        gym.register(long_id, spec.entry_point, max_episode_steps=limit + HORIZON, kwargs=spec.kwargs)
    env = sys.modules[script].make_env(long_id)
    values, returns = [], []
    for episode in range(3):
        obs, _ = env.reset(seed=10_000 + episode)
        states, actions, rewards, done = [], [], [], False
        while not done:
            states.append(obs)
            actions.append(agent.act(obs, explore=False))
            obs, reward, terminated, truncated, _ = env.step(actions[-1])
            rewards.append(float(reward))
            done = terminated or truncated
        to_go = np.zeros(len(rewards) + 1)
        for t in reversed(range(len(rewards))):
            to_go[t] = rewards[t] + gamma * to_go[t + 1]
        chosen = range(0, min(len(rewards), limit), 10)
        states, actions = (
            torch.as_tensor(np.array([x[t] for t in chosen]), dtype=torch.float32, device=agent.device)
            for x in (states, actions)
        )
        with torch.no_grad():
            if script in ("dqn", "ddqn"):
                q = agent.q_network(states).gather(-1, actions.long().unsqueeze(-1))
            else:
                q = (agent.critics[0] if script == "td3" else agent.critic)(states, actions)
        values += q.flatten().tolist()
        returns += to_go[list(chosen)].tolist()
    env.close()
    return float(np.mean(values)), float(np.mean(returns))


def run(script: str, seed: int) -> None:
    sys.path.insert(0, str(FOLDER.parent))
    module = importlib.import_module(script)
    env_id, steps, arguments, _ = CASES[script]
    rows, evaluate = [], module.evaluate

    def evaluate_and_measure(agent, args, video=None):
        rows.append(
            (len(rows) * args.eval_interval + args.eval_interval, *q_and_return(script, agent, env_id, args.gamma))
        )
        return evaluate(agent, args, video)

    module.evaluate = evaluate_and_measure
    with tempfile.TemporaryDirectory() as folder:
        options = {"env_id": env_id, "seed": seed, "total_timesteps": steps, "eval_interval": 5_000, "eval_episodes": 3}
        module.train(module.Args(**options, **arguments, checkpoint_interval=0, out_dir=folder))
    path = FOLDER / "results" / "overestimation" / f"{script}__{env_id}__{seed}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("step", "q", "return"), *rows])


def draw(scripts: tuple[str, ...]) -> None:
    """One figure: Q solid and measured return dashed, means over the seeds with their smallest and largest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    env_id = CASES[scripts[0]][0]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for script, color in zip(scripts, ("tab:red", "tab:blue"), strict=True):
        paths = sorted((FOLDER / "results" / "overestimation").glob(f"{script}__{env_id}__*.csv"))
        if len(paths) != CASES[script][3]:
            sys.exit(f"{script}: {len(paths)} of {CASES[script][3]} seeds are there: run the others")
        runs = np.stack([np.loadtxt(path, delimiter=",", skiprows=1) for path in paths])
        step = runs[0, :, 0]
        for column, style, name in ((1, "-", "Q(s, a)"), (2, "--", "measured")):
            axes.plot(step, runs[:, :, column].mean(0), style, color=color, label=f"{script}: {name}")
            axes.fill_between(step, runs[:, :, column].min(0), runs[:, :, column].max(0), color=color, alpha=0.12)
        last = runs[:, len(step) // 2 :]
        bias = (last[:, :, 1] - last[:, :, 2]).mean(1)
        print(f"{script} on {env_id}, second half: Q {last[:, :, 1].mean():.1f}, measured {last[:, :, 2].mean():.1f}")
        print(f"    Q - measured, seed by seed: {', '.join(f'{value:.1f}' for value in bias)}")
    axes.set(xlabel="environment steps", ylabel="discounted return", title=f"{env_id}, {len(paths)} seeds: mean, range")
    axes.legend()
    path = FOLDER / "figures" / f"overestimation-{'-'.join(scripts)}.png"
    figure.savefig(path, dpi=120)
    print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["draw", "run"], default="draw")
    parser.add_argument("script", nargs="?", choices=CASES, default="td3")
    parser.add_argument("seed", nargs="?", type=int, default=1)
    options = parser.parse_args()
    if options.what == "run":
        run(options.script, options.seed)
    else:
        draw(("ddpg", "td3"))
        draw(("dqn", "ddqn"))
