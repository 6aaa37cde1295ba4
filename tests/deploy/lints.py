"""Our own lints of Kubernetes manifests: what the published schemas let pass and a server, a scheduler or we do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tests.deploy.custom_lints import CUSTOM_LINTS
from tests.deploy.job_lints import JOB_LINTS
from tests.deploy.manifests import Manifest, name_of
from tests.deploy.pod_lints import POD_LINTS
from tests.deploy.reference_lints import REFERENCE_LINTS

__all__ = ["LINTS", "Lint", "lint"]

Lint = Callable[[Iterable[Manifest]], Iterator[str]]

LINTS: tuple[Lint, ...] = (*JOB_LINTS, *POD_LINTS, *REFERENCE_LINTS, *CUSTOM_LINTS)
"""Each yields a sentence for everything that is wrong."""


def lint(documents: Iterable[Manifest], beside: Iterable[Manifest] = ()) -> list[str]:
    """Return everything that is wrong with these objects.

    Parameters
    ----------
    documents
        What is applied together.
    beside
        What is there already, such as the namespace and the claims. It is looked at, too, but an object that is among
        `documents` as well counts once.
    """
    documents = list(documents)
    names = {name_of(document) for document in documents}
    both = [*documents, *(document for document in beside if name_of(document) not in names)]
    return [f"{each.__name__}: {problem}" for each in LINTS for problem in each(both)]
