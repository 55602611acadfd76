"""The kinds of faults. Each is a function that draws its moment from the case's own random numbers and puts it in.

They come in turn in the order of `KINDS`; one that this machine cannot have raises `Skipped`.
"""

from __future__ import annotations

from tests.faults.kinds import drawing, files, kills, launchers, nodes, numbers, signals, slurm

KINDS = {
    name: function
    for module in (kills, signals, numbers, files, launchers, nodes, slurm)
    for name, function in drawing.KINDS.items()
    if function.__module__ == module.__name__
}
