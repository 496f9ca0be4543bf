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


def form(*, several: bool) -> dict[str, Any]:
    """Describes a form with a file, or with several."""
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    if several:
        file = {"type": "array", "minItems": 1, "items": file}
    schema = {"type": "object", "required": ["file"], "properties": {"file": file}}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def detect() -> Answers:
    """Describes the answers of ``/v1/detect``."""
    later = {"description": "It takes longer: ask for the job.", "content": _content("Job")}
    done = {"description": "What came of it.", "content": _content("Detection")}
    return {200: done, 202: later, 500: PROBLEM, **_REFUSED, **_SECURED}


def jobs(status: int) -> Answers:
    """Describes answers with jobs."""
    found = {"description": "The jobs.", "content": _content("Jobs")}
    return {status: found, **(_REFUSED if status == 202 else {422: PROBLEM}), **_SECURED}


def job() -> Answers:
    """Describes an answer with a job."""
    return {200: {"description": "The job.", "content": _content("Job")}, **missing()}


def events() -> Answers:
    """Describes a stream of events."""
    stream = {"text/event-stream": {"schema": _TEXT}}
    return {200: {"description": "Events named job.", "content": stream}, **missing()}


def missing() -> Answers:
    """Describes the answer where there is no such job."""
    return {404: PROBLEM, **_SECURED}


def report() -> Answers:
    """Describes the answers where there is no page, or not yet."""
    return {404: PROBLEM, 503: PROBLEM, **_SECURED}


def refused() -> Answers:
    """Describes why there may be no answer."""
    return {503: PROBLEM, **_SECURED}


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
