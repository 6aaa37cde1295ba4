"""What this plugin provides."""

from __future__ import annotations

from collections.abc import Iterator

from synicix_core import ModelProvider, hookimpl


@hookimpl
def synicix_models() -> Iterator[ModelProvider]:
    """Provide SimpleMLP."""
    yield ModelProvider(
        "SimpleMLP",
        target="synicix_mlp.model:SimpleMLP",
        summary="Multi-layer perceptron with L1/L2 penalties; flattens any input",
    )
