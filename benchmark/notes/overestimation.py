"""How much a critic overestimates: Q(s, a) beside the discounted return that was measured from the same states.

    python benchmark/notes/overestimation.py          # draws benchmark/figures/overestimation-*.png
    python benchmark/notes/overestimation.py run 1    # trains all four with seed 1, in about half an hour

At each evaluation of a run, the greedy policy plays three episodes in an environment with the time limit moved away by
HORIZON steps, since a time limit is no end to a critic. From every tenth state before the old limit, the rewards that
followed are summed with γᵗ, to the true end or for at least HORIZON steps; Q is the critic's value of the same states
and the same actions (of TD3's two, the first). Both are averaged over the states. The training itself is the script's.
"""

import sys

import gymnasium as gym
import numpy as np
import torch
from common import FIGURES, band, main, read, train, write
from matplotlib import pyplot as plt

HORIZON = 500  # steps: γ = 0.99 leaves 0.7 % of what comes after
LUNAR = {"learning_rate": 5e-4, "buffer_size": 100_000, "learning_starts": 1_000, "train_interval": 4}
LUNAR |= {"epsilon_duration": 60_000, "epsilon_end": 0.02}
CASES = {  # script: environment, steps, arguments that differ from the defaults, seeds
    "ddpg": ("Hopper-v5", 50_000, {"learning_starts": 5_000}, (1, 2, 3)),
    "td3": ("Hopper-v5", 50_000, {"learning_starts": 5_000}, (1, 2, 3)),
    "dqn": ("LunarLander-v3", 200_000, LUNAR, (1, 2, 3, 4, 5)),
    "ddqn": ("LunarLander-v3", 200_000, LUNAR, (1, 2, 3, 4, 5)),
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


def run(seed: int) -> None:
    for script, (env_id, steps, arguments, seeds) in CASES.items():
        if seed not in seeds:
            continue
        rows = []

        def measure(play, script=script, env_id=env_id, rows=rows):
            def measure_and_play(agent, args, video, signals):
                q, followed = q_and_return(script, agent, env_id, args.gamma)
                step = (len(rows) // 2 + 1) * args.eval_interval
                rows.extend([(step, "q", q), (step, "return", followed)])
                return play(agent, args, video, signals)

            return measure_and_play

        task = {"env_id": env_id, "total_timesteps": steps, "eval_interval": 5_000, "eval_episodes": 3, **arguments}
        train(script, task, seed, [], {"play": measure})
        write("overestimation", script, seed, rows)


def draw() -> None:
    """Two figures: Q solid and what followed dashed."""
    for scripts in (("ddpg", "td3"), ("dqn", "ddqn")):
        env_id, *_, seeds = CASES[scripts[0]]
        figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
        for script, color in zip(scripts, ("tab:red", "tab:blue"), strict=True):
            band(axis, "overestimation", script, "q", color, f"{script}: Q(s, a)", seeds)
            band(axis, "overestimation", script, "return", color, f"{script}: measured", seeds, "--")
            q, followed = (read("overestimation", script, name, seeds)[1] for name in ("q", "return"))
            half = q.shape[1] // 2
            means = f"Q {q[:, half:].mean():.1f}, measured {followed[:, half:].mean():.1f}"
            print(f"{script} on {env_id}, second half: {means}")
            bias = (q - followed)[:, half:].mean(1)
            print(f"    Q - measured, seed by seed: {', '.join(f'{value:.1f}' for value in bias)}")
        title = f"{env_id}, {len(seeds)} seeds: mean, range"
        axis.set(xlabel="environment steps", ylabel="discounted return", title=title)
        axis.legend()
        figure.savefig(FIGURES / f"overestimation-{'-'.join(scripts)}.png", dpi=100)


if __name__ == "__main__":
    main(__doc__, run, draw)
