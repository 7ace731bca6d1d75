"""Copies the returns of finished runs into benchmark/results, as text that git can keep.

    python benchmark/export.py RUN_DIR ... [--commit HASH] [--variant NAME]

Writes benchmark/results/<script>/<environment>/<seed>.csv, for runs with other arguments than the defaults in a folder
<environment>__<variant>: comments with the arguments, commit, versions, machine and wall time; then a row for each
training episode ("train") and each evaluation ("eval", the mean of the deterministic episodes). The commit is the one
that the run was started from, by default that of this checkout; versions and machine are those of the export: do it
where the run was made. A file that is there already is not written over.
"""

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RESULTS = Path(__file__).parent / "results"


def export(run_dir: Path, commit: str, variant: str) -> Path:
    args = json.loads((run_dir / "args.json").read_text())
    script = run_dir.name.split("__")[1]
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    if max(event.step for event in events.Scalars("eval/episodic_return")) != args["total_timesteps"]:
        sys.exit(f"{run_dir} is not finished")
    rows = [(event.step, "train", event.value) for event in events.Scalars("charts/episodic_return")]
    rows += [(event.step, "eval", event.value) for event in events.Scalars("eval/episodic_return")]
    times = [event.wall_time for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    about = {
        "commit": commit,
        "arguments": json.dumps({name: value for name, value in args.items() if name != "out_dir"}),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "gymnasium", "mujoco", "numpy")),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "wall time": f"{max(times) - min(times):.0f} s",
    }
    env = args["env_id"].replace("/", "-") + (f"__{variant}" if variant else "")
    path = RESULTS / script / env / f"{args['seed']}.csv"
    if path.exists():
        sys.exit(f"{path} is there already")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# {name}: {value}" for name, value in about.items()]
    lines += ["step,kind,return", *(f"{step},{kind},{value:.3f}" for step, kind, value in sorted(rows))]
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", type=Path, nargs="+")
    parser.add_argument("--commit", help="that the runs were started from; default: this checkout's")
    parser.add_argument("--variant", default="", help="short name of arguments that are not the defaults")
    options = parser.parse_args()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    for folder in options.run_dirs:
        print(export(folder, options.commit or head.stdout.strip(), options.variant))
