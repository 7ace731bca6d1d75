"""Carries the shared blocks of one script into the others that have them, and shows what has changed.

    python tests/carry.py td3

What is shared by whom is in the tables of test_conventions.py. A block that is new in part 2 is put after the one that
comes before it. Part 1's blocks with lines of a script's own (OWN_LINES) are left to you, as are comments and imports.
"""

import difflib
import sys

from test_conventions import FAMILIES, OWN_LINES, PPO, PPO_SHARED, ROOT, SCRIPTS, SHARED, block, part_2, source


def carry(script: str, other: str) -> str:
    """The text of the other script with this one's blocks."""
    text, theirs = source(other), part_2(other)
    shared = SHARED | dict.fromkeys(PPO_SHARED, PPO)
    for name, scripts in shared.items():
        ours = block(script, name)
        if {script, other} <= set(scripts) and not any(own_name == name for _, own_name in OWN_LINES):
            text = text.replace(block(other, name), ours)
    before = ""
    for name, ours in part_2(script).items():
        groups = FAMILIES.get(name, (SCRIPTS,))
        if any({script, other} <= set(group) for group in groups):
            if name in theirs:
                text = text.replace(theirs[name], ours)
            else:
                blank_lines = "\n\n" if name.startswith("Run.") and before.startswith("    ") else "\n\n\n"
                text = text.replace(before, before + blank_lines + ours)
            before = ours
        else:
            before = theirs.get(name, before)
    return text


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].removesuffix(".py") not in SCRIPTS:
        sys.exit(f"usage: python tests/carry.py SCRIPT, one of {', '.join(SCRIPTS)}")
    script = sys.argv[1].removesuffix(".py")
    for other in SCRIPTS:
        if other != script:
            text, path = carry(script, other), ROOT / f"{other}.py"
            lines = [source(other).splitlines(True), text.splitlines(True)]
            sys.stdout.writelines(difflib.unified_diff(*lines, path.name, f"{path.name} with {script}.py's blocks"))
            path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
