# The public names, for type checkers and editors. `public.py` says where the program finds them.

from pytest_gpuclean.cleanup.interface import Cleaner as Cleaner
from pytest_gpuclean.cleanup.interface import Occasion as Occasion
from pytest_gpuclean.cleanup.interface import Skip as Skip
from pytest_gpuclean.errors import GpuCleanWarning as GpuCleanWarning
from pytest_gpuclean.memory.interface import Probe as Probe
from pytest_gpuclean.model import Unavailable as Unavailable
from pytest_gpuclean.model.cleanup import CleanupResult as CleanupResult
from pytest_gpuclean.model.cleanup import StepResult as StepResult
from pytest_gpuclean.model.leaks import Leak as Leak
from pytest_gpuclean.model.memory import Reading as Reading
from pytest_gpuclean.model.memory import Snapshot as Snapshot
from pytest_gpuclean.model.processes import LeftProcess as LeftProcess
from pytest_gpuclean.processes.families.interface import Family as Family
from pytest_gpuclean.processes.families.interface import Kind as Kind
from pytest_gpuclean.scripts.cleanups import cleanup_between_runs as cleanup_between_runs
from pytest_gpuclean.scripts.cleanups import cleanup_training_resources as cleanup_training_resources
from pytest_gpuclean.scripts.cleanups import comprehensive_cleanup as comprehensive_cleanup
from pytest_gpuclean.scripts.cleanups import quick_cleanup as quick_cleanup
from pytest_gpuclean.scripts.killing import force_kill_processes as force_kill_processes
from pytest_gpuclean.scripts.killing import kill_python_experiment_processes as kill_python_experiment_processes
from pytest_gpuclean.scripts.killing import kill_ros2_processes as kill_ros2_processes
from pytest_gpuclean.scripts.memory import clear_gpu as clear_gpu
from pytest_gpuclean.scripts.memory import clear_gpu_memory as clear_gpu_memory
from pytest_gpuclean.scripts.memory import clear_python_memory as clear_python_memory
from pytest_gpuclean.scripts.memory import clear_system_cache as clear_system_cache
from pytest_gpuclean.scripts.memory import get_memory_usage as get_memory_usage
from pytest_gpuclean.scripts.memory import on_cleanup as on_cleanup
from pytest_gpuclean.scripts.memory import snapshot as snapshot
from pytest_gpuclean.scripts.watching import watch as watch

__all__ = [
    "Cleaner",
    "CleanupResult",
    "Family",
    "GpuCleanWarning",
    "Kind",
    "Leak",
    "LeftProcess",
    "Occasion",
    "Probe",
    "Reading",
    "Skip",
    "Snapshot",
    "StepResult",
    "Unavailable",
    "cleanup_between_runs",
    "cleanup_training_resources",
    "clear_gpu",
    "clear_gpu_memory",
    "clear_python_memory",
    "clear_system_cache",
    "comprehensive_cleanup",
    "force_kill_processes",
    "get_memory_usage",
    "kill_python_experiment_processes",
    "kill_ros2_processes",
    "on_cleanup",
    "quick_cleanup",
    "snapshot",
    "watch",
]
