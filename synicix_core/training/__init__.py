"""Train one task: the trainer contract, the default trainer, precision, batches, checkpoints, metrics."""
