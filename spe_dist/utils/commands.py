"""What the commands of this Python environment need that are started from here, and how they are ended."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def search_path() -> str:
    """PATH with the folder of this Python's commands (spe, deepspeed, ninja) first."""
    return os.pathsep.join(filter(None, [str(Path(sys.executable).parent), os.environ.get("PATH")]))


def command_variables() -> dict[str, str]:
    """Variables of the environment for commands: where they are found, and that they import no module from the folder
    that they run in. A `random.py` among somebody's data would be run in place of Python's.
    """
    variables = {"PATH": search_path()}
    here = {"", os.getcwd()}
    if not here & set(sys.path):  # else this process itself imports from there, as `python -m` does
        variables["PYTHONSAFEPATH"] = "1"
    return variables


def kill_with_descendants(process_id: int) -> None:
    """End a command and all that it has started at once, in whatever sessions: torchrun gives each rank its own."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        command = psutil.Process(process_id)
        for process in (command, *command.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
