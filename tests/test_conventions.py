"""The form of every script: two parts, their size and order, names, purity, and what is shared to the byte."""

import ast
import collections
import dataclasses
import difflib
import functools
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [
    name
    for name in ["dqn", "ddqn", "ddpg", "td3", "sac_continuous", "ppo_continuous", "ppo_discrete"]
    if (ROOT / f"{name}.py").exists()
]

RUN_ARGS = [
    "env_id",
    "seed",
    "total_timesteps",
    "cuda",
    "torch_threads",
    "compile",
    "cudagraphs",
    "track",
    "wandb_project",
    "wandb_entity",
    "capture_video",
    "log_interval",
    "eval_interval",
    "eval_episodes",
    "checkpoint_interval",
    "resume",
    "evaluate",
    "out_dir",
]
OFF_POLICY_ARGS = ["gamma", "tau", "batch_size", "buffer_size", "learning_starts", "train_interval", "gradient_steps"]
DQN_ARGS = [
    "learning_rate",
    "target_update_interval",
    "epsilon_start",
    "epsilon_end",
    "epsilon_schedule",
    "epsilon_duration",
    "epsilon_decay",
]
PPO_ARGS = [
    "num_envs",
    "num_steps",
    "num_minibatches",
    "update_epochs",
    "learning_rate",
    "anneal_lr",
    "gamma",
    "gae_lambda",
    "clip_coef",
    "vf_coef",
    "max_grad_norm",
    "target_kl",
    "norm_adv",
    "ent_coef",
    "ent_coef_schedule",
    "ent_coef_end",
    "ent_coef_duration",
    "ent_autotune",
    "ent_coef_lr",
    "target_entropy",
    "target_entropy_end",
    "target_entropy_duration",
]
ALGORITHM_ARGS = {
    "ppo_discrete": PPO_ARGS,
    "ppo_continuous": [*PPO_ARGS, "std", "norm_obs", "norm_reward"],
    "dqn": DQN_ARGS,
    "ddqn": DQN_ARGS,
    "ddpg": ["actor_lr", "critic_lr", "exploration_noise", "noise_process"],
    "td3": [
        "actor_lr",
        "critic_lr",
        "exploration_noise",
        "target_noise",
        "noise_clip",
        "policy_delay",
        "actor_objective",
    ],
    "sac_continuous": [
        "actor_lr",
        "critic_lr",
        "alpha_lr",
        "autotune",
        "alpha",
        "target_entropy",
        "target_entropy_end",
        "target_entropy_duration",
    ],
}
SCHEDULES = {"linear_schedule": "start end duration step", "exponential_schedule": "start end decay step"}
PPO_EQUATIONS = {
    "gae": "reward value next_value terminated done gamma gae_lambda",
    "policy_loss": "log_prob old_log_prob advantage clip_coef",
    "value_loss": "value target",
    "total_loss": "policy_loss value_loss entropy vf_coef ent_coef",
    "ent_coef_loss": "log_ent_coef entropy target_entropy",
}
LINEAR = {"linear_schedule": "start end duration step"}
EQUATIONS = {
    "ppo_discrete": LINEAR | {"categorical": "logits action"} | PPO_EQUATIONS,
    "ppo_continuous": LINEAR | {"gaussian": "mean log_std action"} | PPO_EQUATIONS,
    "dqn": {
        "polyak_update": "source target tau",
        **SCHEDULES,
        "td_target": "reward terminated next_q_target gamma",
        "q_loss": "q action target",
    },
    "ddqn": {
        "polyak_update": "source target tau",
        **SCHEDULES,
        "td_target": "reward terminated next_q next_q_target gamma",
        "q_loss": "q action target",
    },
    "ddpg": {
        "polyak_update": "source target tau",
        "td_target": "reward terminated next_q gamma",
        "critic_loss": "q target",
        "actor_loss": "q",
    },
    "td3": {
        "polyak_update": "source target tau",
        "smooth_target_action": "next_action noise noise_clip",
        "td_target": "reward terminated next_q1 next_q2 gamma",
        "critic_loss": "q1 q2 target",
        "actor_loss": "q",
    },
    "sac_continuous": {
        "polyak_update": "source target tau",
        "squash": "mean log_std noise",
        "td_target": "reward terminated next_q1 next_q2 gamma next_log_prob alpha",
        "critic_loss": "q1 q2 target",
        "actor_loss": "log_prob q1 q2 alpha",
        "alpha_loss": "log_alpha log_prob target_entropy",
    },
}
HEADER = ["Paper", "Run", "Results", "Symbols", "Algorithm", "Differs", "The study notes"]
ALLOWED_IMPORTS = {"numpy", "torch", "gymnasium", "tyro", "tqdm"} | set(sys.stdlib_module_names)
LAZY_IMPORTS = {"wandb", "moviepy", "stable_baselines3", "ale_py"}

