"""BEHAVIOURS.md misses no argument, scalar or method, and the tests that it names exist."""

import re

import pytest
from test_arguments import ARGUMENTS
from test_conventions import ROOT, SCRIPTS, part_2
from test_runs import CHARTS, EVAL, LOSSES

TEXT = (ROOT / "tests" / "BEHAVIOURS.md").read_text("utf-8")
FIRST_COLUMN = set(re.findall(r"^\| `([^`]+)` \|", TEXT, re.M))


def test_tests_exist_and_every_row_names_one():
    existing = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        existing |= set(re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.M))
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert named - existing == set()
    rows = [line for line in TEXT.splitlines() if line.startswith("| `")]
    assert [row for row in rows if "`test_" not in row.split("|")[3]] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_arguments_scalars_and_methods_are_all_there(script):
    assert set(ARGUMENTS[script]) <= FIRST_COLUMN
    charts = CHARTS.get(script, set()) | {"episodic_return", "episodic_length", "SPS"}
    scalars = {f"losses/{name}" for name in LOSSES[script]} | {f"charts/{name}" for name in charts} | EVAL
    assert scalars <= FIRST_COLUMN
    assert {name for name in part_2(script) if name.startswith("Run.")} <= FIRST_COLUMN


def test_nothing_is_there_that_is_not_in_the_scripts():
    arguments = {name for script in SCRIPTS for name in ARGUMENTS[script]}
    methods = {name for script in SCRIPTS for name in part_2(script) if name.startswith("Run.")}
    known = arguments | methods | EVAL | {path.name for path in (ROOT / "benchmark").glob("*.py")}
    assert {name for name in FIRST_COLUMN - known if not name.startswith(("losses/", "charts/"))} == set()
