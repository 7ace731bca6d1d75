"""The pages in benchmark/claims and the tests in notes/ agree: every row's code and test exist, every test has a row.

A row that needs a change has a paragraph each for number, verdict and severity; what the note says; what holds; code
and test. One that holds is an item of three lines: number, verdict and what the note says; what holds; code and test.
"""

import ast
import importlib
import re
from functools import reduce
from pathlib import Path

import pytest
from test_conventions import EQUATIONS

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "benchmark" / "claims"
NOTES = ["000", "001", "002", "003", "004"]
LANGUAGES = ["", ".zh-CN"]
VERDICTS = {
    "right": "正确",
    "right under a condition": "有条件地正确",
    "wrong": "错误",
    "misleading": "易误导",
}
SEVERITIES = {"breaks training": "会毁掉训练", "biased": "有偏差", "harmless": "无害"}
WRONG = r'<a id="(E.*?)"></a>\*\*(.*?)\*\* · (.*?) · (.*)\n\n> (.*)\n\n(.*)\n\n(.*) · (.*)\n'
RIGHT = r'- <a id="(R.*?)"></a>\*\*(.*?)\*\* · (.*?)(?:: |：)(.*)\n  (.*)\n  (.*) · (.*)\n'


def page(note: str, language: str) -> str:
    return (PAGES / f"note-{note}{language}.md").read_text("utf-8")


def rows_of(note: str, language: str) -> list[list[str]]:
    """The parts of each row: ID, claim, verdict, what holds, code, test, severity ("" of what holds)."""
    found = []
    for match in re.finditer(f"^(?:{WRONG}|{RIGHT})", page(note, language), re.MULTILINE):
        if match[1]:
            anchor, row, verdict, severity, claim, holds, code, test = match.groups()[:8]
        else:
            anchor, row, verdict, claim, holds, code, test, severity = *match.groups()[8:], ""
        assert anchor == row
        found.append([row, claim, verdict, holds, code, test, severity])
    return found


def rows(language: str) -> list[list[str]]:
    return [row for note in NOTES for row in rows_of(note, language)]


def names(cell: str) -> list[str]:
    return [] if cell == "—" else re.findall(r"`([\w.]+)`", cell)


@pytest.mark.parametrize("language", LANGUAGES)
def test_rows_are_whole_and_there_once(language):
    table = rows(language)
    assert len(table) == 192 and all(len(row) == 7 and all(row[:6]) for row in table)
    ids = [row[0] for row in table]
    assert len(ids) == len(set(ids)), sorted({row for row in ids if ids.count(row) > 1})
    for note in NOTES:  # nothing that looks like a row escapes the expression, and each is on its note's page
        anchors = re.findall(r'<a id="(.*?)">', page(note, language))
        assert anchors == [row[0] for row in rows_of(note, language)]
        assert all(re.fullmatch(rf"[ER]{note}-\d+b?", anchor) for anchor in anchors)


def test_both_languages_have_the_same_rows():
    english, chinese = map(rows, LANGUAGES)
    assert [row[0] for row in english] == [row[0] for row in chinese]
    for ours, theirs in zip(english, chinese, strict=True):
        assert VERDICTS[ours[2]] == theirs[2], ours[0]
        assert names(ours[4]) == names(theirs[4]) and ours[4:6] == theirs[4:6], ours[0]


def test_both_languages_have_the_same_numbers():
    """Those with a decimal point; the rest may be words in one of them."""
    for ours, theirs in zip(*map(rows, LANGUAGES), strict=True):
        numbers = [set(re.findall(r"\d+\.\d+", row[3])) for row in (ours, theirs)]
        assert numbers[0] == numbers[1], ours[0]


def test_what_needs_a_change_has_a_severity():
    for ours, theirs in zip(*map(rows, LANGUAGES), strict=True):
        assert SEVERITIES.get(ours[6], "") == theirs[6] and bool(ours[6]) == ours[0].startswith("E"), ours[0]
        assert ours[2] in ("right", "right under a condition") or ours[6], f"{ours[0]} is {ours[2]}"
        assert ours[2] != "right" or ours[6] in ("", "harmless"), ours[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_are_by_topic_and_lead_to_the_rest(language):
    """In a topic the worst comes first, and what holds comes last."""
    order = [*SEVERITIES] if not language else [*SEVERITIES.values()]
    other = {"": ".zh-CN", ".zh-CN": ""}[language]
    for note in NOTES:
        text = page(note, language)
        links = re.findall(r"\]\(([^)]*)\)", text)
        assert {f"note-{note}{other}.md", f"../../NOTES{language}.md", "../../tests/notes/"} <= set(links)
        topics = text.split("\n## ")[1:]
        assert len(topics) == page(note, other).count("\n## ") > 1
        for topic in topics:
            found = re.findall(f"^(?:{WRONG}|{RIGHT})", topic, re.MULTILINE)
            ranks = [order.index(row[3]) if row[0] else len(order) for row in found]
            assert ranks and ranks == sorted(ranks), topic[:40]


def test_named_code_exists_and_is_linked():
    for row, _, _, _, code, _, _ in rows(""):
        assert names(code) or code == "—", f"{row}: {code}"
        for name in names(code):
            script, *attributes = name.split(".")
            assert (ROOT / f"{script}.py").exists(), f"{row}: {name}"
            reduce(getattr, attributes, importlib.import_module(script))
        links = [f"[`{name}`](../../{name.split('.')[0]}.py)" for name in names(code)]
        assert code == (", ".join(links) or "—"), row


def test_rows_and_tests_belong_together():
    """Every test is named by one row, and its name is the row's number and a few words."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "tests" / "notes").glob("test_*.py")]
    functions = [node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    tests = [name for name in functions if name.startswith("test_")]
    named = [(row[0], name) for row in rows("") for name in names(row[5])]
    assert sorted(tests) == sorted(name for _, name in named)
    for row, name in named:
        assert re.fullmatch(rf"test_{row.replace('-', '_')}(_[a-z0-9]+)+", name), f"{row}: {name}"
    assert all(names(row[5]) or row[5] == "—" for row in rows(""))
    without = [row[0] for row in rows("") if row[5] == "—"]
    assert len(without) == 5, without


def test_headers_name_the_notes_page_and_no_rows():
    """A row's number means nothing to a reader of a script."""
    for script in EQUATIONS:  # all seven, and not what a user has put beside them
        text = (ROOT / f"{script}.py").read_text("utf-8")
        assert ast.get_docstring(ast.parse(text)).endswith(": NOTES.md"), script
        assert not re.search(r"\b[ER]\d{3}-\d", text), script
