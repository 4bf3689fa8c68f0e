"""Isthmus: one gateway for the edge, the egress and the east-west traffic of a Kubernetes cluster."""

__version__ = "0.1.0"
