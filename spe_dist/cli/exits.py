"""How every command ends: its exit status, and one line for an error that the user can correct.

    0    done
    1    failed: training went wrong or lost a rank, shards are damaged, a piece of an experiment failed, or
         `spe doctor` found problems
    2    a user's error, reported in one line
    3    training became unstable: numbers that are not finite, or a loss that jumped; nothing of that is saved
    75   stopped as asked (a signal, the file OUTPUT/STOP, a time limit): all is saved, the work is not finished, and
         the same command (for a training with --resume auto) continues it
    130  ended at once by Ctrl-C, without saving what was not saved before

A script that goes on only after 0 never takes a part for the whole: `spe pretrain ... && spe export ...`. Of several
ranks only rank 0 ends with 75, after the others, which end with 0. What launchers make of it (deepspeed 0.19.8, torch
2.13, Slurm 22.05): see `spe_dist.distributed.stop`.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable

from spe_dist.cli.options.extras import missing
from spe_dist.errors import DivergenceError, SpeError, TrainingFailure, UnstableTraining
from spe_dist.utils.printable import drop, printable_output
from spe_dist.utils.threads import spin_briefly
from spe_dist.utils.wording import one_line

DONE, FAILED, USER_ERROR, UNSTABLE, INTERRUPTED = 0, 1, 2, 3, 130
STOPPED = 75  # EX_TEMPFAIL of sysexits.h, "try again later"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_FAULTS = (*DISK_FULL, errno.EROFS, errno.EIO)
OTHER_RANKS_WAIT_S = 3.0  # for the launcher, which ends the others once rank 0 has said the same


def stopped_status(rank: int, ranks: int) -> int:
    """The exit status of a rank whose run was stopped and is saved: STOPPED for rank 0, DONE for the others.

    A launcher takes the first process that leaves with another status than 0 for a failure and ends the rest, whose
    status by signal would become the run's. Rank 0 therefore waits until the others have left.
    """
    if rank:
        return DONE
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") not in ("", "0"):
        return DONE  # torchrun --max_restarts would start again what was just asked to stop
    if ranks > 1:
        time.sleep(OTHER_RANKS_WAIT_S)
        print(f"status {STOPPED}: stopped and saved, which a launcher may report as a failure", flush=True)
    return STOPPED


def run_command(
    command: Callable[[], int | None],
    errors: tuple[type[Exception], ...] = (SpeError,),
    interrupted: str = "interrupted",
    lasting: bool = False,
) -> int:
    """Run a command and return its exit status: its own (none: 0), or 2 for one of `errors`, or 130 for Ctrl-C.

    interrupted: what is said then. Where the reader of its output leaves early (`... | head`) it ends quietly with 0,
    or where it is `lasting`, since what it makes are files, it goes on without saying more. What an output cannot
    encode, such as the name of a file that is no UTF-8, is written with backslashes, and so is what would control a
    terminal; where standard output is closed, nothing is said.
    """
    with printable_output(lasting):
        return _run_command(command, errors, interrupted)


def _run_command(command: Callable[[], int | None], errors: tuple[type[Exception], ...], interrupted: str) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _status_of(command)
        _flush()
    except BrokenPipeError:
        drop(sys.stdout)
        return DONE
    except errors as error:
        return _user_error(str(error))
    except ModuleNotFoundError as error:
        return _user_error(_missing_extra(error))
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        drop(sys.stdout)
        print(f"error: the output cannot be written: {error.strerror}; free space, or write elsewhere", file=sys.stderr)
        return USER_ERROR
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        return _user_error(f"out of memory ({one_line(error)}); give less at a time, or use a machine with more")
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    return status


@printable_output(lasting=True)
def run_training(program: Callable[[], int]) -> int:
    """Run a training program, and return its exit status as the table above has it.

    It goes on, and saves when it is stopped, where nobody reads its output any more.
    """
    try:
        return _status_of(program)
    except (SpeError, TrainingFailure, DivergenceError) as error:
        _stop_watching()
        if _rank() != "0":
            time.sleep(OTHER_RANKS_WAIT_S)
        _report(str(error))
        if isinstance(error, UnstableTraining):
            return UNSTABLE
        return USER_ERROR if isinstance(error, SpeError) else FAILED
    except ModuleNotFoundError as error:
        _report(_missing_extra(error))
        return USER_ERROR
    except (RuntimeError, MemoryError) as error:
        if _out_of_memory(error):  # of this rank alone: the others must notice that it ends
            _report(
                f"out of memory ({one_line(error)}): lower micro_batch_sentences, queue_keys or the model's sizes; "
                "--dry_run says what a rank needs. Checkpoints are kept; continue with --resume auto"
            )
            return USER_ERROR
        if not isinstance(error, RuntimeError) or not _connection_lost(error):
            raise
        traceback.print_exc()
        _report(
            "the connection to another rank is lost: that rank has ended, as its own last lines may tell, or did not "
            "answer within timeout_s. Checkpoints are kept; continue with --resume auto"
        )
        return FAILED
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FAULTS:
            raise
        _stop_watching()
        what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror)
        _report(f"{what}; correct that, then continue with --resume auto from the newest checkpoint, if there is one")
        return USER_ERROR
    except KeyboardInterrupt:
        if _rank() == "0":
            sys.stdout.flush()
            print(
                "interrupted without saving; checkpoints made before are kept, and the same command with --resume auto "
                "goes on from the newest",
                file=sys.stderr,
            )
        return INTERRUPTED


def _status_of(command: Callable[[], int | None]) -> int:
    spin_briefly()  # while torch is not loaded yet: the command does that
    try:
        return command() or DONE
    except SystemExit as ended:  # of argparse, once the help is printed
        if ended.code:
            raise
        return DONE


def _missing_extra(error: ModuleNotFoundError) -> str:
    """What to install, in one line. Raises the error where what is missing is no package that we name."""
    if message := missing(error.name or ""):
        return message
    raise error


def _user_error(message: str) -> int:
    try:
        _flush()
    except OSError:  # the error matters more
        drop(sys.stdout)
    print(f"error: {message}", file=sys.stderr)
    return USER_ERROR


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _stop_watching() -> None:
    """No longer look for ranks that do not arrive: this one leaves for a reason of its own."""
    attendance = sys.modules.get("spe_dist.distributed.joining.attendance")
    if attendance is not None:
        attendance.close_all()
    watch = sys.modules.get("spe_dist.distributed.joining.watch")
    if watch is not None:
        watch.stop_watching()


def _connection_lost(error: RuntimeError) -> bool:
    """Whether a collective failed because its other ranks have gone. gloo has no type of error of its own."""
    backend = sys.modules.get("torch.distributed")
    return "gloo" in str(error) or (backend is not None and isinstance(error, backend.DistError))


def _out_of_memory(error: Exception) -> bool:
    """Whether memory of the machine or a GPU did not suffice. torch has no type of error for that of the machine."""
    torch = sys.modules.get("torch")
    of_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return of_gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _rank() -> str:
    return os.environ.get("RANK", "0")


def _report(message: str) -> None:
    sys.stdout.flush()
    print(f"{f'rank {_rank()}: ' if _rank() != '0' else ''}error: {message}", file=sys.stderr, flush=True)
