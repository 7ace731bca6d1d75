"""What a run shows of itself, in numbers that are known from elsewhere: speeds by a clock, steps after a resume."""

import importlib
import re
import time
from types import SimpleNamespace

import odd_envs
import pytest
import test_runs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_failures import folder_of
from test_runs import ALL, odd_flags, odd_run

main_of, nothing_odd = test_runs.main_of, test_runs.nothing_odd  # fixtures


def tick(monkeypatch, script: str, seconds) -> None:
    """The script's clock shows seconds(number of environment steps that this process has made)."""
    clock = SimpleNamespace(perf_counter=lambda: seconds(odd_envs.num_steps), time_ns=time.time_ns)
    monkeypatch.setattr(importlib.import_module(script), "time", clock)


@pytest.mark.parametrize("script", ALL)
def test_steps_per_second_are_those_since_the_last_log(main_of, monkeypatch, tmp_path, script):
    """A second for each of the first 100 steps, and four for each of the others: what came before does not count."""
    tick(monkeypatch, script, lambda steps: steps + 3 * max(0, steps - 100))
    assert main_of(script, odd_flags(script)).status == 0
    events = EventAccumulator(str(folder_of(tmp_path)))
    events.Reload()
    speeds = {event.step: event.value for event in events.Scalars("charts/SPS")}
    assert {60, 80, 120, 140, 200} <= speeds.keys()
    assert speeds == {step: pytest.approx(1 if step <= 100 else 0.25) for step in speeds}


@pytest.mark.parametrize("script", ALL)
def test_progress_goes_on_where_a_run_was(main_of, monkeypatch, tmp_path, script):
    """A run of 200 steps that is made 100 longer is at 200 of 300, not at 0, and has no more than 100 to go."""
    folder = odd_run(script, tmp_path / "runs")
    tick(monkeypatch, script, lambda steps: 7 * steps)
    out = main_of(script, f"--resume {folder} --total-timesteps 300").out
    steps = [float(step) for step in re.findall(r"^([\d.]+) of 300(?: steps)?, ", out, re.M)]
    assert steps and min(steps) > 200 and max(steps) <= 300 and steps == sorted(steps)


@pytest.mark.parametrize("script", ALL)
def test_time_that_is_left_after_a_resume_is_that_of_the_new_steps(main_of, monkeypatch, tmp_path, script):
    """By tqdm's clock each step takes a second: at step n of 300, 300 - n are left, whoever made the first 200."""
    folder = odd_run(script, tmp_path / "runs")
    tick(monkeypatch, script, lambda steps: 7 * steps)
    monkeypatch.setattr("tqdm.std.time", lambda: float(odd_envs.num_steps))
    out = main_of(script, f"--resume {folder} --total-timesteps 300").out
    left = re.findall(r"^([\d.]+) of 300 steps, 1\.00 steps/s, 0(\d):(\d\d) left", out, re.M)
    assert len(left) >= 4 and len(left) == out.count(" of 300 steps")
    assert [60 * int(minutes) + int(seconds) for _, minutes, seconds in left] == [300 - float(n) for n, _, _ in left]
