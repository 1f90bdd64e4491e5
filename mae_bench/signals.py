"""Signals that ask a command to end: the first is obeyed in order, a second one at once.

Imports no torch.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mae_bench.errors import Interrupted
from tasks.workers import LEFT_TO_THE_PARENT

ASKING = LEFT_TO_THE_PARENT
"""Ctrl-C; the end of a job; the loss of the terminal, unless nohup has it ignored; and what
clusters are told to send before the end of a job"""
WARNING = ("SIGUSR1", "SIGUSR2")
"""of these, those that an end follows by itself: they neither press, nor count as the first"""
ONE = 1.0
"""seconds within which signals count as one: launchers pass on what the terminal sent as well"""
LEAVING = 20.0
"""seconds that the program may take to leave once its work has ended"""
HELPERS = 5.0
"""seconds that helping processes may take to end when they are killed"""


END = b"\0"
"""for the thread that watches; no signal has this number"""


class Stopped(BaseException):
    """A signal asks the command to end; for Ctrl-C's there is KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class WaitingTooLong(BaseException):
    """A signal came, and what is waited for does not."""


@contextmanager
def obeyed() -> Iterator[None]:
    """While open, the first signal raises `Stopped` or KeyboardInterrupt in the main thread.

    Helping processes that hang then do not hold up the end.
    """
    owner, raised = os.getpid(), False

    def obey(number: int, _: Any) -> None:
        nonlocal raised
        if not raised and os.getpid() == owner:  # else in a helping process that is just starting
            raised = True
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    try:
        with handled_by(obey):
            yield
    except (KeyboardInterrupt, Stopped, Interrupted):
        end_helpers()
        raise


class Noted:
    """Whether a signal has come, for a loop that ends in its own time; see `noted`."""

    def __init__(self, patience: float) -> None:
        self.number, self.patience = 0, patience
        self.since, self.is_waiting = 0.0, False

    def note(self, number: int, _: Any) -> None:
        if not self.number:
            self.number, self.since = number, time.monotonic()
            if self.patience and hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, self.patience, 1.0)
        self.look()

    def look(self, *_: Any) -> None:
        if self.number and self.is_waiting and time.monotonic() - self.since >= self.patience:
            raise WaitingTooLong

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what may take for ever; a signal then raises `WaitingTooLong`."""
        self.is_waiting = True
        try:
            self.look()
            yield
        finally:
            self.is_waiting = False


@contextmanager
def noted(patience: float) -> Iterator[Noted]:
    """While open, signals are noted instead of obeyed.

    But in `Noted.waiting` they end the wait, `patience` seconds after they came. A signal that
    nobody has asked for is obeyed in the end.
    """
    found = Noted(patience)
    with handled_by(found.note) as before:
        timed = bool(before and patience and hasattr(signal, "SIGALRM"))  # not on Windows
        alarm = signal.signal(signal.SIGALRM, found.look) if timed else None
        try:
            yield found
        finally:
            if alarm is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, alarm)
    if found.number and callable(handler := before[found.number]):
        handler(found.number, None)
    elif found.number:
        signal.raise_signal(found.number)


Handlers = dict[int, Any]


@contextmanager
def handled_by(handler: Callable[[int, Any], None]) -> Iterator[Handlers]:
    """While open, `handler` gets the signals; gives the handlers before.

    A second signal ends the program at once, but for a cluster's warning. In a thread nothing
    changes: signals go elsewhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    numbers = [n for n in ASKING if not is_left_ignored(n)]
    with second_at_once():
        before = {number: signal.signal(number, handler) for number in numbers}
        try:
            yield before
        finally:
            for number, former in before.items():
                signal.signal(number, signal.SIG_DFL if former is None else former)


def is_left_ignored(number: int) -> bool:
    """Whether whoever started us wants work to go on when the terminal is lost, as nohup does.

    Or when a cluster warns, as a batch script may.
    """
    can_be = signal.Signals(number).name in ("SIGHUP", *WARNING)
    return can_be and signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def second_at_once() -> Iterator[None]:
    """While open, a thread ends the program on a second signal, whatever its main thread does.

    That may be in code that never comes back, as for a file on a network that is gone.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    if before != -1:  # one that is open already watches, or another library's
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        reader.close()
        writer.close()
        yield
        return
    thread = threading.Thread(target=watch, args=(reader,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        writer.send(END)  # closing it says nothing while helping processes have it open too
        thread.join()
        writer.close()
        reader.close()


def watch(reader: socket.socket) -> None:
    """Read the numbers of signals as they come, to the end."""
    first: float | None = None
    while END not in (numbers := reader.recv(64)):
        for number in numbers:
            if number not in ASKING or signal.Signals(number).name in WARNING:
                continue
            now = time.monotonic()
            first = now if first is None else first
            if now - first >= ONE:
                end_at_once(number)


def end_at_once(number: int) -> None:
    name = signal.Signals(number).name
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # a progress bar has hidden the cursor
        os.write(2, f"mae-bench: ended at once by a second signal, {name}\n".encode())
    for child in helpers():
        child.kill()
    os._exit(128 + number)


def end_helpers() -> None:
    """Kill the helping processes, which otherwise are waited for at the end, for ever perhaps."""
    if not helpers():
        return
    # torch's handler would raise an error about each of them.
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if hasattr(signal, "SIGCHLD") else None
    try:
        for child in helpers():
            child.kill()
        for child in helpers():
            child.join(HELPERS)
    finally:
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, before)


def helpers() -> list[Any]:
    """Processes that are to end with this one."""
    return [child for child in multiprocessing.active_children() if child.daemon]


def leave_soon(code: int) -> None:
    """Have the program end with `code` soon, even if something holds up its end."""

    def leave() -> None:
        time.sleep(LEAVING)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a traceback would say nothing by now
    for name in WARNING:
        if hasattr(signal, name):  # the work is done, and the exit code is to say so
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=leave, daemon=True).start()
