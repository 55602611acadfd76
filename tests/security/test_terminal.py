"""Names, labels and messages of others reach no terminal as commands to it."""

from __future__ import annotations

import re
import sys

import pytest
from project import ROOT

from spe_dist.cli.exits import run_command, run_training
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils.printable import printable

HARMFUL = "x\x1b]0;title\x07\x1b[2J\x9b31m\x08\u202ey"  # title, clear, colour, backspace, right to left
SHOWN = r"x\x1b]0;title\x07\x1b[2J\x9b31m\x08\u202ey"
ORDINARY = "Zürich 東京 \u0645\u0631\u062d\u0628\u0627 👩\u200d🔬 \\ ~"


def test_control_characters_are_written_with_backslashes_and_all_else_stays():
    assert printable(HARMFUL) == SHOWN
    assert printable(f"{ORDINARY}\t\r\n") == f"{ORDINARY}\t\r\n"


def test_an_error_is_one_line_whatever_names_it_holds():
    assert str(DataError(f"a\nerror: run this\n{HARMFUL} is missing")) == rf"a\nerror: run this\n{SHOWN} is missing"
    assert str(ConfigError("two lines:", "a\nb")) == "two lines:\na\\nb"


@pytest.mark.parametrize("run", [run_command, run_training])
def test_what_commands_print_controls_no_terminal(run, capsys):
    before = sys.stdout, sys.stderr

    def command() -> int:
        print(HARMFUL, ORDINARY)
        sys.stderr.writelines([HARMFUL, "\n"])
        sys.stdout.buffer.write(b"bytes\n")
        raise DataError(HARMFUL)

    assert run(command) == 2
    assert (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert sorted(out.split("\n")) == sorted([f"{SHOWN} {ORDINARY}", "bytes", ""])
    assert err == f"{SHOWN}\nerror: {SHOWN}\n"


def test_commands_that_are_proposed_quote_the_names_in_them():
    """Who copies `next: spe pretrain --shards 'a b;touch X'` runs spe and nothing else."""
    quoted = ("shlex.", "folder", "start")  # the last two hold what was quoted a line before
    found = [
        (path.name, name)
        for path in (ROOT / "spe_dist").rglob("*.py")
        for line in re.findall(r"next: spe .*", path.read_text(encoding="utf-8"))
        for name in re.findall(r"{([^}]+)}", line)
    ]
    assert len(found) >= 5 and [where for where in found if not where[1].startswith(quoted)] == []
