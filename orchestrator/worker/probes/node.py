"""What the machine of a rank is doing: processors, memory, disk and network, through psutil.

The names and units are those of MLflow's own `SystemMetricsMonitor`, so that MLflow shows them on
its page of system metrics. That monitor itself writes to the store from wherever it runs; these go
the way of every other record, through the spool and the one writer, so that a node needs no route
to the store and an outage loses nothing.

Source: mlflow 3.17.2, system_metrics/metrics/cpu_monitor.py, disk_monitor.py, network_monitor.py.
"""

import os
import time

import psutil

from orchestrator.measure.sample import NodeSample

EVERY_S = 10.0
"""Seconds between two samples, as MLflow's monitor has it."""
_MEGABYTE = 1e6


class NodeMonitor:
    """Samples one machine now and then; one of its ranks asks."""

    def __init__(self, *, node: str, rank: int) -> None:
        """Begin to count.

        Args:
            node: the machine's name.
            rank: who asks.
        """
        self._node = node
        self._rank = rank
        self._n_told = 0
        self._told_s: float | None = None
        network = psutil.net_io_counters()
        self._received, self._sent = network.bytes_recv, network.bytes_sent
        # The first answer would be since the machine was started.
        psutil.cpu_percent()

    def sample(self, *, now_s: float) -> NodeSample | None:
        """Look at the machine, unless that was done a moment ago; takes a millisecond.

        Args:
            now_s: a clock that only goes forward, in seconds.
        """
        if self._told_s is not None and now_s - self._told_s < EVERY_S:
            return None
        self._told_s = now_s
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
        network = psutil.net_io_counters()
        number, self._n_told = self._n_told, self._n_told + 1
        return NodeSample(
            node=self._node,
            rank=self._rank,
            time_unix_s=time.time(),
            number=number,
            values={
                "cpu_utilization_percentage": psutil.cpu_percent(),
                "system_memory_usage_megabytes": memory.used / _MEGABYTE,
                "system_memory_usage_percentage": memory.used / memory.total * 100,
                "disk_usage_percentage": disk.percent,
                "disk_usage_megabytes": disk.used / _MEGABYTE,
                "disk_available_megabytes": disk.free / _MEGABYTE,
                "network_receive_megabytes": (network.bytes_recv - self._received) / _MEGABYTE,
                "network_transmit_megabytes": (network.bytes_sent - self._sent) / _MEGABYTE,
            },
        )
