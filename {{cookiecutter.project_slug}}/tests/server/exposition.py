"""What `/metrics` says."""

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from ..conftest import Service

DURATION = "http_server_request_duration_seconds"
ATTEMPTS = "gen_ai_client_operation_duration_seconds"
FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
TOKENS = "gen_ai_client_token_usage_total"
CHAT = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "gpt-test"}

Series = tuple[str, frozenset[tuple[str, str]]]


def scrape(client: httpx2.Client) -> dict[Series, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def value(client: httpx2.Client, name: str, **labels: str) -> float:
    """Of all series that have these labels together."""
    wanted = frozenset(labels.items())
    return sum(v for (found, has), v in scrape(client).items() if found == name and wanted <= has)


class Increase:
    """How much the metrics have grown since."""

    def __init__(self, service: Service) -> None:
        self._service = service
        service.settle()
        self._before = scrape(service.client)

    def series(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        self._service.settle()  # a request is counted once its answer is sent
        now = scrape(self._service.client)
        grown = {series: now[series] - self._before.get(series, 0) for series in now}
        return {labels: by for (found, labels), by in grown.items() if found == name and by}

    def one(self, name: str) -> tuple[dict[str, str], float]:
        """The labels of the only series that has grown, and by how much."""
        ((labels, by),) = self.series(name).items()
        return dict(labels), by

    def requests(self) -> list[tuple[str, str, str, str]]:
        """Method, route, status and error of all that ended but those for the metrics."""
        found = [dict(labels) for labels in self.series(f"{DURATION}_count")]
        order = ("http_request_method", "http_route", "http_response_status_code", "error_type")
        rows = [(has[order[0]], has[order[1]], has[order[2]], has[order[3]]) for has in found]
        return [row for row in rows if row[1] not in ("/metrics", "/livez")]
