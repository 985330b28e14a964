"""Several processes out of one, as torchrun would start them, but with the imports made once."""

import os
import traceback
from collections.abc import Callable


def forked(count: int, work: Callable[[int], None]) -> int:
    """Run `work(rank)` in as many forks of this process; 0 if none of them failed."""
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            try:
                work(rank)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return int(any(statuses))
