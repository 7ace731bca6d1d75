"""PPO with several heads: an action of several components, each with an entropy, a weight and a target of its own."""

import contextlib
import io
import math

import gymnasium as gym
import numpy as np
import odd_envs
import pytest
import test_runs
import torch
from test_failures import folder_of
from test_runs import assert_refused, assert_same_run, odd_flags, odd_run, scalars
from torch.distributions import Categorical

import ppo_discrete

main_of, nothing_odd = test_runs.main_of, test_runs.nothing_odd  # fixtures
OBS_SPACE, T = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32), torch.tensor
SIZES = [3, 2, 4]
HEADS = gym.spaces.MultiDiscrete(SIZES)
ODD_HEADS = "odd_envs:Odd/Heads-v0"  # of the same sizes


def make_agent(**arguments):
    torch.manual_seed(0)
    arguments = {"num_envs": 2, "num_steps": 16, "num_minibatches": 2, "cuda": False} | arguments
    agent = ppo_discrete.Agent(OBS_SPACE, HEADS, ppo_discrete.Args(**arguments))
    with torch.no_grad():
        agent.network.actor[-1].weight.mul_(100)  # away from the uniform policy
    return agent


def make_batch(agent, reward=0.0):
    generator = np.random.default_rng(1)
    obs, next_obs = generator.normal(size=(2, 16, 2, 3)).astype(np.float32)
    action = torch.as_tensor(np.stack([agent.act(each, explore=True) for each in obs]))
    end = torch.zeros(16, 2)
    end[-1] = 1
    reward = torch.full((16, 2), reward)
    return ppo_discrete.Batch(torch.as_tensor(obs), action, reward, torch.as_tensor(next_obs), end, end)


def distributions(agent, obs):
    """One of torch's for each head."""
    return [Categorical(logits=logits) for logits in agent.network(obs)[0].split(SIZES, -1)]


def test_equations_sum_over_heads():
    coef, entropy, target = T([0.1, 0.0, 1.0]), T([1.0, 5.0, 0.5]), T([0.5, 5.0, 1.5])
    assert ppo_discrete.total_loss(T(2.0), T(3.0), entropy, 0.5, coef).item() == pytest.approx(2.9)  # 2 + 1.5 - 0.6
    log_coef = T([-1.0, 2.0, 0.5], requires_grad=True)
    loss = ppo_discrete.ent_coef_loss(log_coef, entropy, target)
    assert loss.item() == pytest.approx(-1.0)  # -0.5 + 0 - 0.5
    loss.backward()
    assert log_coef.grad.tolist() == [0.5, 0.0, -1.0]  # falls, stays, rises


def test_log_probability_and_entropies_are_those_of_torch():
    agent, obs = make_agent(), torch.randn(50, 3)
    action = torch.stack([torch.randint(n, (50,)) for n in SIZES], -1)
    log_prob, entropy, value = agent.evaluate_actions(obs, action)
    heads = distributions(agent, obs)
    assert torch.allclose(log_prob, sum(head.log_prob(a) for head, a in zip(heads, action.T, strict=True)), atol=1e-6)
    assert torch.allclose(entropy, torch.stack([head.entropy() for head in heads], -1), atol=1e-6)
    assert (log_prob.shape, entropy.shape, value.shape) == ((50,), (50, 3), (50,))
    joint = torch.stack(  # of all 24 actions of the first obs
        [agent.evaluate_actions(obs[:1], T([[i, j, k]]))[0] for i in range(3) for j in range(2) for k in range(4)]
    )
    assert joint.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert -(joint.exp() * joint).sum().item() == pytest.approx(entropy[0].sum().item(), abs=1e-5)


def test_actions_are_drawn_from_each_head():
    agent, obs = make_agent(), np.array([0.3, -1.0, 0.5], np.float32)
    heads = distributions(agent, torch.from_numpy(obs)[None])
    drawn = agent.act(np.tile(obs, (20_000, 1)), explore=True)
    assert drawn.shape == (20_000, 3) and drawn.dtype == np.int64
    for k, head in enumerate(heads):
        shares = np.bincount(drawn[:, k], minlength=SIZES[k]) / len(drawn)
        assert np.allclose(shares, head.probs[0].detach(), atol=0.02)
    assert abs(np.corrcoef(drawn.T)[0, 2]) < 0.03, "each on its own"
    best = [head.probs.argmax().item() for head in heads]
    assert agent.act(obs[None], explore=False).tolist() == [best] and len({*best}) > 1


