"""Ingress and IngressClass of networking.k8s.io/v1."""

from msgspec import field

from gateway.sources.kubernetes.meta import Object, Read

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"


class BackendPort(Read, frozen=True):
    """A port of a Service, by name or by number."""

    name: str = ""
    number: int = 0


class ServiceBackend(Read, frozen=True):
    """A Service and its port."""

    name: str
    port: BackendPort = BackendPort()


class ResourceBackend(Read, frozen=True):
    """Some other object as a backend."""

    kind: str = ""
    name: str = ""
    api_group: str | None = None


class IngressBackend(Read, frozen=True):
    """Where requests go."""

    service: ServiceBackend | None = None
    resource: ResourceBackend | None = None


class IngressPath(Read, frozen=True):
    """Paths and their backend."""

    backend: IngressBackend
    path: str = ""
    path_type: str = "ImplementationSpecific"


class IngressPaths(Read, frozen=True):
    """The paths of a host."""

    paths: tuple[IngressPath, ...] = ()


class IngressRule(Read, frozen=True):
    """One host."""

    host: str = ""
    http: IngressPaths | None = None


class IngressTLS(Read, frozen=True):
    """A certificate for hosts."""

    hosts: tuple[str, ...] | None = None
    secret_name: str = ""


class IngressSpec(Read, frozen=True):
    """Spec of an Ingress."""

    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    tls: tuple[IngressTLS, ...] = ()
    rules: tuple[IngressRule, ...] = ()


class Ingress(Object, frozen=True):
    """An Ingress."""

    spec: IngressSpec = IngressSpec()


class IngressClassSpec(Read, frozen=True):
    """Who serves a class."""

    controller: str = ""


class IngressClass(Object, frozen=True):
    """An IngressClass."""

    spec: IngressClassSpec = field(default_factory=IngressClassSpec)

    @property
    def is_default(self) -> bool:
        """Whether it is the class of an Ingress that names none."""
        return self.annotations.get(DEFAULT_ANNOTATION) == "true"
