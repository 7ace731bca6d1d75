"""Makes the scripts in the repository's root importable, keeps PyTorch to one thread, and lets the longest files of
tests come first; compares two trainings.
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
torch.set_num_threads(1)


LONGEST = "test_runs", "test_recipes", "test_failures", "test_loop"  # first, so that none comes last


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # of pytest-xdist, which would begin with the files of most tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def apart(start: list[torch.Tensor], one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """How far two results of training are from each other, as a share of how far the first is from where both began.

    Two kernels round differently, and Adam makes whole steps of the difference where a gradient is almost 0. On a CPU
    other kernels gave a share of 0.002 at most, other random numbers one of 0.2 or more; on a GPU it is not measured.
    """
    start, one, other = (torch.cat([x.flatten() for x in parameters]) for parameters in (start, one, other))
    return ((one - other).norm() / (one - start).norm()).item()
