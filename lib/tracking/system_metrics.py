"""Load of the machine while a stage runs, measured by MLflow's own monitors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

SECONDS = 10.0


class SystemMetrics(threading.Thread):
    """Tells `system/...` every ten seconds. MLflow's own thread asks the store before every sample, and its
    end waits for the store; this one only tells."""

    def __init__(self, tell: Callable[[dict[str, float], int], None], first_step: int) -> None:
        super().__init__(name="system metrics", daemon=True)
        self._tell, self._step = tell, first_step
        self._stopped = threading.Event()

    def run(self) -> None:
        from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL

        monitors = _monitors()
        while not self._stopped.wait(MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SECONDS):
            found: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                found |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            self._tell(found, self._step)
            self._step += 1

    def stop(self) -> None:
        self._stopped.set()
        self.join(1.0)


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        return [*monitors, GPUMonitor()]
    except Exception:  # no GPU, or no library for it
        return monitors
