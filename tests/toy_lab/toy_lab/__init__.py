"""A tiny lab: points on a line, a linear model, and trainers that misbehave on request."""
