"""What this plugin provides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from synicix_core import (
    CriterionProvider,
    DatasetProvider,
    MetricProvider,
    ModelProvider,
    SamplerProvider,
    hookimpl,
)

if TYPE_CHECKING:
    import click


@hookimpl
def synicix_datasets() -> Iterator[DatasetProvider]:
    """Provide NeuroDataDataset."""
    yield DatasetProvider(
        "NeuroDataDataset",
        target="synicix_neurodata.dataset:NeuroDataDataset",
        summary="Stimulus, responses, behaviour and pupil of one recording: HDF5, file trees, NWB, open-retina, experanto",
        neutral=("memory_limit_mb",),
    )


@hookimpl
def synicix_models() -> Iterator[ModelProvider]:
    """Provide the models that the field begins with."""
    yield ModelProvider(
        "LinearNonlinear",
        target="synicix_neurodata.models.linear_nonlinear:LinearNonlinear",
        summary="One linear filter for each neuron, then a nonlinearity; images and movies",
    )
    yield ModelProvider(
        "ConvolutionalEncoder",
        target="synicix_neurodata.models.convolutional:ConvolutionalEncoder",
        summary="Convolutional core shared by all neurons, factorized or Gaussian readout; images and movies",
    )


@hookimpl
def synicix_criteria() -> Iterator[CriterionProvider]:
    """Provide the losses of neural prediction; MSELoss is the core's."""
    yield CriterionProvider(
        "PoissonLoss",
        target="synicix_neurodata.losses:PoissonLoss",
        summary="Poisson negative log-likelihood of responses given rates",
    )
    yield CriterionProvider(
        "CorrelationLoss",
        target="synicix_neurodata.losses:CorrelationLoss",
        summary="Minus the mean over neurons of the correlation over a batch",
    )


@hookimpl
def synicix_metrics() -> Iterator[MetricProvider]:
    """Provide the scores of neural prediction; `correlation`, over trials of images, is the core's."""
    for name, target, summary in (
        (
            "single_trial_correlation",
            "SingleTrialCorrelation",
            "Correlation with single trials, frames counting as trials",
        ),
        ("correlation_to_average", "CorrelationToAverage", "Correlation with responses averaged over repeats"),
        ("feve", "FEVE", "Fraction of explainable variance explained, over neurons with enough of it"),
        ("feve_neurons", "FEVENeurons", "How many neurons feve is the mean of"),
        ("explainable_variance", "ExplainableVariance", "Fraction of the responses' variance that is not noise"),
        ("oracle", "Oracle", "Correlation of a trial with the mean of the other repeats"),
        ("fraction_oracle", "FractionOracle", "Single-trial correlation as a fraction of the oracle"),
    ):
        yield MetricProvider(name, target=f"synicix_neurodata.metrics:{target}", summary=summary)


@hookimpl
def synicix_samplers() -> Iterator[SamplerProvider]:
    """Provide samplers that know classes, repeats and clips."""
    yield SamplerProvider(
        "BalancedSampler",
        target="synicix_neurodata.samplers:BalancedSampler",
        summary="Every class of a column equally often in each epoch",
    )
    yield SamplerProvider(
        "RepeatsBatchSampler",
        target="synicix_neurodata.samplers:RepeatsBatchSampler",
        summary="Batches of all the trials of one stimulus",
        yields="batch",
    )
    yield SamplerProvider(
        "ContiguousClips",
        target="synicix_neurodata.samplers:ContiguousClips",
        summary="Clips at random places of each trial of a movie recording",
    )


@hookimpl
def synicix_commands() -> Iterator[click.Command]:
    """Provide `synicix-run neurodata`."""
    from synicix_neurodata.commands import neurodata

    yield neurodata
