"""NOTES.md, NOTES.zh-CN.md and tests/test_notes.py agree: every row's code and test exist, every test has a row."""

import ast
import importlib
import re
from functools import reduce
from pathlib import Path

import pytest
from test_conventions import EQUATIONS

ROOT = Path(__file__).parent.parent
FILES = ["NOTES.md", "NOTES.zh-CN.md"]
VERDICTS = {
    "right": "正确",
    "right under a condition": "有条件地正确",
    "wrong": "错误",
    "misleading": "易误导",
}


def rows(file: str) -> list[list[str]]:
    """The cells of each row: ID, claim, verdict, what holds, code, test."""
    lines = (ROOT / file).read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| [ER]\d{3}-", line)]


def names(cell: str) -> list[str]:
    return [] if cell == "—" else re.findall(r"`([\w.]+)`", cell)


@pytest.mark.parametrize("file", FILES)
def test_rows_are_whole_and_there_once(file):
    table = rows(file)
    assert len(table) > 140 and all(len(row) == 6 and all(row) for row in table)
    ids = [row[0] for row in table]
    assert len(ids) == len(set(ids)), sorted({row for row in ids if ids.count(row) > 1})


def test_both_languages_have_the_same_rows():
    english, chinese = map(rows, FILES)
    assert [row[0] for row in english] == [row[0] for row in chinese]
    for ours, theirs in zip(english, chinese, strict=True):
        assert VERDICTS[ours[2]] == theirs[2], ours[0]
        assert names(ours[4]) == names(theirs[4]) and ours[5] == theirs[5], ours[0]


def test_named_code_exists():
    for row, _, _, _, code, _ in rows("NOTES.md"):
        assert names(code) or code == "—", f"{row}: {code}"
        for name in names(code):
            script, *attributes = name.split(".")
            assert (ROOT / f"{script}.py").exists(), f"{row}: {name}"
            reduce(getattr, attributes, importlib.import_module(script))


def test_rows_and_tests_belong_together():
    tree = ast.parse((ROOT / "tests" / "test_notes.py").read_text("utf-8"))
    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    named = [name for row in rows("NOTES.md") for name in names(row[5])]
    assert sorted(tests) == sorted(named)
    assert all(f"test_{row[0].replace('-', '_')}" in names(row[5]) or row[5] == "—" for row in rows("NOTES.md"))


def test_headers_name_the_notes_page_and_no_rows():
    """A row's number means nothing to a reader of a script."""
    for script in EQUATIONS:  # all seven, and not what a user has put beside them
        text = (ROOT / f"{script}.py").read_text("utf-8")
        assert ast.get_docstring(ast.parse(text)).endswith(": NOTES.md"), script
        assert not re.search(r"\b[ER]\d{3}-\d", text), script
