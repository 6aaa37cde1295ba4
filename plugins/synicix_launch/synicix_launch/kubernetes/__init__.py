"""The launcher for Kubernetes."""
