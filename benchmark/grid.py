"""What run.py and report.py share: the grid, the hash of a script's mathematics, and the files of results."""

import ast
import csv
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
# arguments of a script that do not change what it learns
OTHER = {"cuda", "torch_threads", "compile", "cudagraphs", "track", "wandb_project", "wandb_entity", "capture_video"}
OTHER |= {"log_interval", "checkpoint_interval", "resume", "evaluate", "out_dir"}


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
        return f"{self.script}/{self.env_id.replace('/', '-')}" + (f"__{self.variant}" if self.variant else "")

    @property
    def name(self) -> str:
        return f"{self.row}/{self.seed}"


def grid(path: Path) -> list[Run]:
    """All runs of a file such as experiments.toml. ValueError, with what is wrong, for a grid that cannot be run."""
    try:
        entries = tomllib.loads(path.read_text("utf-8"))["experiments"]
    except (KeyError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: no list of [[experiments]]: {error}") from error
    runs = []
    for number, entry in enumerate(entries, 1):
        if unknown := entry.keys() - KEYS:
            raise ValueError(f"{path}: experiment {number}: {', '.join(unknown)} is none of {', '.join(sorted(KEYS))}")
        needed = KEYS - {"variant"} | {"total_timesteps"}
        if missing := sorted(needed - entry.keys() - entry.get("arguments", {}).keys()):
            raise ValueError(f"{path}: experiment {number}: {', '.join(missing)} is missing")
        if not isinstance(entry["environments"], list) or not isinstance(entry["seeds"], int | list):
            raise ValueError(f"{path}: experiment {number}: environments is a list, seeds a number or a list")
        for env_id in entry["environments"]:
            variant, arguments = entry.get("variant", ""), entry["arguments"]
            seeds = entry["seeds"] if isinstance(entry["seeds"], list) else range(1, entry["seeds"] + 1)
            runs += [Run(entry["script"], env_id, variant, seed, arguments) for seed in seeds]
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: more than once: {', '.join(twice)}; give one of them a variant")
    return runs


def code_hash(source: str) -> str:
    """Twelve digits of SHA-256 over a script's equations, networks, buffer and agent, without comments and docstrings.

    A result whose hash is not that of the script as it is now was obtained with another program.
    """
    sections = re.split(r"^# ---- (.+?) ----$", source.split("# ---- Environment")[0], flags=re.MULTILINE)[1:]
    tree = ast.parse("\n".join(sections[1::2]))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    options = {"show_empty": True} if sys.version_info >= (3, 13) else {}  # the same text from every Python
    text = ast.dump(tree, **options).replace(", type_params=[]", "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def defaults(source: str) -> dict:
    """The arguments of a script with their defaults, read from its text."""
    (args,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Args")
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
    return {"code": about["code"], "arguments": before} != now


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
