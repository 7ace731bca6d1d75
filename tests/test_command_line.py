"""The command line: what it takes, and what it refuses in one line, before anything is written.

--help, and what only a process of its own can show, is in test_runs.py, with the runs.
"""

import dataclasses
import importlib
import io
import math
import re
import sys
from types import SimpleNamespace

import gymnasium as gym
import pytest
import test_runs
import torch
from test_runs import ALL, ENV, ODD_ENV, PPO, SHORT, WRONG, assert_refused, lines, odd_run
from tqdm import tqdm

import sac_continuous

script, module = test_runs.script, test_runs.module  # fixtures
main, main_of, nothing_odd = test_runs.main, test_runs.main_of, test_runs.nothing_odd


@pytest.mark.parametrize(
    "flags, word",
    [
        ("--env-id NoSuchThing-v0", "NoSuchThing-v0"),
        ("--env-id nosuchmodule:Thing-v0", "nosuchmodule"),
        ("--env-id __main__:Thing-v0", "Thing"),
        ("--seed x", "--seed"),
        ("--seed 1.5", "--seed"),
        (f"--seed 1.5e0 --env-id Pendulum-v1 {SHORT}", "--seed"),
        ("--seed -1", "--seed"),
        ("--seed 100000000000000000000", "--seed"),  # more than 64 bits
        ("--seed inf", "--seed"),
        ("--seed 1/0", "--seed"),
        ("--seed 1e999", "--seed"),  # as a number it is infinite
        ("--seed", "--seed"),
        ("stray", "stray"),
        ("--total-timestep 1000", "--total-timestep"),
        ("--total-timesteps 0", "--total-timesteps"),
        ("--batch-size 0", "--batch-size"),
        ("--buffer-size 0", "--buffer-size"),
        ("--log-interval 0", "--log-interval"),
        ("--eval-interval -1", "--eval-interval"),
        (f"{SHORT} --eval-episodes 0", "--eval-episodes"),
        ("--checkpoint-interval -5", "--checkpoint-interval"),
        ("--gamma 2", "--gamma"),
        ("--gamma nan", "--gamma"),
        ("--tau 0", "--tau"),
        ("--total-timesteps 500 --learning-starts 500", "--learning-starts"),
        ("--train-interval 7", "--log-interval"),
        ("--buffer-size 1e12 --total-timesteps 1e13", "--buffer-size"),
        ("--resume nowhere", "nowhere"),
        ("--evaluate nowhere", "nowhere"),
        ("--resume ''", "checkpoint.pt does not exist"),  # a variable of the shell that is not set
        ("--evaluate ''", "agent.pt does not exist"),
        ("--resume nowhere --seed 3", "nowhere"),
        ("--resume nowhere --evaluate nowhere", "nowhere"),
        pytest.param(
            "--cudagraphs", "--cudagraphs", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
        ),
    ],
)
def test_refused(script, main, tmp_path, flags, word):
    """Wrong input is refused with status 2 and one line that names it, and nothing is created."""
    env = "" if "--env-id" in flags or "--resume" in flags or "--evaluate" in flags else f"--env-id {ENV[script]} "
    assert_refused(main(env + flags), word)
    assert list(tmp_path.iterdir()) == []


def test_mistyped_flag(main):
    """The line about a flag that is almost right has the right one."""
    assert_refused(main("--total-timestep 1000"), "Perhaps you meant", "--total-timesteps")
    assert_refused(main("--learning-start 1000"), "Perhaps you meant", "--learning-starts")


def test_line_about_a_mistake_has_nothing_besides(script, main, monkeypatch):
    """Neither the frame that tyro draws around it, nor its heading, nor where the help is."""
    monkeypatch.setattr("tyro._fmtlib._FORCE_UTF8_BOXES", True)  # as on a terminal
    assert main("--bogus 3").err == f"{script}.py: Unrecognized options: --bogus, 3\n"
    assert main("--seed").err == f"{script}.py: Missing value for argument '--seed'. Expected 1 values.\n"
    monkeypatch.setattr("tyro._fmtlib._FORCE_UTF8_BOXES", False)  # as in a file of ASCII
    assert main("--seed").err == f"{script}.py: Missing value for argument '--seed'. Expected 1 values.\n"


