"""What the models of neurons share: a drive that the stimulus sets, a nonlinearity, a gain that behaviour sets, a penalty."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from synicix_neurodata.models.output import BehaviorGain, nonlinear
from synicix_neurodata.models.shapes import Shapes

__all__ = ["Encoder"]


class Encoder(nn.Module, ABC):
    """A model that predicts neurons from a stimulus; returns ``(output, regularization_loss)``.

    Parameters
    ----------
    shapes : Shapes
    output_nonlinearity : str
        Not ``"auto"``.
    strengths : mapping of str to float
        Of the penalties. They become buffers of these names that the ``state_dict`` leaves out, so models that differ in
        nothing else can be stacked and trained together under ``torch.func.vmap``.

    Attributes
    ----------
    regularized : bool
        Whether there is a penalty at all. Models that are stacked must agree on it.
    gain : BehaviorGain or None
        None where the stimulus is the only input.
    """

    def __init__(self, shapes: Shapes, output_nonlinearity: str, strengths: Mapping[str, float]) -> None:
        super().__init__()
        self.shapes = shapes
        self.output_nonlinearity = output_nonlinearity
        self.regularized = any(strengths.values())
        for name, strength in strengths.items():
            self.register_buffer(name, torch.tensor(float(strength)), persistent=False)
        self.gain = BehaviorGain(shapes.modulators, shapes.neurons) if shapes.modulators else None

    def forward(self, x: Any) -> tuple[Tensor, Tensor]:
        """Predict one batch.

        Parameters
        ----------
        x : Tensor or dict of str to Tensor
            First axis batch, otherwise as the model's `input_shape`, of any number of frames; any dtype.

        Returns
        -------
        output : Tensor, (batch, neurons) or (batch, neurons, T)
            In float32 at least, also under autocast.
        regularization_loss : Tensor, ()
        """
        stimulus = (x["stimulus"] if self.shapes.named else x).to(next(self.parameters()).dtype)
        output = nonlinear(self.drive(stimulus), self.output_nonlinearity)
        if self.gain is not None:
            output = output * self.gain(x, None if self.shapes.frames is None else stimulus.shape[2])
        return output, self.penalty() if self.regularized else output.new_zeros(())

    @abstractmethod
    def drive(self, stimulus: Tensor) -> Tensor:
        """Return what goes into the nonlinearity, (batch, neurons[, T]), for images or movies (batch, C[, T], H, W)."""

    @abstractmethod
    def penalty(self) -> Tensor:
        """Return the regularization loss, a tensor without axes."""
