"""The command of CONTRIBUTING.md that carries a change of one script into the others, on copies of them."""

import ast
import shutil
import sys

import carry
import pytest
import test_conventions
from test_conventions import OFF_POLICY, ROOT, SCRIPTS

BEFORE = {script: test_conventions.source(script) for script in SCRIPTS}


@pytest.fixture
def carried(monkeypatch, tmp_path):
    """tests/carry.py in copies of the scripts: after these replacements in one script, which lines are in which."""
    for script in SCRIPTS:
        shutil.copy(ROOT / f"{script}.py", tmp_path)
    for module in (carry, test_conventions):
        monkeypatch.setattr(module, "ROOT", tmp_path)

    def call(script, *replacements):
        path = tmp_path / f"{script}.py"
        for old, new in replacements:
            text = path.read_text("utf-8")
            assert text.count(old) == 1
            path.write_text(text.replace(old, new), "utf-8")
        monkeypatch.setattr(sys, "argv", ["carry.py", f"{script}.py"])
        carry.main()
        return {script: (tmp_path / f"{script}.py").read_text("utf-8") for script in SCRIPTS}

    return call


def test_carry_brings_the_others_up_to_date(carried):
    """A changed method, a changed equation and a new function go to the scripts that share them, and to no other."""
    assert carried("td3") == BEFORE, "there is nothing to carry"
    texts = carried(
        "td3",
        ("    def restart(self)", "    def restart(self, again: bool = False)"),
        ("def polyak_update(source", "def polyak_update(a_source"),
        ("\n\ndef evaluate_run", "\n\ndef added() -> None:\n    pass\n\n\ndef evaluate_run"),
    )
    for script, text in texts.items():
        assert "def restart(self, again: bool = False)" in text
        assert ("def polyak_update(a_source" in text) == (script in OFF_POLICY)
        assert "\n\n\ndef added() -> None:\n    pass\n\n\ndef evaluate_run" in text
        ast.parse(text)


def test_carry_takes_each_block_to_the_scripts_that_share_it_and_shows_it(carried, capsys):
    """PPO's to its pair; the loop, in which a script has lines of its own, nowhere; a new method after the same one."""
    texts = carried(
        "ppo_discrete",
        ("def gae(\n", "def gae(  # here\n"),
        ("def orthogonal(", "def orthogonal(_, "),
        ("    def next_rollout(self", "    def next_rollout(self, _"),
        ("\n    def log_episode(self", "\n    def added(self) -> None:\n        pass\n\n    def log_episode(self"),
        ("\ndef train(args: Args)", "\ndef train(args: Args, _=0)"),
    )
    diffs = capsys.readouterr().out
    for text in ("def gae(  # here\n", "def orthogonal(_, ", "next_rollout(self, _"):
        assert {script for script, whole in texts.items() if text in whole} == {"ppo_discrete", "ppo_continuous"}
    one = "\n\n    def added(self) -> None:\n        pass\n\n    def log_episode(self"
    assert all(one in text and text.count("def added(") == 1 for text in texts.values())
    assert not any("\n\n\n    def added(" in text for text in texts.values()), "one line between two methods"
    assert "train(args: Args, _=0)" not in texts["ppo_continuous"]
    assert diffs.count("+    def added(self) -> None:\n") == 6 and diffs.count("+def gae(  # here\n") == 1
    assert "--- td3.py\n+++ td3.py with ppo_discrete.py's blocks\n" in diffs


def test_carry_leaves_alone_what_is_a_script_s_own(carried):
    """What only some have in part 2 goes to those; a script's own arguments and environment stay."""
    texts = carried(
        "dqn",
        ("def make_buffer(", "def make_buffer(_, "),
        ("def free_memory(", "def free_memory(_, "),
        ("def check_args(", "def check_args(_, "),
    )
    where = {
        text: {script for script, whole in texts.items() if text in whole}
        for text in ("make_buffer(_", "free_memory(_", "check_args(_")
    }
    assert where == {
        "make_buffer(_": {"dqn", "ddqn"},
        "free_memory(_": {"dqn", "ddqn", "ddpg", "td3", "sac_continuous"},
        "check_args(_": {"dqn", "ddqn"},
    }


def test_carry_wants_a_script(carried, monkeypatch):
    for words in (["nothing"], [], ["td3", "dqn"]):
        monkeypatch.setattr(sys, "argv", ["carry.py", *words])
        with pytest.raises(SystemExit, match=r"usage: .*one of .*td3"):
            carry.main()