def test_refused_by_the_algorithm(script, main, tmp_path):
    """So are the contradictions among the algorithm's own arguments."""
    for flags, word in WRONG[script]:  # in brief, if it is not refused
        brief = "--total-timesteps 300 --learning-starts 100"
        assert_refused(main(f"--env-id {ENV[script]} {brief} {flags}"), word)
    assert list(tmp_path.iterdir()) == []


def test_refused_unbounded(main, tmp_path):
    """An action space without bounds is refused."""
    assert_refused(main("--env-id odd_envs:Odd/Unbounded-v0"), "odd_envs:Odd/Unbounded-v0", "unbounded")
    assert list(tmp_path.iterdir()) == []


def test_refused_out_dir(script, main, tmp_path):
    """An out_dir in which no folder can be made is refused."""
    (tmp_path / "file").write_text("")
    assert_refused(main(f"--env-id {ENV[script]} {SHORT} --out-dir file"), "file")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("one, other", [("dqn", "ddqn"), ("td3", "sac_continuous"), ("ppo_discrete", "ppo_continuous")])
def test_refused_run_of_another_script(main_of, tmp_path, one, other):
    """By the names of the file and of the script, also where their arguments are the same; and nothing is changed."""
    folder = odd_run(one, tmp_path / "runs", total_timesteps=60)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert_refused(main_of(other, f"--resume {folder}"), f"{folder}/checkpoint.pt", f"{one}.py")
    assert_refused(main_of(other, f"--evaluate {folder}"), f"{folder}/agent.pt", f"{one}.py")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert main_of(one, f"--resume {folder}").status == main_of(one, f"--evaluate {folder}").status == 0


@pytest.mark.parametrize(
    "flags, name, value",
    [
        (["--total-timesteps", "1e3"], "total_timesteps", 1000),
        (["--total-timesteps", "1_000"], "total_timesteps", 1000),
        (["--total-timesteps", "1000"], "total_timesteps", 1000),
        (["--total-timesteps", "1E3"], "total_timesteps", 1000),
        (["--total-timesteps", "1.5e6"], "total_timesteps", 1_500_000),
        (["--total-timesteps", "2.5e4"], "total_timesteps", 25_000),
        (["--total-timesteps=1e3"], "total_timesteps", 1000),
        (["--total_timesteps", "1e3"], "total_timesteps", 1000),
        (["--seed", "9007199254740993"], "seed", 2**53 + 1),  # which is no float
        (["--out-dir", "1e3"], "out_dir", "1e3"),  # text stays what it is
        (["--out-dir=lr=1e3"], "out_dir", "lr=1e3"),
        (["--gamma", "9.9e-1"], "gamma", 0.99),
        (["--tau", "1.5e0"], "tau", 1.5),  # a number, though not a good one: no digit gets lost
    ],
)
def test_numbers(module, monkeypatch, flags, name, value):
    """Integers may be written 1e3 and 1_000, and the fractions of other numbers stay."""
    monkeypatch.setattr(sys, "argv", ["script", *flags])
    found = getattr(module.parse_args(), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("name", ALL)
def test_evaluation_has_threads_and_episodes_of_its_own(main_of, tmp_path, name):
    folder = odd_run(name, tmp_path / "runs", total_timesteps=60)
    before = torch.get_num_threads()
    try:
        outcome = main_of(name, f"--evaluate {folder} --eval-episodes 3 --torch-threads 2 --no-cuda")
        assert outcome.status == 0 and "of 3 episodes" in outcome.out and torch.get_num_threads() == 2
        starts = ["agent of step 60", "episode 0: ", "episode 1: ", "episode 2: ", "mean ± std"]
        assert [line[: len(start)] for line, start in zip(lines(outcome.out), starts, strict=True)] == starts
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ALL)
def test_refused_actions_name_a_script_that_takes_them(main_of, name):
    env_id = "Pendulum-v1" if name in ("dqn", "ddqn", "ppo_discrete") else "CartPole-v1"
    outcome = main_of(name, f"--env-id {env_id}")
    assert_refused(outcome, env_id)
    [other] = re.findall(r"(\w+)\.py\)", outcome.err)
    importlib.import_module(other).make_env(env_id)


