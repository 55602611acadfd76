"""What every build begins with, on one machine or many: checked inputs, the plan, and the output folder for itself."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spe_dist.data.build.jobs import refuse_active_jobs
from spe_dist.data.build.plan import Plan, remove_build
from spe_dist.data.build.settings import BuildSettings
from spe_dist.data.text.files import find_files, refuse_pipes, warn_of_left_out_files
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils.files import shared_name

LOCK_TIMEOUT_S = 10.0  # workers of a run that was killed hold its lock for a moment


@dataclass(frozen=True)
class BuildRequest:
    """Checked inputs of a build.

    tokenizer: None where a vocabulary is trained
    tokenizer_name: under which the manifest has it
    """

    files: list[Path]
    output: Path
    settings: BuildSettings
    tokenizer: Any
    tokenizer_name: str

    @classmethod
    def check(
        cls, inputs: Sequence[str], output: str, tokenizer: str | None, settings: Mapping[str, Any]
    ) -> BuildRequest:
        """Find the input files and load the tokenizer.

        Raises:
            ConfigError: a setting is out of range or contradicts another.
            DataError: the text or the tokenizer cannot be used as asked.
        """
        from spe_dist.data.text.vocabulary import load_tokenizer

        build_settings = BuildSettings(**settings)
        if (tokenizer is None) == (build_settings.train_vocab is None):
            raise ConfigError(
                "give a tokenizer (name, folder or vocab.txt) or train_vocab (pieces to train): one of the two"
            )
        folder = Path(output).expanduser()
        files = find_files(inputs, leave_out=folder)
        refuse_pipes(files)
        warn_of_left_out_files(inputs, leave_out=folder)
        loaded = load_tokenizer(tokenizer, build_settings.do_lower_case) if tokenizer else None
        return cls(files, folder, build_settings, loaded, shared_name(tokenizer) if tokenizer else "trained")

    @property
    def input_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    def plan(self) -> Plan:
        from spe_dist.data.text.vocabulary import lower_cases, vocabulary_sha256

        tokenizer = self.tokenizer
        identity = (
            {"sha256": vocabulary_sha256(tokenizer), "lower_cases": lower_cases(tokenizer)} if tokenizer else None
        )
        return Plan.make(self.files, self.settings, identity)

    @contextlib.contextmanager
    def open_output(self, overwrite: bool) -> Iterator[None]:
        """The output folder, made where there is none and locked; an earlier build in it removed with `overwrite`.

        Raises:
            DataError: another process writes there, or the disk refuses it.
        """
        from filelock import FileLock, Timeout

        folder = self.output
        existed = folder.exists()
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = folder / ".lock"
            try:
                with FileLock(str(lock), timeout=LOCK_TIMEOUT_S):
                    try:
                        refuse_active_jobs(folder)
                        if overwrite:
                            remove_build(folder)
                        yield
                    finally:
                        lock.unlink(missing_ok=True)
            except Timeout as error:
                raise DataError(
                    f"{folder} is being written by another process; wait for it, or choose another"
                ) from error
            finally:
                if not existed:
                    with contextlib.suppress(OSError):  # not empty, unless the build failed before it wrote anything
                        folder.rmdir()


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What the disk refuses, as errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"no space left for {folder}; free some (about the size of the decompressed text) and run the same "
                "command again: it continues where it stopped"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
            raise DataError(f"{folder} cannot be written: {error}; choose another output folder") from error
        raise
