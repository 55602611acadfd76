"""What holds for every reader and any file: it reads it, or raises one SpeError of one line; soon, in little memory."""

from __future__ import annotations

import random
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spe_dist.errors import SpeError
from tests.faults.fuzz.damage import Damage

SECONDS = 5.0  # CPU time of one reading
GROWTH_MIB = 512  # of the process's peak, in one reading


@dataclass(frozen=True)
class Reader:
    """One kind of file and what reads it.

    prepare(folder) puts sound files into an empty folder and gives the path of the one to damage; read(path) reads it
    (where it stands in a folder, with what is beside it).
    """

    name: str
    damage: Damage
    prepare: Callable[[Path], Path]
    read: Callable[[Path], object]


class Fuzz:
    """A reader, its sound files in a folder, and the faults that it showed."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader = reader
        self.path = reader.prepare(folder)
        self.sound = self.path.read_bytes()
        self.readings = self.refused = 0
        reader.read(self.path)  # a sound file is read

    def fault(self, seed: int) -> str | None:
        """What is wrong with how the file that `seed` damages is read; None where nothing is."""
        self.path.write_bytes(self.reader.damage(self.sound, random.Random(seed)))
        peak, began = _peak_mib(), time.process_time()
        try:
            self.reader.read(self.path)
        except SpeError as error:
            self.refused += 1
            text = str(error)
            if "\n" in text or "\r" in text or len(text) > 2_000 or not text.strip():
                return f"a message that is not one line: {text[:300]!r}"
        except MemoryError:
            return "MemoryError"
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "spe_dist" in frame.filename]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else "outside"
            return f"{type(error).__name__} in {where}: {str(error)[:200]!r}"
        finally:
            self.readings += 1
        seconds, growth = time.process_time() - began, _peak_mib() - peak
        if seconds > SECONDS:
            return f"took {seconds:.0f} s"
        if growth > GROWTH_MIB:
            return f"took {growth:,.0f} MiB"
        return None


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
