"""What every helping process begins with: it ends with its parent, and leaves signals to it.

Imports no torch.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from multiprocessing.connection import Listener, wait
from types import TracebackType

from tasks.errors import TaskError

PR_SET_PDEATHSIG = 1
"""linux/prctl.h: the signal that a process gets when its parent ends"""
SECONDS = 1.0
"""how often it is looked at whether the parent is there, where the system does not tell"""
LEFT_TO_THE_PARENT = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
"""signals that ask a command to end"""


def worker_init(_: int = 0) -> None:
    """The `worker_init_fn` of every DataLoader, and what any other helping process calls first."""
    leave_signals_to_the_parent()
    end_with_the_parent()
    sys.excepthook = say_unless_parting


def refuse_long_tmpdir() -> None:
    """Raise `TaskError` where the sockets by which processes meet have no place in TMPDIR.

    A loading process would print a traceback for each batch, and its parent wait for ever.
    """
    if sys.platform == "win32":  # whose processes meet elsewhere
        return
    try:
        Listener(family="AF_UNIX").close()
    except OSError as error:
        if "too long" not in str(error):
            raise
        folder = tempfile.gettempdir()
        raise TaskError(
            f"TMPDIR {folder} is too long ({len(os.fsencode(folder))} bytes) for the sockets of "
            "processes in it; set a shorter one, such as TMPDIR=/tmp"
        ) from None


def leave_signals_to_the_parent() -> None:
    """Signals often reach the whole group; a worker that dies of one would spoil the saving."""
    for number in LEFT_TO_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)


def end_with_the_parent() -> None:
    """Have this process end when its parent does, killed perhaps, whatever it is doing.

    Left to itself it may wait for ever for somebody to read from a pipe that is full.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # The parent may have gone before; a fork server stands between the two and ends soon after.
    if not (die_with_the_parent() and os.getppid() == parent.pid):
        watch = threading.Thread(target=outlast, args=(parent.sentinel,), daemon=True)
        watch.start()


def die_with_the_parent() -> bool:
    """Ask the system, which can do it on Linux, to kill this process; whether it will.

    It counts the end of the thread that started this process as the end of the parent.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0


def outlast(sentinel: int) -> None:
    """Wait for the parent's end; then end this process without waiting for its other threads."""
    first = os.getppid()
    while os.getppid() == first and not wait([sentinel], SECONDS):
        pass
    os._exit(1)


def say_unless_parting(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a traceback, but none of a connection to a parent that has gone or is about to."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