OFF_POLICY = ["dqn", "ddqn", "ddpg", "td3", "sac_continuous"]
CONTINUOUS = ["ddpg", "td3", "sac_continuous"]
DISCRETE = ["dqn", "ddqn"]
PPO = ["ppo_discrete", "ppo_continuous"]
ATARI = [*DISCRETE, "ppo_discrete"]

# Lines of part 1 (the contract's bounds), and of a whole script as it is: what is added must be worth raising it.
PART_1 = {
    "dqn": 310,
    "ddqn": 310,
    "ddpg": 310,
    "td3": 325,
    "sac_continuous": 340,
    "ppo_discrete": 420,
    "ppo_continuous": 440,
}
WHOLE = {"dqn": 1012, "ddqn": 1016, "ddpg": 941, "td3": 969, "sac_continuous": 1011}
WHOLE |= {"ppo_discrete": 1083, "ppo_continuous": 1068}

# Part 1: blocks that are the same, byte for byte, in every script named beside them.
SHARED = {
    "polyak_update": OFF_POLICY,
    "Batch": OFF_POLICY,
    "ReplayBuffer": OFF_POLICY,
    "mlp": ["ddpg", "td3"],
    "Actor": ["ddpg", "td3"],
    "Critic": CONTINUOUS,
    "bound_log_std": ["sac_continuous", "ppo_continuous"],
    "train": CONTINUOUS,  # but for the lines below
    **dict.fromkeys(["linear_schedule", "exponential_schedule", "q_loss", "QNetwork"], DISCRETE),
}
PPO_SHARED = [*LINEAR, *PPO_EQUATIONS, "orthogonal", "mlp", "Rollout", "train"]
PPO_SHARED = [name for name in PPO_SHARED if name not in ("total_loss", "ent_coef_loss")]  # discrete: sums over heads

# What a script's algorithm adds to a shared block, and what else it has in the place of a line of the others.
OWN_LINES = {("ddpg", "train"): {"                agent.noise.zero_()\n": ""}}  # its noise restarts with the episode

# Part 2 is the same in all seven scripts, but for these blocks: name -> groups of scripts in which it is the same.
# A script that is in no group does not have the block.
FAMILIES = {
    # speed of matrix products
    "onednn": (CONTINUOUS,),
    "onednn_linear": (CONTINUOUS,),
    "has_fast_onednn": (CONTINUOUS,),
    "LinearFunction": (CONTINUOUS,),
    "Linear": (CONTINUOUS,),
    "frozen": (CONTINUOUS,),
    # Atari's frames
    "NatureCNN": (ATARI,),
    "WholeGame": (ATARI,),
    "wrap_atari": (ATARI,),
    "FrameBuffer": (DISCRETE,),
    "make_buffer": (DISCRETE,),
    "make_env": (CONTINUOUS, ["ppo_continuous"], DISCRETE, ["ppo_discrete"]),
    # replay buffer
    "free_memory": (OFF_POLICY,),
    "check_memory": (OFF_POLICY,),
    # vector environments
    "make_training_env": (CONTINUOUS, DISCRETE, ["ppo_discrete"], ["ppo_continuous"]),
    "play": (OFF_POLICY, PPO),
    "Run.__init__": (OFF_POLICY, PPO),
    "Run.steps": (OFF_POLICY, PPO),
    "Run.step_env": (OFF_POLICY, PPO),
    "Run.next_episode": (OFF_POLICY,),
    "Run.next_rollout": (PPO,),
    # a script's own arguments
    "check_args": (DISCRETE, ["ddpg"], ["td3"], ["sac_continuous"], ["ppo_discrete"], ["ppo_continuous"]),
}


def source(script):
    return (ROOT / f"{script}.py").read_text()


parse = functools.cache(ast.parse)  # each text once


def tree(script):
    return parse(source(script))


def block(script, name):
    """The text of a top-level definition or assignment, its decorators included."""
    for node in tree(script).body:
        names = [getattr(node, "name", None)] + [getattr(target, "id", None) for target in getattr(node, "targets", [])]
        if name in names:
            start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            return "\n".join(source(script).splitlines()[start - 1 : node.end_lineno])
    return None


