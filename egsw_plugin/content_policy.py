"""What a page of this package may load: itself. Imports nothing heavy: a report of metrics needs no torch."""

import base64
import hashlib


def content_policy(style: str, script: str = "", images: bool = False) -> str:
    """The Content-Security-Policy of a page that may use this style and script, pictures within itself, and no more."""
    policy = {"default-src": "'none'", "style-src": _hash(style), "base-uri": "'none'", "form-action": "'none'"}
    if script:
        policy["script-src"] = _hash(script)
    if images:
        policy["img-src"] = "data:"
    return "; ".join(f"{kind} {value}" for kind, value in policy.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
