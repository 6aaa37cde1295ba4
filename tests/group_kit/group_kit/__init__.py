"""In the place of training that is really stacked: one whose every step a test can foresee, for tests of the worker."""