def shared_block(script, name):
    """The block with the script's own lines turned into those of the others."""
    text = block(script, name)
    for own, others in OWN_LINES.get((script, name), {}).items() if text else []:
        assert (text + "\n").count(own) == 1, f"{script}.py has not its own {own!r}"
        text = (text + "\n").replace(own, others)[:-1]
    return text


def functions(script):
    return {node.name: node for node in tree(script).body if isinstance(node, ast.FunctionDef)}


def args_fields(script):
    return next(n for n in tree(script).body if isinstance(n, ast.ClassDef) and n.name == "Args").body


def part_2(script):
    """name -> text of the blocks of part 2; of the class Run, of its methods."""
    text = source(script)
    first = text[: text.index("# ======== Part 2")].count("\n")
    blocks = {}
    for node in tree(script).body:
        if node.lineno > first and not isinstance(node, ast.If | ast.Expr):
            methods = (
                [part for part in node.body if isinstance(part, ast.FunctionDef)]
                if getattr(node, "name", "") == "Run"
                else []
            )
            for part in methods or [node]:
                name = getattr(part, "name", None) or part.targets[0].id
                start = min([part.lineno, *(decorator.lineno for decorator in getattr(part, "decorator_list", []))])
                lines = text.splitlines()[start - 1 : part.end_lineno]
                blocks[f"Run.{name}" if methods else name] = "\n".join(lines)
    return blocks


def test_part_2_is_the_same_everywhere_but_for_the_table():
    parts, table = {script: part_2(script) for script in SCRIPTS}, FAMILIES
    for name in {name for blocks in parts.values() for name in blocks}:
        for group in table.get(name, [SCRIPTS]):
            texts = {script: parts[script].get(name) for script in group}
            assert None not in texts.values(), (
                f"{name} is missing in {[script for script in group if not texts[script]]}"
            )
            for script in group[1:]:
                lines = [texts[other].splitlines() for other in (group[0], script)]
                diff = "\n".join(difflib.unified_diff(*lines, group[0], script, lineterm=""))
                assert not diff, f"{name} differs:\n{diff}"
        owners = {script for group in table.get(name, [SCRIPTS]) for script in group}
        assert {script for script in SCRIPTS if name in parts[script]} == owners, name
        firsts = [parts[group[0]][name] for group in table.get(name, [SCRIPTS])]
        assert len(set(firsts)) == len(firsts), f"{name} is the same in two groups of the table"


def test_comments_and_headings_of_part_2_are_the_same_too():
    """What is outside of the blocks: headings, comments, statements without a name, the last lines."""
    rest = {}
    for script in SCRIPTS:
        text = source(script)[source(script).index("# ======== Part 2") :]
        for name, block_text in part_2(script).items():
            if not name.startswith("Run."):
                text = text.replace(block_text + "\n", f"<{name}>\n")
        rest[script] = [line for line in text.splitlines() if line.startswith(("#", "adam", "if __name__"))]
    common = set(rest["dqn"]) & set(rest["sac_continuous"]) & set(rest["ppo_continuous"])
    assert {
        "# ---- Speed ----",
        "# ---- Command line ----",
        "# ---- Run ----",
        "# ---- Environment and evaluation ----",
    } <= common
    assert all(common <= set(lines) for lines in rest.values())


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_parts_are_no_longer_than_they_may_be(script):
    """A reader of part 1 meets the algorithm and nothing else, and a script stays one that can be read."""
    text, nodes = source(script), functions(script)
    heading = text[: text.index("# ======== Part 2")].count("\n") + 1
    assert text.index("# ======== Part 1") < text.index('"""') and nodes["train"].end_lineno == heading - 3
    assert nodes["train"].end_lineno <= PART_1[script]
    assert nodes["train"].end_lineno - nodes["train"].lineno < 45
    assert len(text.splitlines()) <= WHOLE[script]
    machine = {"make_env", "evaluate", "evaluate_run", "parse_args", "check_args", "speed_up", "Linear", "Adam", "Run"}
    early = [node.name for node in tree(script).body if getattr(node, "name", "") in machine and node.lineno < heading]
    assert early == []


@pytest.mark.parametrize("name", SHARED)
def test_shared_block_is_the_same_everywhere(name):
    same_everywhere(name, SHARED[name])


