"""Copies the returns of finished runs into benchmark/results, as text that git can keep.

    python benchmark/export.py RUN_DIR ...

Writes benchmark/results/<script>/<environment>/<seed>.csv: comments with the arguments, the commit of this checkout,
versions, machine and wall time; then a row for each training episode ("train") and each evaluation ("eval", the mean
of the deterministic episodes).
"""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RESULTS = Path(__file__).parent / "results"


def export(run_dir: Path) -> Path:
    args = json.loads((run_dir / "args.json").read_text())
    script = run_dir.name.split("__")[1]
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    if max(event.step for event in events.Scalars("charts/SPS")) != args["total_timesteps"]:
        sys.exit(f"{run_dir} is not finished")
    rows = [(event.step, "train", event.value) for event in events.Scalars("charts/episodic_return")]
    rows += [(event.step, "eval", event.value) for event in events.Scalars("eval/episodic_return")]
    times = [event.wall_time for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True).stdout
    about = {
        "commit": commit.strip(),
        "arguments": json.dumps({name: value for name, value in args.items() if name != "out_dir"}),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "gymnasium", "mujoco", "numpy")),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "wall time": f"{max(times) - min(times):.0f} s",
    }
    path = RESULTS / script / args["env_id"].replace("/", "-") / f"{args['seed']}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# {name}: {value}" for name, value in about.items()]
    lines += ["step,kind,return", *(f"{step},{kind},{value:.3f}" for step, kind, value in sorted(rows))]
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print(export(Path(folder)))
