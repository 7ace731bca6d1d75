"""The guide to the notes: its examples run as they stand, it is two screens long, and every link leads somewhere."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "benchmark" / "claims"
GUIDES = [ROOT / "NOTES.md", ROOT / "NOTES.zh-CN.md"]
FILES = [*GUIDES, *sorted(PAGES.glob("*.md")), ROOT / "benchmark" / "notes" / "README.md"]
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]


def examples(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PAGES / name).read_text("utf-8"), re.DOTALL)


def expected(code: str) -> list[str]:
    """What each print shows, by the comments."""
    return re.findall(r"  # -> (.*)", code)


ENGLISH = examples("examples.md")


def test_both_languages_have_the_same_examples():
    assert examples("examples.zh-CN.md") == ENGLISH and len(ENGLISH) == 6


@pytest.mark.parametrize("code", ENGLISH, ids=range(1, len(ENGLISH) + 1))
def test_example_prints_what_it_says(code):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "example", "exec"), {})
    assert expected(code) and printed.getvalue().splitlines() == expected(code)
    assert len(expected(code)) == code.count("print("), "every print has its value"


@pytest.mark.parametrize("code", ENGLISH, ids=range(1, len(ENGLISH) + 1))
def test_example_is_short_and_needs_torch_alone(code):
    modules = re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
    assert set(modules) <= {"torch", "math"}
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert 5 <= len(lines) <= 8 and all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("path", GUIDES, ids=["NOTES.md", "NOTES.zh-CN.md"])
def test_guide_is_two_screens(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 100 and len(text.encode()) <= 8192


def test_both_guides_have_the_same_parts():
    """The same code, the same links in the same order, and headings of the same levels."""
    english, chinese = (path.read_text("utf-8") for path in GUIDES)
    assert sorted(re.findall(r"`[^`]+`", english)) == sorted(re.findall(r"`[^`]+`", chinese))
    assert re.findall("^#+ ", english, re.MULTILINE) == re.findall("^#+ ", chinese, re.MULTILINE)
    links = [re.findall(r"\]\(([^)]+)\)", text.replace(".zh-CN", "")) for text in (english, chinese)]
    assert links[0] == links[1]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_links_and_anchors_exist(path):
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`]*`", "", path.read_text("utf-8"), flags=re.DOTALL))
    assert links
    for link in links:
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not anchor or f'<a id="{anchor}"></a>' in target.read_text("utf-8"), link


def test_pages_come_in_both_languages():
    names = {path.name for path in PAGES.glob("*.md")}
    assert {name for name in names if "zh-CN" in name} == {
        name.replace(".md", ".zh-CN.md") for name in names if "zh-CN" not in name
    }
