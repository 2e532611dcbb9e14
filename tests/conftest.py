"""What must be so before any test imports a library: no test asks the network anything, and none fails by
chance."""

import os
import random
import sys
from operator import attrgetter

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DS_ACCELERATOR"] = "cpu"
# Generated examples are the same each time, however long one of them takes on a busy machine.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _the_same_random_numbers() -> None:
    """Whatever ran before in the same process."""
    random.seed(1)
    for name, seeded in (("numpy", "random.seed"), ("torch", "manual_seed")):
        if name in sys.modules:
            attrgetter(seeded)(sys.modules[name])(1)
