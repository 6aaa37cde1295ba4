"""Models of neurons that see images or movies."""
