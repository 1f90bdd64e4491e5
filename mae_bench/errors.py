"""What can go wrong that is not a fault in the program."""


class RunError(RuntimeError):
    """Bad input to a run, or a run that cannot go on. The message is one line for the user."""


class ProcessError(RunError):
    """What one of several processes met alone, so that no other can tell the user."""


class Interrupted(RunError):
    """Stopped by a signal after saving; the same command continues the run."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
