"""Examples for the OpenAPI document: an answer of each operation, and a sentence for each error code."""

from typing import Any

Errors = dict[str, tuple[int, str]]

EVERYWHERE: Errors = {
    "backend_unavailable": (503, "The graph could not be run."),
    "client_disconnected": (400, "The client went away."),
    "deadline_exceeded": (503, "The answer was not ready in time; try again in a moment."),
    "draining": (503, "The server is about to stop; ask another one."),
    "embedding_invalid": (500, "The network gave an embedding that is not finite."),
    "forbidden": (403, "This API key is for searches; this needs one of the scope admin."),
    "internal": (500, "The server failed; the request id finds the reason in its log."),
    "invalid_request": (422, "query precision: Input should be less than or equal to 0.99."),
    "method_not_allowed": (405, "This address does not take that method."),
    "not_found": (404, "There is nothing at this address."),
    "not_ready": (503, "The index is being loaded."),
    "overloaded": (429, "The server has more searches than it can answer; try again in a moment."),
    "unauthorized": (401, "Send an API key that this server knows, in the header X-API-Key."),
    "unknown_parameter": (422, 'There is no query parameter "top_k"; did you mean "k"?'),
}
"""Code -> status and detail of an answer, of errors that any route may answer with."""

OF_BODIES: Errors = {
    "empty_file": (422, "The file is empty."),
    "malformed_json": (400, "The body is not valid JSON."),
    "malformed_multipart": (400, "The multipart body ends before its closing boundary."),
    "missing_file": (422, 'The form needs a file named "file".'),
    "multiple_files": (422, 'The form has more than one file "file".'),
    "payload_too_large": (413, "The body is larger than 10485760 bytes."),
    "unsupported_content_encoding": (415, "Send the body as it is, without Content-Encoding."),
    "unsupported_content_type": (
        415,
        (
            'Send the photo in a form, as its file "file"; as the body, with a content type such as image/jpeg; or as '
            'JSON, {"image": "<base64>"}.'
        ),
    ),
    "upload_timeout": (408, "The upload took too long."),
}
"""The errors of routes that take a body."""

BY_TAG: dict[str, Errors] = {
    "search": {
        "explanation_unavailable": (422, "This model cannot explain its matches: it has no OpenVINO graph."),
        "image_degenerate": (
            422,
            "The photo has 1 x 500 pixels; it needs at least 16 a side, and no side more than 20 times the other.",
        ),
        "image_too_many_pixels": (
            422,
            (
                "The photo has 50000 x 50000 pixels; at most 50 million are taken, "
                "200 million of a JPEG that is not progressive, and 16384 a side."
            ),
        ),
        "image_undecodable": (422, "The photo is damaged or cut off and cannot be decoded."),
        "invalid_box": (
            422,
            "A box is four whole numbers of pixels, x,y,width,height, as in box=40,60,320,240.",
        ),
        "invalid_k": (422, "k must be a whole number from 1 to 100."),
        "unsupported_image_format": (415, "The file is not a JPEG, PNG, WebP, AVIF or HEIC photo."),
    },
    "evaluation": {
        "archive_bomb": (422, "The archive packs a file more than 100 times."),
        "archive_invalid": (422, "The zip is damaged or cut off."),
        "archive_too_large": (413, "The archive has more than 20000 files and folders."),
        "archive_unsafe_path": (422, "The archive has a file whose name is too long or leads out of it."),
        "data_invalid": (422, '"val" cannot be read: No such file or directory.'),
        "duplicate_id": (422, 'The id "a/1.jpg" occurs twice; ids must be unique.'),
        "evaluation_set_invalid": (
            422,
            "The set has 1 usable photos of 1 classes (0 skipped); leave-one-out needs at least two classes.",
        ),
        "evaluation_too_large": (413, "The set has 5000 photos; above 500 send Prefer: respond-async."),
        "gallery_empty": (422, 'There are no photos in "val".'),
        "manifest_invalid": (422, '"val" has the columns "where", "class"; it needs "path".'),
        "unsupported_archive": (415, "Send a zip, or a tar that is not compressed."),
    },
}
"""Tag of routes -> the errors that only these answer with."""

_FILTERED: Errors = {
    "invalid_filter": (422, "The gallery has no column of the name at character 1; did you mean price?"),
    "unknown_class": (
        422,
        (
            'The gallery has no class of that name; did you mean "Mistrelle"? GET /gallery/classes and carsearch '
            "classes list those there are."
        ),
    ),
}
_CHANGED: Errors = {
    "delta_unusable": (503, "The log of changes in /delta cannot be used: database or disk is full."),
    "gallery_full": (
        507,
        "1000 changes stand beside the index, and 1000 are the most; fold them in: carsearch index --fold.",
    ),
}
_PHOTO: Errors = {
    code: BY_TAG["search"][code]
    for code in ("image_degenerate", "image_too_many_pixels", "image_undecodable", "unsupported_image_format")
}
_ITEM: Errors = {"unknown_item": (404, "The gallery has no photo with this id.")}
_EVALUATION_ID: Errors = {"unknown_evaluation": (404, "There is no evaluation with this id.")}

