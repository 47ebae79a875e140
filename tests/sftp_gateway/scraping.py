"""What a gateway tells by its metrics, as Prometheus reads it."""

from __future__ import annotations

import http.client
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from sftp_gateway import SFTPGateway


def fetch(address: tuple[str, int], path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def scraped(address: tuple[str, int]) -> Callable[..., float]:
    """Scrape once; return a function that looks a value up by name and labels."""
    status, text = fetch(address, "/metrics")
    assert status == 200
    values = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return lambda name, **labels: values.get((f"sftp_gateway_{name}", frozenset(labels.items())), 0.0)


def address(gateway: SFTPGateway) -> tuple[str, int]:
    assert gateway.metrics_address is not None
    return gateway.metrics_address
