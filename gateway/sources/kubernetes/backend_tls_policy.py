"""BackendTLSPolicy: how TLS to the endpoints of a Service is verified."""

from msgspec import field

from gateway.sources.kubernetes.meta import Object, Read


class PolicyTarget(Read, frozen=True):
    """What a policy is for: a Service, or one of its ports by name."""

    group: str
    kind: str
    name: str
    section_name: str | None = None


class AuthorityRef(Read, frozen=True):
    """A ConfigMap with authorities, in the policy's own namespace."""

    group: str
    kind: str
    name: str


class SubjectAltName(Read, frozen=True):
    """A name of which the certificate must carry one."""

    type: str
    hostname: str = ""
    uri: str = ""


class BackendTLSValidation(Read, frozen=True):
    """What is verified."""

    hostname: str = ""
    ca_certificate_refs: tuple[AuthorityRef, ...] = ()
    well_known_ca_certificates: str | None = field(name="wellKnownCACertificates", default=None)
    subject_alt_names: tuple[SubjectAltName, ...] = ()


class BackendTLSPolicySpec(Read, frozen=True):
    """Spec of a BackendTLSPolicy."""

    target_refs: tuple[PolicyTarget, ...] = ()
    validation: BackendTLSValidation = BackendTLSValidation()


class BackendTLSPolicy(Object, frozen=True):
    """A BackendTLSPolicy of gateway.networking.k8s.io."""

    spec: BackendTLSPolicySpec = BackendTLSPolicySpec()
