"""What run.py and report.py share: the grid, the hash of a script's mathematics, and the files of results."""

import ast
import csv
import functools
import hashlib
import io
import json
import math
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parent
ROOT = BENCHMARK.parent
KEYS = {"script", "environments", "seeds", "arguments", "variant"}
# arguments of a script that do not change what it learns; a checkpoint does, since new episodes begin after it
OTHER = {"cuda", "torch_threads", "compile", "cudagraphs", "track", "wandb_project", "wandb_entity", "capture_video"}
OTHER |= {"log_interval", "resume", "evaluate", "out_dir"}
SET_BY_RUN = {"env_id", "seed", "track", "resume", "evaluate", "out_dir"}  # by run.py itself, for each run


@dataclass(frozen=True)
class Run:
    """One line of the grid with one seed. `arguments` are those that differ from the script's defaults."""

    script: str
    env_id: str
    variant: str
    seed: int
    arguments: dict = field(hash=False)

    @property
    def row(self) -> str:
        """The folder of its results and those of its other seeds."""
        row = f"{self.script}/{self.env_id.replace('/', '-')}"
        return f"variants/{row}__{self.variant}" if self.variant else row

    @property
    def name(self) -> str:
        return f"{self.row}/{self.seed}"


def is_like(value: object, default: object) -> bool:
    """Whether a script's argument with this default can have the value; one without a default takes any."""
    types = {bool: bool, int: int, float: (int, float), str: str}.get(type(default), (int, float, str))
    return isinstance(value, types) and isinstance(value, bool) == isinstance(default, bool)


def runs_of(entry: dict) -> list[Run]:
    """The runs of one of the [[experiments]]. ValueError, with what is wrong."""
    if unknown := sorted(entry.keys() - KEYS):
        raise ValueError(f"{', '.join(unknown)} is none of {', '.join(sorted(KEYS))}")
    if missing := sorted(KEYS - {"variant"} - entry.keys()):
        raise ValueError(f"{', '.join(missing)} is missing")
    script, env_ids, seeds, arguments = (entry[name] for name in ("script", "environments", "seeds", "arguments"))
    if not isinstance(env_ids, list) or not env_ids or not all(isinstance(env_id, str) for env_id in env_ids):
        raise ValueError("environments is a list of Gymnasium's ids")
    seeds = list(range(1, seeds + 1)) if type(seeds) is int else seeds
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError("seeds is their number, or a list of seeds")
    path = ROOT / f"{script}.py"
    if not path.exists():
        raise ValueError(f"no script {script}")
    known = defaults(path.read_text("utf-8"))
    if not isinstance(arguments, dict) or "total_timesteps" not in arguments:
        raise ValueError("total_timesteps is missing among the arguments")
    for name, value in arguments.items():
        if name not in known or name in SET_BY_RUN:
            raise ValueError(f"{name} is set by run.py" if name in SET_BY_RUN else f"{script}.py has no {name}")
        if not is_like(value, known[name]):
            raise ValueError(f"{name} = {value!r} is not of the type of its default, {known[name]!r}")
    if arguments.get("eval_interval") == 0:
        raise ValueError("eval_interval = 0: a result needs evaluations")
    return [Run(script, env_id, entry.get("variant", ""), seed, arguments) for env_id in env_ids for seed in seeds]


def grid(path: Path) -> list[Run]:
    """All runs of a file such as experiments.toml. ValueError, with what is wrong, for a grid that cannot be run."""
    try:
        entries = tomllib.loads(path.read_text("utf-8"))["experiments"]
    except (KeyError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: no list of [[experiments]]: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: no list of [[experiments]]")
    runs = []
    for number, entry in enumerate(entries, 1):
        try:
            runs += runs_of(entry)
        except ValueError as error:
            raise ValueError(f"{path}: experiment {number}: {error}") from error
    names, first = [run.name for run in runs], {}
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: more than once: {', '.join(twice)}; give one of them a variant")
    for run in runs:
        if first.setdefault(run.row, run).arguments != run.arguments:
            raise ValueError(f"{path}: {run.row} has two sets of arguments; give one of them a variant")
    return runs


@functools.cache
def code_hash(source: str) -> str:
    """Twelve digits of SHA-256 over a script's part 1 and the section of part 2 that runs it faster.

    Header, imports, Args, comments and docstrings are left out. A result whose hash is not that of the script as it is
    now was obtained with another program.
    """
    part_1, part_2 = re.split(r"^# =+ Part 2: .*$", source, flags=re.MULTILINE)
    speed = re.search(r"^# ---- Speed ----$.*?(?=^# ---- )", part_2, re.MULTILINE | re.DOTALL)[0]
    tree = ast.parse(part_1 + speed)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom) and not is_args(node)]
    options = {"show_empty": True} if sys.version_info >= (3, 13) else {}  # the same text from every Python
    text = ast.dump(tree, **options).replace(", type_params=[]", "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_args(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == "Args"


@functools.cache
def defaults(source: str) -> dict:
    """The arguments of a script with their defaults, read from its text."""
    (args,) = filter(is_args, ast.parse(source).body)
    return {node.target.id: ast.literal_eval(node.value) for node in args.body if isinstance(node, ast.AnnAssign)}


def made_by(run: Run, source: str) -> dict:
    """Hash and arguments of a run with that text of its script: what a result depends on."""
    arguments = {**defaults(source), "env_id": run.env_id, "seed": run.seed, **run.arguments}
    rollout = arguments.get("num_envs", 1) * arguments.get("num_steps", 1)  # PPO rounds up to whole ones
    arguments["total_timesteps"] = math.ceil(arguments["total_timesteps"] / rollout) * rollout
    return {"code": code_hash(source), "arguments": {k: v for k, v in arguments.items() if k not in OTHER}}


def has_changed(run: Run, about: dict) -> bool:
    """Whether a result, by its `about`, was made by other mathematics or arguments than those of now."""
    now = made_by(run, (ROOT / f"{run.script}.py").read_text("utf-8"))
    before = {name: about["arguments"].get(name) for name in now["arguments"]}
    return before != now["arguments"] or about["code"] != now["code"]


def write_result(path: Path, about: dict, rows: list[tuple[int, str, float]]) -> None:
    """about: name -> value, in comments; rows: (step, "train" or "eval", return)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# {name}: {json.dumps(value) if isinstance(value, dict) else value}" for name, value in about.items()]
    lines += ["step,kind,return", *(f"{step},{kind},{value:.3f}" for step, kind, value in sorted(rows))]
    path.with_suffix(".tmp").write_text("\n".join(lines) + "\n", "utf-8")
    path.with_suffix(".tmp").replace(path)


def read_result(path: Path) -> tuple[dict, list[tuple[int, str, float]]]:
    """Undoes write_result. ValueError if the file is not one of its."""
    lines = path.read_text("utf-8").splitlines()
    about = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# "))
    table = csv.DictReader(io.StringIO("\n".join(line for line in lines if not line.startswith("#"))))
    try:
        about["arguments"] = json.loads(about["arguments"])
        return about, [(int(row["step"]), row["kind"], float(row["return"])) for row in table]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a result of run.py: {error!r}") from error