@pytest.mark.parametrize("name", PPO_SHARED)
def test_ppo_s_pair_shares_all_but_distribution_and_normaliser(name):
    same_everywhere(name, PPO)


@pytest.mark.parametrize("script", SCRIPTS)
def test_last_block_is_the_same_everywhere(script):
    ours, theirs = (source(name).split("\nif __name__")[1:] for name in (SCRIPTS[0], script))
    assert (theirs[0].split("\n\n")[0], theirs[1]) == (ours[0].split("\n\n")[0], ours[1]), "its first, its last"


@pytest.mark.parametrize("name", ["Args", "check_args", "train"])
def test_dqn_and_ddqn_share_all_but_the_target(name):
    same_everywhere(name, DISCRETE)


def same_everywhere(name, scripts):
    having = [script for script in scripts if script in SCRIPTS]
    blocks = {script: shared_block(script, name) for script in having}
    assert all(blocks.values()), f"{name} is missing in {[script for script in having if not blocks[script]]}"
    for script in having[1:]:
        lines = [blocks[other].splitlines() for other in (having[0], script)]
        diff = "\n".join(difflib.unified_diff(*lines, having[0], script, lineterm=""))
        assert not diff, f"{name} differs:\n{diff}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_run_arguments_are_the_same_everywhere(script):
    lines = {s: re.search(r"class Args:\n(.*?    out_dir[^\n]*)", source(s), re.S)[1] for s in (SCRIPTS[0], script)}
    without_defaults = {
        s: re.sub(r"env_id: str = .*?  #|total_timesteps: int = .*?  #|compile: bool = .*?  #", "#", t)
        for s, t in lines.items()
    }
    assert without_defaults[script] == without_defaults[SCRIPTS[0]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_args_are_those_of_the_contract_each_on_one_line_with_its_help(script):
    fields = args_fields(script)
    off_policy = OFF_POLICY_ARGS if script in OFF_POLICY else []
    assert [field.target.id for field in fields] == RUN_ARGS + off_policy + ALGORITHM_ARGS[script]
    for field in fields:
        line = source(script).splitlines()[field.lineno - 1]
        assert field.lineno == field.end_lineno and re.search(r"  # \S.{10,}", line), line


# Who gives no argument gets these: of the run, and of the algorithm as in the sources that its help names.
RUN_DEFAULTS = {"seed": 1, "cuda": True, "torch_threads": 1, "cudagraphs": False, "track": False}
RUN_DEFAULTS |= {"wandb_project": "plainrl", "wandb_entity": None, "capture_video": False, "log_interval": 1000}
RUN_DEFAULTS |= {"eval_interval": 10_000, "eval_episodes": 10, "checkpoint_interval": 50_000, "out_dir": "runs"}
RUN_DEFAULTS |= {"resume": None, "evaluate": None}
CARTPOLE = {"env_id": "CartPole-v1", "total_timesteps": 500_000, "compile": False}
HOPPER = {"env_id": "Hopper-v5", "total_timesteps": 1_000_000, "compile": True}
CHEETAH = {"env_id": "HalfCheetah-v5", "total_timesteps": 1_000_000, "compile": False}
DQN_DEFAULTS = {"gamma": 0.99, "tau": 1, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 10_000}
DQN_DEFAULTS |= {"train_interval": 10, "gradient_steps": 1, "learning_rate": 2.5e-4, "target_update_interval": 500}
DQN_DEFAULTS |= {"epsilon_start": 1, "epsilon_end": 0.05, "epsilon_schedule": "linear", "epsilon_duration": 250_000}
DQN_DEFAULTS |= {"epsilon_decay": 0.99998}
OFF_POLICY_DEFAULTS = {"gamma": 0.99, "tau": 0.005, "batch_size": 256, "buffer_size": 1_000_000, "train_interval": 1}
OFF_POLICY_DEFAULTS |= {"gradient_steps": 1, "actor_lr": 1e-3, "critic_lr": 1e-3}
NOISE = {"learning_starts": 25_000, "exploration_noise": 0.1}
PPO_DEFAULTS = {"anneal_lr": True, "gamma": 0.99, "gae_lambda": 0.95, "clip_coef": 0.2, "vf_coef": 0.5}
PPO_DEFAULTS |= {"max_grad_norm": 0.5, "target_kl": None, "norm_adv": True, "ent_autotune": False, "ent_coef_lr": 1e-3}
PPO_DEFAULTS |= {"ent_coef_schedule": "constant", "ent_coef_end": None, "ent_coef_duration": 0}
TARGET_ENTROPY = {"target_entropy": None, "target_entropy_end": None, "target_entropy_duration": 0}
OF_TABLE_5 = {"num_envs": 4, "num_steps": 128, "num_minibatches": 4, "update_epochs": 4, "learning_rate": 2.5e-4}
OF_TABLE_3 = {"num_envs": 1, "num_steps": 2048, "num_minibatches": 32, "update_epochs": 10, "learning_rate": 3e-4}
SCALING = {"std": "parameter", "norm_obs": True, "norm_reward": True}
DEFAULTS = {
    **dict.fromkeys(DISCRETE, CARTPOLE | DQN_DEFAULTS),
    "ddpg": HOPPER | OFF_POLICY_DEFAULTS | NOISE | {"noise_process": "gaussian"},
    "td3": HOPPER
    | OFF_POLICY_DEFAULTS
    | NOISE
    | {"target_noise": 0.2, "noise_clip": 0.5, "policy_delay": 2, "actor_objective": "q1"},
    "sac_continuous": HOPPER
    | OFF_POLICY_DEFAULTS
    | TARGET_ENTROPY
    | {"learning_starts": 5000, "alpha_lr": 3e-4, "autotune": True, "alpha": 0.2},
    "ppo_discrete": CARTPOLE | PPO_DEFAULTS | TARGET_ENTROPY | OF_TABLE_5 | {"ent_coef": 0.01},
    "ppo_continuous": CHEETAH | PPO_DEFAULTS | TARGET_ENTROPY | OF_TABLE_3 | SCALING | {"ent_coef": 0.0},
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_defaults_are_those_of_the_contract(script):
    args = importlib.import_module(script).Args()
    assert dataclasses.asdict(args) == RUN_DEFAULTS | DEFAULTS[script]


@pytest.mark.parametrize("script", SCRIPTS)
def test_parts_come_in_the_order_of_the_contract(script):
    names = [getattr(node, "name", None) for node in tree(script).body]
    equations, store = list(EQUATIONS[script]), "ReplayBuffer" if script in OFF_POLICY else "Rollout"
    networks = [name for name in names if name in ("Actor", "Critic", "QNetwork", "ActorCritic")]
    order = [
        "Args",
        *equations,
        *networks,
        store,
        "Agent",
        "train",
        "Adam",
        "make_env",
        "evaluate",
        "check_args",
        "Run",
    ]
    assert [name for name in names if name in order] == order
    assert source(script).rstrip().splitlines()[-1].startswith(" "), "ends in `if __name__ == '__main__'`"
    assert ast.unparse(tree(script).body[-1].test) == "__name__ == '__main__'"


@pytest.mark.parametrize("script", SCRIPTS)
def test_header_has_its_parts_in_order_and_real_results(script):
    header = ast.get_docstring(tree(script))
    places = [header.find(f"\n{part}") for part in HEADER]
    assert -1 not in places and places == sorted(places)
    assert "NOTES.md" in header and not re.search(r"\bE\d{3}-\d", source(script)), "rows are in benchmark/claims"
    for name in EQUATIONS[script]:
        assert name in header, f"the header's algorithm does not name {name}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_train_has_its_markers_and_stays_short(script):
    text = block(script, "train")
    places = [text.find(f"# {marker}\n") for marker in ("act", "step the environment", "learn", "evaluate")]
    assert -1 not in places and places == sorted(places)


@pytest.mark.parametrize("script", SCRIPTS)
def test_equations_have_the_signatures_of_the_contract(script):
    for name, signature in EQUATIONS[script].items():
        assert [argument.arg for argument in functions(script)[name].args.args] == signature.split()


@pytest.mark.parametrize("script", SCRIPTS)
def test_equations_are_documented_short_and_pure(script):
    """Tensors and floats in, tensors out: no network, no Args, no randomness, no read-back, no device."""
    forbidden = re.compile(r"\bargs\b|\bself\b|rand|\.item\(|\.cpu\(|\.cuda\(|\.to\(|\.tolist\(|\bnn\.|print|global ")
    for name in EQUATIONS[script]:
        node = functions(script)[name]
        docstring = ast.get_docstring(node)
        assert "Source: " in docstring, name
        code = "\n".join(ast.unparse(statement) for statement in node.body[1:])
        assert not forbidden.search(code), (name, forbidden.search(code))
        assert len(node.body) - 1 < 10


@pytest.mark.parametrize("script", SCRIPTS)
def test_public_parts_have_docstrings(script):
    for node in tree(script).body:
        if isinstance(node, ast.ClassDef) and node.name != "Args":
            assert ast.get_docstring(node), node.name
    for name in ["make_env", "evaluate", "train", *EQUATIONS[script]]:
        assert ast.get_docstring(functions(script)[name]), name


@pytest.mark.parametrize("script", SCRIPTS)
def test_imports_are_on_the_list_and_optional_ones_inside_their_branch(script):
    at_top = [node for node in tree(script).body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in ast.walk(tree(script)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            allowed = ALLOWED_IMPORTS if node in at_top else ALLOWED_IMPORTS | LAZY_IMPORTS
            assert {module.split(".")[0] for module in modules} <= allowed, modules


@pytest.mark.parametrize("script", SCRIPTS)
def test_metadata_agrees_with_requirements(script):
    """PEP 723, so that `uv run` works on a copied file."""
    comment = re.search(r"^# /// script\n(.*?)^# ///$", source(script), re.S | re.M)[1]
    metadata = tomllib.loads(re.sub(r"^# ?", "", comment, flags=re.M))
    pinned = re.findall(r"^([\w.\[\],-]+==[\w.]+)", (ROOT / "requirements.txt").read_text(), re.M)
    assert metadata["requires-python"] == ">=3.11"
    assert set(metadata["dependencies"]) <= set(pinned)
    named = {re.split(r"[\[=]", dependency)[0] for dependency in metadata["dependencies"]}
    assert {"torch", "numpy", "gymnasium", "tyro", "tqdm", "tensorboard", "wandb", "moviepy"} <= named


def test_import_prints_nothing_and_writes_nothing_even_where_the_files_were_copied(tmp_path):
    for script in SCRIPTS:
        shutil.copy(ROOT / f"{script}.py", tmp_path)
    command = [sys.executable, "-B", "-W", "error", "-c", f"import {', '.join(SCRIPTS)}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert {path.name for path in tmp_path.iterdir()} == {f"{script}.py" for script in SCRIPTS}


def test_readme_has_the_two_commands_and_names_every_script():
    readme = (ROOT / "README.md").read_text()
    set_up = "python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt && .venv/bin/python"
    assert re.findall(rf"^{re.escape(set_up)} (.*)$", readme, re.M) == ["sac_continuous.py --cuda", "-m pytest"]
    for script in SCRIPTS:
        assert f"{script}.py" in readme


def readme_parts(name):
    """What both READMEs have in common: code, commands in the text, links, tables of figures, headings' levels."""
    text = (ROOT / name).read_text("utf-8")
    blocks = re.findall(r"^```\w+\n.*?^```$", text, re.S | re.M)
    outside = re.sub(r"^```\w+\n.*?^```$", "", text, flags=re.S | re.M)
    return {
        "code": blocks,
        "names": collections.Counter(re.findall(r"`([^`\n]+)`", outside)),
        "links": sorted(link for link in re.findall(r"\]\(([^)]+)\)", outside) if "README" not in link or "#" in link),
        "tables": re.findall(r"<!-- table.*?end -->", text, re.S),
        "headings": re.findall(r"^#+ ", text, re.M),
        "figures": sorted(re.findall(r"\d[\d,.]*\d", outside)),
    }


def test_readme_is_the_same_in_both_languages_and_short():
    english, chinese = readme_parts("README.md"), readme_parts("README.zh-CN.md")
    for part in english:
        assert english[part] == chinese[part], part
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "benchmark/README.md"])
def test_links_lead_somewhere(name):
    path = ROOT / name
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", path.read_text("utf-8")):
        target, _, anchor = link.partition("#")
        found = (path.parent / target) if target else path
        assert found.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", found.read_text("utf-8"), re.M)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], link


def test_block_finds_decorated_functions():
    assert block("sac_continuous", "polyak_update").startswith("@torch.no_grad()")
    assert inspect.cleandoc(block("sac_continuous", "Batch")).startswith("Batch = ")


def test_every_seeded_mistake_has_its_place():
    """A mistake of mutants.py replaces a text that its script has once, or it would not be made."""
    import mutants

    for script, groups in mutants.MUTANTS.items():
        text = source(script)
        for group, mistakes in groups.items():
            assert (ROOT / "tests" / f"test_{group}.py").exists()
            for name, (right, wrong) in mistakes.items():
                assert text.count(right) == 1 and right != wrong, f"{script}: {name}"
