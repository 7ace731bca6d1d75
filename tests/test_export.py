"""An agent outside of its training: exported, loaded, copied, in another process, made from inside a package."""

import copy
import functools
import importlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch

ROOT = Path(__file__).parent.parent
VECTORS = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
FRAMES = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
DISCRETE, BOX = gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,), np.float32)
HEADS = gym.spaces.MultiDiscrete([3, 2, 4])

# name: script, space of observations, space of actions, arguments
SCRIPTS = {name: (name, VECTORS, DISCRETE, {}) for name in ("dqn", "ddqn", "ppo_discrete")}
SCRIPTS |= {name: (name, VECTORS, BOX, {}) for name in ("ddpg", "td3", "sac_continuous", "ppo_continuous")}
CASES = SCRIPTS | {
    "dqn, frames": ("dqn", FRAMES, DISCRETE, {}),
    "ppo_discrete, frames": ("ppo_discrete", FRAMES, DISCRETE, {}),
    "ppo_discrete, heads": ("ppo_discrete", VECTORS, HEADS, {"ent_coef": (0.1, 0.2, 0.3)}),
    "ppo_continuous, head": ("ppo_continuous", VECTORS, BOX, {"std": "head"}),
}
every_script = pytest.mark.parametrize("name", SCRIPTS)
every_case = pytest.mark.parametrize("name", CASES)


def is_ppo(name):
    return name.startswith("ppo")


def make_obs(space, *shape, seed=0):
    """Random ones, frames of different brightness."""
    generator = torch.Generator().manual_seed(seed)
    if space is VECTORS:
        return torch.randn(*shape, 4, generator=generator) * 2 + 1
    brightness = torch.rand(*shape, 1, 1, 1, generator=generator)
    return (brightness * torch.randint(256, (*shape, 4, 84, 84), generator=generator)).byte()


def make_batch(name, seed):
    script, obs_space, action_space, _ = CASES[name]
    shape, generator = (8, 2) if is_ppo(name) else (16,), torch.Generator().manual_seed(seed)
    obs, next_obs = make_obs(obs_space, *shape, seed=seed), make_obs(obs_space, *shape, seed=seed + 1000)
    action = torch.rand(*shape, 2, generator=generator) * 2 - 1
    if action_space is DISCRETE:
        action = torch.randint(3, shape, generator=generator) if is_ppo(name) else (action[:, :1] > 0).float()
    if action_space is HEADS:
        action = torch.stack([torch.randint(n, shape, generator=generator) for n in HEADS.nvec], -1)
    reward, end = torch.randn(shape, generator=generator), (torch.rand(shape, generator=generator) < 0.2).float()
    end[-1] = 1  # PPO's scaler of rewards does not save the returns of episodes that go on
    done = [end] if is_ppo(name) else []
    return importlib.import_module(script).Batch(obs, action, reward, next_obs, end, *done)


def make_agent(name, seed=0, num_updates=3):
    """After some updates, so that normalisers, targets and moments are not as they were made."""
    script, *spaces, arguments = CASES[name]
    if is_ppo(name):
        arguments = arguments | {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "update_epochs": 2}
        arguments = {"ent_coef": 0.1, "ent_autotune": True} | arguments
    torch.manual_seed(seed)
    module = importlib.import_module(script)
    agent = module.Agent(*spaces, module.Args(cuda=False, **arguments))
    for i in range(num_updates):
        agent.update(make_batch(name, i))
    return agent


