"""The launcher for Slurm."""
