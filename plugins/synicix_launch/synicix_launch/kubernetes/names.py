"""Names that Kubernetes takes: each check returns the name, or raises ValueError with what it must be."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["checked_image", "label", "missing_tag"]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?")


def checked_image(value: str) -> str:
    """Check an image: one that is the same tomorrow."""
    if not _IMAGE.fullmatch(value):
        raise ValueError("an image such as synicix:0.1.0-cu130")
    if missing_tag(value):
        raise ValueError("an image with a tag other than latest, or with a digest, such as synicix:0.1.0-cu130")
    return value


def missing_tag(image: str) -> bool:
    """Whether an image has neither a digest nor a tag that says which one it is."""
    return "@sha256:" not in image and image.rpartition("/")[2].partition(":")[2] in ("", "latest")


def label(longest: int) -> Callable[[str], str]:
    """Return a check for a label of RFC 1123, of at most `longest` characters."""

    def check(value: str) -> str:
        if len(value) > longest or not _LABEL.fullmatch(value):
            raise ValueError(
                f"at most {longest} lower-case letters, digits and '-', beginning and ending with a letter or digit (RFC 1123)"
            )
        return value

    return check