BY_OPERATION: dict[str, Errors] = {
    "search": _FILTERED | _ITEM,
    "search_batch": _FILTERED,
    "list_gallery": _FILTERED,
    "get_gallery_image": _ITEM,
    "put_photo": _CHANGED | _PHOTO,
    "put_photos": _CHANGED
    | _PHOTO
    | {code: BY_TAG["evaluation"][code] for code in ("duplicate_id", "manifest_invalid")},
    "delete_photo": _CHANGED | _ITEM,
    "evaluate": {"unknown_dataset": (404, "There is no data set with this name; GET /info lists them.")},
    "get_evaluation": {
        **_EVALUATION_ID,
        "not_acceptable": (406, "The evaluation is not done yet; its HTML report is there when it is."),
    },
    "cancel_evaluation": _EVALUATION_ID,
}
"""Operation id -> the errors that only some operations answer with."""

_HIT = {
    "rank": 1,
    "id": "Mistrelle/Mk1-dark grey-065-105-night.jpg",
    "class": "Mistrelle",
    "score": 0.8104243278503418,
    "image": "/gallery/Mistrelle/Mk1-dark%20grey-065-105-night.jpg/image",
    "metadata": {"price": 18900, "year": 2019},
}
_PHOTO_TOLD = {name: _HIT[name] for name in ("id", "class", "image", "metadata")}
_COPY = {"id": "Mistrelle/copy.jpg", "image": "/gallery/Mistrelle/copy.jpg/image"}
_VERSIONS = {
    "index": "20261128T144939.034979Z-ddd4332c",
    "model": "resnet18",
    "model_sha256": "fb614623276b6a8e213ba2e89ab44665c56f3cd294a3e62838c9c2282c2cd0a5",
    "embedding_id": "9eb224cd5291fb06",
}
_EVALUATION = {
    "id": "0b2ff6dd6f0f4c9fa3f2b5d0c3a7e1b4",
    "status": "running",
    "mode": "leave-one-out",
    "started": "2026-11-28T14:52:23Z",
    "done": 4096,
    "total": 11046,
    "html": False,
}

_SEARCH = {
    "nearest": _HIT,
    "results": [_HIT],
    "decision": {
        "outcome": "class",
        "class": "Mistrelle",
        "probability": 0.9694,
        "agreement": 0.8,
        "car_probability": 0.9413,
    },
    "versions": _VERSIONS,
    "timings_ms": {"queue": 0.483, "decode": 2.408, "forward": 3.808, "search": 0.818, "total": 7.517},
}
_DONE: dict[str, Any] = {
    "search": _SEARCH,
    "search_batch": {"results": [{"name": "photo.jpg", "result": _SEARCH}]},
    "list_gallery": {
        "photos": [_PHOTO_TOLD],
        "next": 0,
        "total": 264,
    },
    "put_photo": _PHOTO_TOLD,
    "put_photos": {"photos": [{"name": "photo.jpg", "photo": _PHOTO_TOLD}]},
    "list_duplicates": {
        "duplicates": [{"photos": [_PHOTO_TOLD, _PHOTO_TOLD | _COPY], "score": 1.0, "same_file": True}],
        "next": "near:4095",
        "min_score": 0.82,
        "compared": 4096,
        "total": 11046,
    },
    "evaluate": {"mode": "leave-one-out", "top1": 0.8449, "correct": 9333, "total": 11046, "classes": 78},
    "list_evaluations": {"evaluations": [{name: told for name, told in _EVALUATION.items() if name != "html"}]},
    "get_evaluation": _EVALUATION,
    "list_classes": {"Mistrelle": 11, "Velmora": 11},
    "livez": {"status": "ok"},
    "readyz": {"status": "ok"},
    "info": {
        "version": "0.1.0",
        "ready": True,
        "versions": _VERSIONS,
        "photos": 264,
        "classes": 24,
        "runtime": "openvino",
        "precision": "int8",
        "index_created": "2026-11-28T14:49:39+00:00",
        "serving_since": "2026-11-28T14:49:41Z",
        "datasets": ["val"],
        "metadata": {"price": "number", "year": "number"},
        "may_change": False,
        "refused_version": None,
    },
}
ANSWERS: dict[str, dict[str, Any]] = {
    **{operation: {"200": answer} for operation, answer in _DONE.items()},
    "evaluate": {"200": _DONE["evaluate"], "202": _EVALUATION},
    "cancel_evaluation": {"202": _EVALUATION},
}
"""Operation id -> status -> answer in JSON; the report of an evaluation is much shortened."""
