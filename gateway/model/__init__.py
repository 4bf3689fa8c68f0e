"""The vocabulary of the configuration: one file per noun, no I/O. Nothing here knows where a configuration came from."""

from gateway.model.cluster import Cluster, EndpointSpec, LoadBalancing, OutlierDetection
from gateway.model.config import AccessLog, Admin, Config, Drain, Kubernetes, redact
from gateway.model.listener import Limits, Listener
from gateway.model.policy import RateLimit, Redis
from gateway.model.problem import Problem
from gateway.model.route import GRPCRoute, HTTPRoute, TCPRoute, TLSRoute
from gateway.model.scalars import Duration, Size
from gateway.model.schema import schema

__all__ = [
    "AccessLog",
    "Admin",
    "Cluster",
    "Config",
    "Drain",
    "Duration",
    "EndpointSpec",
    "GRPCRoute",
    "HTTPRoute",
    "Kubernetes",
    "Limits",
    "Listener",
    "LoadBalancing",
    "OutlierDetection",
    "Problem",
    "RateLimit",
    "Redis",
    "Size",
    "TCPRoute",
    "TLSRoute",
    "redact",
    "schema",
]
