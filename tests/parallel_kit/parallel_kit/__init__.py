"""Datasets, models and samplers in double precision, for training with several processes."""
