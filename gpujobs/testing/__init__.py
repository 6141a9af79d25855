"""A scripted machine: GPUs that do not exist, for our tests and for yours.

``GPUJOBS_SCENARIO=demo gpujobs status`` shows two idle A100s. ``GPUJOBS_SCENARIO=/path/to/lab.toml`` shows the
machine that file describes; its grammar stands in :mod:`gpujobs.testing.scenario`. A job uses memory there by saying
so, and gives it back by ending::

    from gpujobs.testing import use_gpu_memory

    use_gpu_memory("4GiB")                  # on the first device that CUDA_VISIBLE_DEVICES leaves to this process
    use_gpu_memory("2GiB", device=1)        # on the second one

Any other process of any user that looks at the same scenario sees it, as it would see a real one through the driver.
"""

from gpujobs.testing.faults import Fault, FaultKind
from gpujobs.testing.live import free_gpu_memory, live_folder, use_gpu_memory
from gpujobs.testing.scenario import Scenario
from gpujobs.testing.scripted import ScriptedDriver, ScriptedHost
from gpujobs.testing.source import VARIABLE, load, scenario_in

__all__ = [
    "VARIABLE",
    "Fault",
    "FaultKind",
    "Scenario",
    "ScriptedDriver",
    "ScriptedHost",
    "free_gpu_memory",
    "live_folder",
    "load",
    "scenario_in",
    "use_gpu_memory",
]