def test_weight_of_a_head_acts_on_that_head():
    """Without advantages only the bonus moves the policy, and heads of the first layers in common hardly differ."""
    agent = make_agent(ent_coef=(0.0, 1.0, 0.0), update_epochs=10, learning_rate=1e-3, vf_coef=0.0)
    batch = make_batch(agent)
    with torch.no_grad():  # nothing to gain: V = 0 everywhere, and the reward is 0
        agent.network.critic[-1].weight.zero_()
    before = [head.entropy().mean().item() for head in distributions(agent, batch.obs)]
    agent.update(batch)
    after = [head.entropy().mean().item() for head in distributions(agent, batch.obs)]
    gained = np.array(after) - before
    assert gained[1] > 0.01 and gained[1] > 5 * abs(gained[[0, 2]]).max()


def test_each_entropy_goes_to_its_own_target():
    shares = (0.2, 0.9, 0.6)
    args = {"ent_autotune": True, "ent_coef": 0.1, "ent_coef_lr": 0.02, "learning_rate": 3e-3, "vf_coef": 0.0}
    agent = make_agent(target_entropy=shares, **args)
    target = [share * math.log(n) for share, n in zip(shares, SIZES, strict=True)]
    assert agent.target_entropy.tolist() == pytest.approx(target)
    with torch.no_grad():
        agent.network.critic[-1].weight.zero_()
    history = []
    for _ in range(120):
        batch = make_batch(agent)
        reward = (batch.action == 0).float().sum(-1)  # each head has something to gain from certainty
        losses = agent.update(batch._replace(reward=reward, terminated=torch.ones(16, 2), done=torch.ones(16, 2)))
        history.append([losses[f"entropy_{k}"].item() for k in range(3)])
    assert np.mean(history[60:], 0) == pytest.approx(target, abs=0.13), "it swings around its target"
    assert losses["entropy"].item() == pytest.approx(sum(history[-1]), abs=1e-5)
    assert [losses[f"target_entropy_{k}"].item() for k in range(3)] == pytest.approx(target)
    assert {f"ent_coef_{k}" for k in range(3)} <= losses.keys() and "ent_coef" not in losses
    assert all(value.shape == () for value in losses.values())


def test_stages_and_schedules_have_one_value_or_one_for_each_head():
    agent = make_agent(ent_coef=(0.1, 0.2, 0.4), ent_coef_schedule="linear", ent_coef_end=0.0, ent_coef_duration=100)
    agent.anneal(50)
    assert agent.ent_coef.tolist() == pytest.approx([0.05, 0.1, 0.2])
    agent = make_agent(
        ent_coef=(0.1, 0.01, 0.001), ent_coef_schedule="exponential", ent_coef_end=0.001, ent_coef_duration=100
    )
    agent.anneal(50)
    assert agent.ent_coef.tolist() == pytest.approx([0.01, math.sqrt(1e-5), 0.001])
    moves = {"target_entropy_end": 0.1, "target_entropy_duration": 100}
    agent = make_agent(ent_autotune=True, target_entropy=(0.9, 0.5, 0.1), ent_coef=0.3, **moves)
    for step, shares in ((50, (0.5, 0.3, 0.1)), (100, (0.1, 0.1, 0.1))):
        agent.anneal(step)
        expected = [share * math.log(n) for share, n in zip(shares, SIZES, strict=True)]
        assert agent.target_entropy.tolist() == pytest.approx(expected)
    assert agent.log_ent_coef.exp().tolist() == pytest.approx([0.3] * 3)
    agent.set_target_entropy(0.5)
    assert agent.target_entropy.tolist() == pytest.approx([math.log(n) / 2 for n in SIZES])
    agent.set_target_entropy((0.1, 0.2, 0.3))
    agent.anneal(1000)
    expected = [share * math.log(n) for share, n in zip((0.1, 0.2, 0.3), SIZES, strict=True)]
    assert agent.target_entropy.tolist() == pytest.approx(expected)


