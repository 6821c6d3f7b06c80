import json
import re
from typing import Any

import pytest

from .conftest import Service, app, make_settings
from dev.offline_openai import OfflineOpenAI

PROBLEM = "application/problem+json"


def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get("/openapi.json").json()
    return found


def responses(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        response
        for operations in found["paths"].values()
        for operation in operations.values()
        for response in operation["responses"].values()
    ]


@pytest.mark.parametrize(
    ("endpoint", "media_type"),
    [("/v1/chat", "application/json"), ("/v1/chat/stream", "text/event-stream")],
)
def test_openapi_says_what_an_endpoint_answers(
    endpoint: str, media_type: str, service: Service
) -> None:
    answers = document(service)["paths"][endpoint]["post"]["responses"]
    assert set(answers.pop("200")["content"]) == {media_type}
    assert {status: set(answer["content"]) for status, answer in answers.items()} == {
        status: {PROBLEM}
        for status in ("400", "401", "413", "422", "429", "500", "502", "503", "504", "default")
    }


def test_the_documentation_is_a_page_that_bears_the_name_of_the_project(service: Service) -> None:
    page = service.client.get("/docs")
    assert "text/html" in page.headers["content-type"]
    assert f"<title>{document(service)['info']['title']} - Swagger UI</title>" in page.text


def test_operation_ids_are_the_names_of_the_functions(service: Service) -> None:
    ids = [
        (method, path, operation["operationId"])
        for path, operations in document(service)["paths"].items()
        for method, operation in operations.items()
    ]
    assert {  # and those of further endpoints
        ("get", "/livez", "livez"),
        ("get", "/readyz", "readyz"),
        ("post", "/v1/chat", "chat"),
        ("post", "/v1/chat/stream", "chat_stream"),
    } <= set(ids)


def test_a_problem_is_one_component(service: Service) -> None:
    found = document(service)
    media_types = [
        media_type
        for response in responses(found)
        for name, media_type in response["content"].items()
        if name == PROBLEM
    ]
    assert len(media_types) > len(found["paths"])
    assert all(m == {"schema": {"$ref": "#/components/schemas/Problem"}} for m in media_types)
    assert json.dumps(found).count('"upstream_request_id"') == 1


def test_what_is_invalid_is_documented_as_a_problem_alone(offline: OfflineOpenAI) -> None:
    application = app.create_app(make_settings(offline))

    @application.get("/owners")
    async def owners(number: int) -> int:
        return number

    found = application.openapi()
    assert found["paths"]["/owners"]["get"]["operationId"] == "owners"
    assert "422" not in found["paths"]["/owners"]["get"]["responses"]
    assert set(found["paths"]["/owners"]["get"]["responses"]["default"]["content"]) == {PROBLEM}
    assert not {"HTTPValidationError", "ValidationError"} & found["components"]["schemas"].keys()


def test_the_events_of_a_stream_are_a_component(service: Service) -> None:
    found = document(service)
    stream = found["paths"]["/v1/chat/stream"]["post"]["responses"]["200"]["content"]
    reference = {"$ref": "#/components/schemas/ChatEvent"}
    assert reference in stream["text/event-stream"]["schema"]["anyOf"]
    properties = found["components"]["schemas"]["ChatEvent"]["properties"]
    assert properties["event"]["enum"] == ["delta", "done", "error"]
    assert properties["data"]["contentMediaType"] == "application/json"
    data = [
        {"$ref": f"#/components/schemas/{name}"} for name in ("ChatDelta", "ChatDone", "Problem")
    ]
    assert properties["data"]["contentSchema"]["anyOf"] == data


def test_what_the_document_refers_to_is_there(service: Service) -> None:
    found = document(service)
    for reference in re.findall(r'"\$ref": "#/components/(\w+)/([\w-]+)"', json.dumps(found)):
        kind, name = reference
        assert name in found["components"][kind]
