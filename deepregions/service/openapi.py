"""What OpenAPI says of requests and answers, beyond what FastAPI sees in the functions."""

import json
from typing import Any

from deepregions.pipeline.schemas import schema_text
from deepregions.service.problems import MEDIA_TYPE

Answers = dict[int | str, dict[str, Any]]


def _content(name: str, kind: str = "application/json") -> dict[str, Any]:
    return {kind: {"schema": {"$ref": f"#/components/schemas/{name}"}}}


PROBLEM: dict[str, Any] = {"description": "Why not.", "content": _content("Problem", MEDIA_TYPE)}
_SECURED: Answers = {401: PROBLEM, 403: PROBLEM}
_REFUSED: Answers = dict.fromkeys((400, 408, 413, 415, 422, 429, 503, 507), PROBLEM)

_TEXT, _TIME = {"type": "string"}, {"type": ["string", "null"], "format": "date-time"}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        **dict.fromkeys(("type", "title", "detail", "hint", "request_id"), _TEXT),
        "status": {"type": "integer"},
    },
}
_JOB = {
    "type": "object",
    "required": ["id", "name", "state", "progress", "result", "error", "created", "links"],
    "properties": {
        "id": _TEXT,
        "name": {**_TEXT, "description": "What the sender calls the file."},
        "state": {"enum": ["queued", "running", "done", "error"]},
        "sha256": _TEXT,
        "progress": {
            "type": "object",
            "description": "Frames that were looked at, and how many there will be.",
            "properties": {"done": {"type": "integer"}, "total": {"type": ["integer", "null"]}},
        },
        "result": {"anyOf": [{"$ref": "#/components/schemas/Detection"}, {"type": "null"}]},
        "error": {"anyOf": [{"$ref": "#/components/schemas/Problem"}, {"type": "null"}]},
        "created": _TIME,
        "started": _TIME,
        "finished": _TIME,
        "links": {"type": "object", "additionalProperties": _TEXT},
    },
}
_JOBS = {
    "type": "object",
    "required": ["jobs"],
    "properties": {"jobs": {"type": "array", "items": {"$ref": "#/components/schemas/Job"}}},
}

ONE_FILE = {"type": "string", "format": "binary"}
FILES = {"type": "array", "minItems": 1, "items": ONE_FILE}

# Answers by route, or of several.
DETECT: Answers = {
    200: {"description": "What came of it.", "content": _content("Detection")},
    202: {"description": "It takes longer: ask for the job.", "content": _content("Job")},
    500: PROBLEM,
    **_REFUSED,
    **_SECURED,
}
_SEVERAL = {"description": "The jobs.", "content": _content("Jobs")}
NEW_JOBS: Answers = {202: _SEVERAL, **_REFUSED, **_SECURED}
JOBS: Answers = {200: _SEVERAL, 422: PROBLEM, **_SECURED}
MISSING: Answers = {404: PROBLEM, **_SECURED}
JOB: Answers = {200: {"description": "The job.", "content": _content("Job")}, **MISSING}
_STREAM = {"text/event-stream": {"schema": _TEXT}}
EVENTS: Answers = {200: {"description": "Events named job.", "content": _STREAM}, **MISSING}
REFUSED: Answers = {503: PROBLEM, **_SECURED}
REPORT: Answers = {**MISSING, **REFUSED}


def form(file: dict[str, Any]) -> dict[str, Any]:
    """Describes a form by what its field ``file`` is."""
    schema = {"type": "object", "required": ["file"], "properties": {"file": file}}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """Adds the schemas, among them that of ``detect --json``."""
    text = schema_text("detect").replace("#/$defs/", "#/components/schemas/Detection_")
    detection = json.loads(text)
    parts = {f"Detection_{name}": part for name, part in detection.pop("$defs").items()}
    for key in ("$schema", "$id"):
        detection.pop(key, None)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {"Detection": detection, "Job": _JOB, "Jobs": _JOBS, "Problem": _PROBLEM, **parts}
    return document