def test_one_head_is_logged_by_its_name_alone(tmp_path):
    logged = scalars(odd_run("ppo_discrete", tmp_path / "runs", ent_autotune=True))
    assert {"losses/entropy", "losses/ent_coef", "losses/target_entropy"} <= logged.keys()
    assert [tag for tag in logged if tag[-1].isdigit()] == []


def test_space_of_one_component_gets_arrays_of_one_number(tmp_path):
    """MultiDiscrete([3]) is not Discrete(3): its actions have a dimension, in training and in evaluations."""

    class Single(odd_envs.Odd):
        seen: set = set()  # noqa: RUF012

        def step(self, action):
            assert self.action_space.contains(action), action
            self.seen.add(int(action[0]))
            return super().step(action)

    gym.registry.pop("Single-v0", None)
    space = gym.spaces.MultiDiscrete([3])
    gym.register("Single-v0", Single, disable_env_checker=True, kwargs={"action_space": space})
    logged = scalars(odd_run("ppo_discrete", tmp_path / "runs", env_id="Single-v0", eval_interval=100))
    assert {"losses/entropy", "eval/episodic_return"} <= logged.keys() and Single.seen == {0, 1, 2}


FLAGS = {"env_id": ODD_HEADS, "ent_autotune": True, "ent_coef": "0.1 0.2 0.3", "target_entropy": "0.2 0.9 0.6"}


def test_command_line_takes_one_value_for_each_head(main_of, tmp_path):
    outcome = main_of("ppo_discrete", odd_flags("ppo_discrete", **FLAGS))
    assert (outcome.status, outcome.err) == (0, "")
    logged = scalars(folder_of(tmp_path))
    for k, share in enumerate((0.2, 0.9, 0.6)):
        target = logged[f"losses/target_entropy_{k}"]
        assert list(target.values()) == pytest.approx([share * math.log(SIZES[k])] * len(target))
        assert min(logged[f"losses/ent_coef_{k}"].values()) == pytest.approx(0.1 * (k + 1), rel=0.05)
    outcome = main_of("ppo_discrete", f"--evaluate {folder_of(tmp_path)} --no-cuda")
    assert outcome.status == 0 and "mean ± std of 10 episodes" in outcome.out


@pytest.mark.parametrize("flags", ["--ent-coef 0.1 0.2", "--ent-autotune --target-entropy 0.1 0.2 0.3 0.4"])
def test_other_numbers_of_values_are_refused(main_of, tmp_path, flags):
    assert_refused(main_of("ppo_discrete", f"--env-id {ODD_HEADS} {flags}"), "one for each head", "3")
    assert_refused(main_of("ppo_discrete", f"--env-id CartPole-v1 {flags}"), "one for each head", "1")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flags", ["--ent-coef 0.1 -0.2 0.1", "--ent-autotune --target-entropy 0.1 0.2 1.5"])
def test_each_value_has_its_bounds(main_of, flags):
    assert_refused(main_of("ppo_discrete", f"--env-id {ODD_HEADS} {flags}"), "is outside of")


def test_resume_is_exact(main_of, tmp_path, monkeypatch):
    """Three heads, killed by a signal after a checkpoint and gone on with, beside a run that was left alone."""
    whole = odd_run("ppo_discrete", tmp_path / "whole", **FLAGS | {"ent_coef": (0.1, 0.2, 0.3)} | of_python())
    with contextlib.redirect_stdout(io.StringIO()):
        part = odd_run("ppo_discrete", tmp_path / "part", **FLAGS | {"ent_coef": (0.1, 0.2, 0.3)} | of_python(120))
    assert main_of("ppo_discrete", f"--resume {part} --total-timesteps 200").status == 0
    assert_same_run(whole, part)


def of_python(total_timesteps=200):
    return {"target_entropy": (0.2, 0.9, 0.6), "total_timesteps": total_timesteps}


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.MultiDiscrete([2, 3], start=[1, 0]),
        gym.spaces.MultiDiscrete([2, 3], start=[0, 1]),
        gym.spaces.MultiDiscrete([[2, 3], [4, 5]]),
    ],
)
def test_other_spaces_are_refused(main_of, space):
    gym.registry.pop("Refused-v0", None)
    gym.register("Refused-v0", odd_envs.Odd, disable_env_checker=True, kwargs={"action_space": space})
    assert_refused(main_of("ppo_discrete", "--env-id Refused-v0"), "MultiDiscrete of one dimension, from 0")
