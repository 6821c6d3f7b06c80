"""What FastAPI has no parameter for in the OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from .schemas import DeltaEvent, DoneEvent, ErrorEvent
from .telemetry import REQUEST_ID_HEADER


class DocumentedFastAPI(FastAPI):
    """Adds the models of problems and events, and the header that every response has.

    As https://fastapi.tiangolo.com/how-to/extending-openapi/ describes.
    """

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema:  # made before
            return self.openapi_schema
        document = super().openapi()
        _, models = models_json_schema(
            [(event, "validation") for event in (DeltaEvent, DoneEvent, ErrorEvent)],
            ref_template="#/components/schemas/{model}",
        )
        components = document.setdefault("components", {})
        components["schemas"] = components.get("schemas", {}) | models["$defs"]
        components["headers"] = {
            REQUEST_ID_HEADER: {
                "description": "The request's own, if it is well-formed, otherwise a new one.",
                "required": True,
                "schema": {"type": "string"},
            }
        }
        request_id = {"$ref": f"#/components/headers/{REQUEST_ID_HEADER}"}
        for operations in document["paths"].values():
            for operation in operations.values():
                for response in operation["responses"].values():
                    response.setdefault("headers", {})[REQUEST_ID_HEADER] = request_id
        return document
