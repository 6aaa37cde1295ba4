"""A multi-layer perceptron with L1 and L2 penalties, as a plugin for Synicix."""