@functools.cache
def to_be_exported(name):
    """An agent, 16 observations, and its actions, which with discrete ones are not all the same."""
    agent, obs = make_agent(name), make_obs(CASES[name][1], 16, seed=5)
    if CASES[name][2] is not BOX:
        values, *last = (agent.network.policy, agent.network.actor) if is_ppo(name) else [agent.q_network] * 2
        last = [module for module in last[0].modules() if isinstance(module, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.bias -= values(obs).mean(0)  # each is sometimes the largest
    with torch.no_grad():
        action = agent(obs)
    assert action.shape == (16, *CASES[name][2].shape) and len(action.unique(dim=0)) > 1
    return agent, obs, action


def state_of(agent):
    return {key: value.clone() for key, value in agent.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


# ---- forward is the policy ----
@every_case
def test_forward_is_what_act_does_without_exploration(name):
    agent, obs, action = to_be_exported(name)
    acted = (
        agent.act(obs.numpy(), explore=False) if is_ppo(name) else [agent.act(x, explore=False) for x in obs.numpy()]
    )
    assert np.allclose(acted, action, atol=1e-6)
    assert np.asarray(acted).dtype == action.numpy().dtype


# ---- Exporters take an agent as it is ----
@pytest.fixture
def fast_onednn(name, monkeypatch):
    """As on a machine where oneDNN's layers are used, which exporters do not know."""
    module = importlib.import_module(CASES[name][0])
    if hasattr(module, "has_fast_onednn"):
        monkeypatch.setattr(module, "has_fast_onednn", True)


BATCH = {0: torch.export.Dim("batch", min=1)}


@every_case
@pytest.mark.usefixtures("fast_onednn")
@pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode", "ignore:.*LeafSpec")
def test_onnx_acts_as_the_agent_on_a_batch_of_any_size(name):
    agent, obs, action = to_be_exported(name)
    program = torch.onnx.export(agent, (obs[:2],), dynamo=True, dynamic_shapes=(BATCH,), verbose=False)
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    for size in (1, 2, 16):
        [found] = session.run(None, {session.get_inputs()[0].name: obs[:size].numpy()})
        assert found.dtype == action.numpy().dtype and np.allclose(found, action[:size], atol=1e-5)


@every_case
@pytest.mark.usefixtures("fast_onednn")
def test_exported_program_acts_as_the_agent_on_a_batch_of_any_size(name):
    agent, obs, action = to_be_exported(name)
    exported = torch.export.export(agent, (obs[:2],), dynamic_shapes=(BATCH,)).module()
    for size in (1, 2, 16):
        assert torch.allclose(exported(obs[:size]), action[:size], atol=1e-5)


@every_case
@pytest.mark.usefixtures("fast_onednn")
def test_trace_acts_as_the_agent_on_a_batch_of_any_size(name):
    agent, obs, action = to_be_exported(name)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(agent, obs[:2]), file)
    file.seek(0)
    traced = torch.jit.load(file)
    for size in (1, 2, 16):
        assert torch.allclose(traced(obs[:size]), action[:size], atol=1e-5)


# ---- Loaded, copied, shared: an agent stands alone ----
def learn_and_act(name, agent):
    """State after two more updates, and an action."""
    torch.manual_seed(7)
    for i in (50, 51):
        losses = agent.update(make_batch(name, i))
    obs = make_obs(VECTORS, 3).numpy()
    return (
        state_of(agent) | losses | {"action": torch.as_tensor(agent.act(obs if is_ppo(name) else obs[0], explore=True))}
    )


@pytest.mark.parametrize("assign", [False, True])
@every_script
def test_loaded_agent_learns_and_acts_as_the_one_it_comes_from(name, assign):
    agent, other = make_agent(name), make_agent(name, seed=9, num_updates=1)
    start, parameter = state_of(agent), next(other.parameters())
    other.load_state_dict(state_of(agent), assign=assign)
    assert (next(other.parameters()) is parameter) == (not assign)
    expected = learn_and_act(name, agent)
    assert_same(start, other.state_dict())
    assert_same(expected, learn_and_act(name, other))
    assert all(not torch.equal(start[key], expected[key]) for key, _ in agent.named_parameters() if "target" not in key)


@every_script
def test_copy_learns_and_acts_on_its_own(name):
    agent = make_agent(name)
    other, start = copy.deepcopy(agent), state_of(agent)
    found = learn_and_act(name, other)
    assert_same(start, agent.state_dict())
    assert_same(found, learn_and_act(name, agent))


@every_script
def test_shared_agent_learns_and_acts_as_before(name):
    agent = make_agent(name)
    shared = copy.deepcopy(agent).share_memory()
    assert all(tensor.is_shared() for tensor in [*shared.parameters(), *shared.buffers()])
    assert_same(learn_and_act(name, agent), learn_and_act(name, shared))
    assert all(tensor.is_shared() for tensor in [*shared.parameters(), *shared.buffers()])


# ---- In another process ----
def act_in_child(agents, connection):
    torch.set_num_threads(1)
    connection.send({name: act_with_seed(name, agent) for name, agent in agents.items()})


def act_with_seed(name, agent):
    """Two actions, the second with noise: lists, since an array of a process that has ended is not to be relied on."""
    obs = make_obs(VECTORS, 3).numpy() if is_ppo(name) else make_obs(VECTORS, 1)[0].numpy()
    torch.manual_seed(1)
    return [agent.act(obs, explore).tolist() for explore in (False, True)]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_agents_act_in_another_process_as_in_this_one(method):
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    agents = {name: make_agent(name) for name in SCRIPTS}
    expected = {name: act_with_seed(name, agent) for name, agent in agents.items()}
    context = torch.multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=act_in_child, args=(agents, theirs))
    process.start()
    theirs.close()  # so that recv ends if the process does
    assert ours.recv() == expected
    process.join()
    assert process.exitcode == 0


# ---- From inside a package ----
PROGRAM = """
import gymnasium as gym, numpy as np, torch
from mypkg import ddpg, ddqn, dqn, ppo_continuous, ppo_discrete, sac_continuous, td3
from mypkg.inner import sac_continuous as another

for module in (ddpg, ddqn, dqn, ppo_continuous, ppo_discrete, sac_continuous, td3, another):
    module.has_fast_onednn = True
    is_discrete = module in (ddqn, dqn, ppo_discrete)
    space = gym.spaces.Discrete(2) if is_discrete else gym.spaces.Box(-1, 1, (2,))
    agent = module.Agent(gym.spaces.Box(-1, 1, (3,)), space, module.Args(cuda=False))
    obs = np.ones((1, 3) if "ppo" in module.__name__ else 3, np.float32)
    before = agent.act(obs, explore=False)
    for optimizer in agent.children():
        if isinstance(optimizer, module.Adam):
            network = getattr(agent, optimizer.name)
            output = network if isinstance(network, torch.nn.Parameter) else sum(p.sum() for p in network.parameters())
            optimizer.minimize(output.sum())
            assert optimizer.num_steps == 1
    assert is_discrete or not np.array_equal(before, agent.act(obs, explore=False))
    print(module.__name__)
"""


def test_scripts_work_from_inside_a_package(tmp_path):
    """Copied into a package, without what lies beside them here, and one of them into two places."""
    inner = tmp_path / "mypkg" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "__init__.py").touch()
    for script in SCRIPTS:
        shutil.copy(ROOT / f"{script}.py", inner.parent)
    shutil.copy(ROOT / "sac_continuous.py", inner)
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    expected = {f"mypkg.{script}" for script in SCRIPTS} | {"mypkg.inner.sac_continuous"}
    assert set(result.stdout.splitlines()) == expected