# ---- Values that are refused, by check_args alone ----
NAN, INF = math.nan, math.inf
POSITIVE, FRACTION, COUNT = ([0, -1, INF, NAN], [1e-6, 10]), ([-0.01, 1.01, NAN], [0, 1]), ([0, -1], [1])
NOT_NEGATIVE, NOT_COUNTED = ([-0.1, INF, NAN], [0, 5]), ([-1], [0, 1])
BOUNDS = {  # values that are refused, values that are taken
    **dict.fromkeys(["total_timesteps", "torch_threads", "log_interval", "eval_episodes"], COUNT),
    **dict.fromkeys(["batch_size", "buffer_size", "learning_starts", "train_interval", "gradient_steps"], COUNT),
    **dict.fromkeys(["policy_delay", "target_update_interval", "epsilon_duration"], COUNT),
    **dict.fromkeys(["num_envs", "num_steps", "num_minibatches", "update_epochs"], COUNT),
    **dict.fromkeys(["eval_interval", "checkpoint_interval"], NOT_COUNTED),
    **dict.fromkeys(["ent_coef_duration", "target_entropy_duration"], NOT_COUNTED),
    "seed": ([-1, 2**32], [0, 2**32 - 1]),
    "tau": ([0, 1.01, NAN], [1e-6, 1]),
    **dict.fromkeys(["gamma", "gae_lambda", "epsilon_start", "epsilon_end", "epsilon_decay"], FRACTION),
    **dict.fromkeys(["actor_lr", "critic_lr", "alpha_lr", "alpha", "learning_rate", "ent_coef_lr"], POSITIVE),
    **dict.fromkeys(["clip_coef", "max_grad_norm", "target_kl"], POSITIVE),
    **dict.fromkeys(["exploration_noise", "target_noise", "noise_clip"], NOT_NEGATIVE),
    **dict.fromkeys(["vf_coef", "ent_coef", "ent_coef_end"], NOT_NEGATIVE),
    **dict.fromkeys(["target_entropy", "target_entropy_end"], ([-INF, INF, NAN], [-7.0, 0.0, 7.0])),
}
SHARES = dict.fromkeys(["target_entropy", "target_entropy_end"], ([-0.1, 0, 1, NAN], [0.01, 0.99]))  # of log n


def complaint(script: str, **changes) -> str:
    """What check_args says of arguments that are the defaults but for some."""
    module = importlib.import_module(script)
    try:
        module.check_args(module.Args(**changes))
    except module.UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("script", ALL)
def test_numbers_have_their_bounds(script):
    """Each of the script: what is just outside is refused by its name, what is on the bound is not."""
    bounds, fields = BOUNDS | (SHARES if script == "ppo_discrete" else {}), importlib.import_module(script).Args
    names = [field.name for field in dataclasses.fields(fields) if re.search("int|float", str(field.type))]
    assert {"seed", "gamma"} < set(names)
    for name in names:
        refused, taken = bounds[name]
        flag = "--" + name.replace("_", "-")
        for value in refused:
            assert complaint(script, **{name: value}).startswith(f"{flag} {value} is outside of ["), (name, value)
        for value in taken:
            assert "is outside of" not in complaint(script, **{name: value}), (name, value)
    assert complaint(script, gamma=2) == "--gamma 2 is outside of [0, 1]"
    assert complaint(script, seed=-1) == "--seed -1 is outside of [0, 4294967295]"


