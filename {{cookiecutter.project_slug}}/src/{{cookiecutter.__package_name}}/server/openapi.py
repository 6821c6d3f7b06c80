"""Parts of the OpenAPI document that FastAPI has no parameters for."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .requests import REQUEST_ID_HEADER


class DocumentedFastAPI(FastAPI):
    """Documents the models that `responses` refer to, and the header of every response.

    See https://fastapi.tiangolo.com/how-to/extending-openapi/.
    """

    def __init__(self, *, models: Sequence[type[BaseModel]], **parameters: Any) -> None:  # noqa: ANN401 - FastAPI's parameters
        super().__init__(**parameters)
        self._models = models

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema:  # FastAPI's cache
            return self.openapi_schema
        document = super().openapi()
        _, models = models_json_schema(
            [(model, "validation") for model in self._models],
            ref_template="#/components/schemas/{model}",
        )
        components = document.setdefault("components", {})
        components["schemas"] = components.get("schemas", {}) | models["$defs"]
        components["headers"] = {
            REQUEST_ID_HEADER: {
                "description": "The request's own if that is well-formed, else a new one.",
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
