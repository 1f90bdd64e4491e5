"""Several processes of one run, as torchrun starts them."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from mae_bench.errors import RunError

Result = TypeVar("Result")


def first_alone(work: Callable[[], Result]) -> Result:
    """Let the first process do `work`; its result, or its error, is every process's.

    An error of its own would end the first process and leave the others waiting for it.
    """
    outcome: list = [None, None]
    if PartialState().is_main_process:
        try:
            outcome[0] = work()
        except (RunError, OSError) as error:
            outcome[1] = error
    result, fault = broadcast_object_list(outcome)
    if fault is not None:
        raise fault
    return result
