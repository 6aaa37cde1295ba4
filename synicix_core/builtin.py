"""The providers that the core brings along, declared as any plugin declares its own.

Torch's optimizers are here as far as their ``step`` needs no closure (not LBFGS) and the parameters are dense (not
SparseAdam) and of any shape (not Muon, which takes matrices only). Its losses are here as far as they compare an output
with a target.

No parameter is declared neutral: ``foreach``, ``fused`` and ``capturable`` choose another order of the same arithmetic,
which changes the last bits of the weights and so, after some epochs, the score.
"""

from __future__ import annotations

from collections.abc import Iterable

from synicix_core.hookspecs import hookimpl
from synicix_core.providers import (
    CriterionProvider,
    MetricProvider,
    OptimizerProvider,
    SamplerProvider,
    TrainerProvider,
)

_OPTIMIZERS = {
    "ASGD": "Averaged stochastic gradient descent",
    "Adadelta": "Adadelta: step sizes from running averages, no learning rate to tune",
    "Adafactor": "Adafactor: factored second moments, little memory",
    "Adagrad": "Adagrad: step sizes from the sum of squared gradients",
    "Adam": "Adam",
    "AdamW": "Adam with decoupled weight decay",
    "Adamax": "Adam with the infinity norm",
    "NAdam": "Adam with Nesterov momentum",
    "RAdam": "Rectified Adam: needs no warm-up",
    "RMSprop": "RMSprop",
    "Rprop": "Resilient backpropagation, for full batches",
    "SGD": "Stochastic gradient descent, with momentum if asked",
}

_CRITERIA = {
    "BCELoss": "Binary cross entropy of probabilities",
    "BCEWithLogitsLoss": "Binary cross entropy of logits",
    "CrossEntropyLoss": "Cross entropy of class scores; targets are class numbers or probabilities",
    "HingeEmbeddingLoss": "Hinge loss of distances; targets are 1 or -1",
    "HuberLoss": "Squared error near zero, absolute error beyond delta",
    "KLDivLoss": "Kullback-Leibler divergence of log-probabilities",
    "L1Loss": "Mean absolute error",
    "MSELoss": "Mean squared error",
    "MultiLabelMarginLoss": "Margin loss of several classes per sample",
    "MultiLabelSoftMarginLoss": "Binary cross entropy of several classes per sample",
    "MultiMarginLoss": "Margin loss of class scores; targets are class numbers",
    "NLLLoss": "Negative log likelihood of log-probabilities; targets are class numbers",
    "PoissonNLLLoss": "Negative log likelihood of Poisson counts",
    "SmoothL1Loss": "Huber loss divided by beta",
    "SoftMarginLoss": "Logistic loss; targets are 1 or -1",
}


@hookimpl
def synicix_optimizers() -> Iterable[OptimizerProvider]:
    """Yield torch's optimizers."""
    for name, summary in _OPTIMIZERS.items():
        yield OptimizerProvider(name, target=f"torch.optim:{name}", summary=summary)


@hookimpl
def synicix_criteria() -> Iterable[CriterionProvider]:
    """Yield torch's losses of an output and a target."""
    for name, summary in _CRITERIA.items():
        yield CriterionProvider(name, target=f"torch.nn:{name}", summary=summary)


@hookimpl
def synicix_samplers() -> Iterable[SamplerProvider]:
    """Yield torch's plain samplers."""
    target = "torch.utils.data:RandomSampler"
    yield SamplerProvider("RandomSampler", target=target, summary="Every example once per epoch, shuffled")
    target = "torch.utils.data:SequentialSampler"
    yield SamplerProvider("SequentialSampler", target=target, summary="Every example once per epoch, in order")


@hookimpl
def synicix_trainers() -> Iterable[TrainerProvider]:
    """Yield the default trainer."""
    target = "synicix_core.training.nn_trainer:NNTrainer"
    yield TrainerProvider("NNTrainer", target=target, summary="Mini-batches, early stopping, keeps the best weights")


@hookimpl
def synicix_metrics() -> Iterable[MetricProvider]:
    """Yield the core's metrics."""
    module = "synicix_core.training.metrics"
    yield MetricProvider(
        "loss",
        target=f"{module}:Loss",
        params=f"{module}:LossParams",
        summary="The training config's criterion, per sample, without penalty",
        higher_is_better=False,
    )
    yield MetricProvider(
        "correlation", target=f"{module}:Correlation", summary="Pearson's correlation over samples, mean over outputs"
    )
    yield MetricProvider("accuracy", target=f"{module}:Accuracy", summary="Fraction of right decisions")
    yield MetricProvider("r2", target=f"{module}:R2", summary="Coefficient of determination, mean over outputs")