BEFORE, MINIBATCHES = "--learning-starts must be below --total-timesteps", "--num-envs 4 times --num-steps 6 must be"
TOGETHER, LEARNED = "--target-entropy-end and --target-entropy-duration go together", "--ent-autotune starts at"
SCHEDULE, ABOVE = "give all or none", "needs --ent-coef and --ent-coef-end above 0"
LINEAR, EXPONENTIAL = {"ent_coef_schedule": "linear"}, {"ent_coef_schedule": "exponential"}
END, DURATION, ROLLOUT = {"ent_coef_end": 0.1}, {"ent_coef_duration": 5}, {"num_envs": 4, "num_steps": 6}
AUTOTUNE = {"ent_autotune": True, "ent_coef": 0.1}
OFF_POLICY_TOGETHER = [  # arguments, and what is said of them: "" if nothing is
    ({"learning_starts": 1_000, "total_timesteps": 1_000}, BEFORE),
    ({"learning_starts": 999, "total_timesteps": 1_000}, ""),
    ({"train_interval": 7}, "--log-interval must be a multiple of --train-interval"),
    ({"train_interval": 8}, ""),
]
PPO_TOGETHER = [
    (ROLLOUT | {"num_minibatches": 5}, MINIBATCHES),
    (ROLLOUT | {"num_minibatches": 24}, ""),
    *((moves, SCHEDULE) for moves in (LINEAR, END, DURATION, LINEAR | END, LINEAR | DURATION, END | DURATION)),
    *((EXPONENTIAL | {"ent_coef": 0.2} | moves, SCHEDULE) for moves in (END, DURATION)),
    (EXPONENTIAL | {"ent_coef": 0.0} | END | DURATION, ABOVE),
    (EXPONENTIAL | {"ent_coef": 0.2, "ent_coef_end": 0.0} | DURATION, ABOVE),
    (EXPONENTIAL | {"ent_coef": 0.2} | END | DURATION, ""),
    (LINEAR | {"ent_coef": 0.0} | END | DURATION, ""),
    (LINEAR | {"ent_coef": 0.2, "ent_coef_end": 0.0} | DURATION, ""),
    (AUTOTUNE | {"ent_coef": 0.0}, LEARNED),
    (AUTOTUNE | LINEAR | END | DURATION, LEARNED),
    (AUTOTUNE, ""),
]
OF_SAC = [
    ({"autotune": False, "target_entropy": 0.0}, "--no-autotune fixes the temperature"),
    ({"autotune": False, "target_entropy_end": 0.0, "target_entropy_duration": 5}, "--no-autotune fixes"),
    ({"autotune": False}, ""),
    ({"target_entropy_end": 0.0}, TOGETHER),
    ({"target_entropy_duration": 5}, TOGETHER),
    ({"target_entropy_end": 0.0, "target_entropy_duration": 5}, ""),
]
ALONE = {"target_entropy": 0.5}, {"target_entropy_end": 0.5, "target_entropy_duration": 5}
OF_PPO = [
    *((target, "--target-entropy needs --ent-autotune") for target in ALONE),
    *((AUTOTUNE | target, "") for target in ALONE),
    (AUTOTUNE | {"target_entropy_end": 0.5}, TOGETHER),
    (AUTOTUNE | {"target_entropy_duration": 5}, TOGETHER),
]
HEADS = [
    (AUTOTUNE | {"ent_coef": (0.1, 0.0)}, LEARNED),
    (EXPONENTIAL | {"ent_coef": (0.1, 0.0)} | END | DURATION, ABOVE),
]


@pytest.mark.parametrize("script", ALL)
def test_arguments_that_contradict_each_other(script):
    """One is refused with the reason, and what is next to it and makes sense is taken; 0 is a value like others."""
    table = PPO_TOGETHER + OF_PPO if script in PPO else OFF_POLICY_TOGETHER
    table = table + {"sac_continuous": OF_SAC, "ppo_discrete": HEADS}.get(script, [])
    for changes, reason in table:
        said = complaint(script, **changes)
        assert reason in said and bool(reason) == bool(said), (changes, said)


