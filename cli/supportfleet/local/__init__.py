"""A real Kubernetes on one machine, with or without a container engine."""
