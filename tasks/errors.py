"""Errors of tasks."""


class TaskError(ValueError):
    """Bad input to a task. The message is one line for the user: what, expected, what to do."""


class AloneError(TaskError):
    """What one of several processes met alone, so that no other can tell the user."""
