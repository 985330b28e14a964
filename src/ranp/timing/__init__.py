"""Measuring training steps: how long they take at any widths, as a model for `ChannelGraph.with_costs`.

A step is run at a few widths, and every operator of it is timed where it runs: in the memory and among the operators
that it has in training. `ranp.costs.time` predicts the time at other widths from that.
"""

from ranp.timing._clock import CpuClock
from ranp.timing._measure import measure_times
from ranp.timing._meet import meet_step_time, require_one_process
from ranp.timing._operators import StepRecord
from ranp.timing._recording import Recorded, StepRecorder
from ranp.timing._stopwatch import Stopwatch, spread_of, training_step
from ranp.timing._timer import StepTimer, narrowed, sample_widths, widths_of

__all__ = [
    "CpuClock",
    "Recorded",
    "StepRecord",
    "StepRecorder",
    "StepTimer",
    "Stopwatch",
    "measure_times",
    "meet_step_time",
    "narrowed",
    "require_one_process",
    "sample_widths",
    "spread_of",
    "training_step",
    "widths_of",
]