@pytest.mark.filterwarnings("ignore:.*not in the possible render_modes")
@pytest.mark.parametrize("script", ALL)
def test_videos_that_cannot_be_made_are_refused(monkeypatch, script):
    """Of an environment that does not draw, for which gymnasium's error has no text, and where moviepy is missing."""
    with pytest.raises(RuntimeError) as raised:  # a kind of it
        gym.Env().render()
    reason = f"--capture-video cannot work here: {raised.type.__name__}"
    assert complaint(script, env_id=ODD_ENV[script], capture_video=True) == reason
    monkeypatch.setitem(sys.modules, "moviepy", None)  # makes `import moviepy` an ImportError
    reason = complaint(script, env_id=ENV[script], capture_video=True)
    assert reason.startswith("--capture-video cannot work here: ") and "moviepy" in reason


@pytest.mark.parametrize("script", ALL)
@pytest.mark.parametrize("has_cuda", [False, True])
@pytest.mark.parametrize("cuda", [False, True])
def test_device_is_the_one_that_is_there_and_wanted(monkeypatch, script, has_cuda, cuda):
    module = importlib.import_module(script)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    device = module.pick_device(module.Args(cuda=cuda))
    assert device.type == ("cuda" if has_cuda and cuda else "cpu")
    said = complaint(script, cudagraphs=True, cuda=cuda)
    assert said == ("" if device.type == "cuda" else "--cudagraphs needs a CUDA device: drop it")


# ---- Compiling ----
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("cudagraphs", [False, True])
def test_update_is_compiled_once_and_only_if_it_is_asked_for(monkeypatch, capsys, compile, cudagraphs):
    """By the compiler, as CUDA graphs, or both; it is said before. A graph writes over what it has returned before."""
    asked, result = [], torch.zeros(1)

    def stand_in(update, **how):
        asked.append(how)
        return update

    monkeypatch.setattr(torch, "compile", stand_in)
    for name in ("_dynamo", "_inductor"):  # which take seconds to import
        monkeypatch.setitem(vars(torch), name, SimpleNamespace(config=SimpleNamespace()))
    args = sac_continuous.Args(compile=compile, cudagraphs=cudagraphs)
    update = sac_continuous.speed_up(lambda batch: {"loss": result.add_(1)}, args)
    assert ("will be compiled" in capsys.readouterr().out) == (compile or cudagraphs)
    losses = [update(()) for _ in range(3)]
    if cudagraphs:
        assert [each["loss"].item() for each in losses] == [1, 2, 3]
    if not compile and not cudagraphs:
        assert asked == []
    else:
        [how] = asked
        assert how.get("backend", "inductor") == ("inductor" if compile else "cudagraphs")
        assert how.get("options", {}).get("triton.cudagraphs", False) == (compile and cudagraphs)
    assert result.item() == 3, "each update is made once"


# ---- What is printed ----
@pytest.mark.parametrize(
    "error", [OSError(5, "no terminal"), ValueError("closed file"), RuntimeError("reentrant call")]
)
def test_line_that_cannot_be_printed_is_no_reason_to_stop(error):
    """The last: a signal that comes while something is being printed prints too."""

    class Gone(io.StringIO):
        def write(self, text):
            raise error

    sac_continuous.say("a line", Gone())


@pytest.mark.parametrize("name", ALL)
def test_line_arrives_at_once_in_a_file_or_a_pipe(name):
    """Both keep 8 KB to themselves unless told otherwise, and with them what a run said before it was killed."""
    arrived = io.BytesIO()
    file = io.TextIOWrapper(arrived, "utf-8", newline="\n")
    importlib.import_module(name).say("a line", file)
    assert arrived.getvalue() == b"a line\n"


def test_line_stands_above_the_bar(monkeypatch):
    """On a terminal the bar makes room for a line, and comes again below."""
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    with tqdm(total=7):
        sac_continuous.say("a line")
        before, after = screen.getvalue().split("a line\n")
    assert re.search(r"0/7.*\r +\r$", before) and "0/7" in after
