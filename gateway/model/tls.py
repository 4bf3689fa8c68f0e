"""TLS on both sides: what a listener shows to clients, what a cluster expects of its endpoints."""

from typing import Annotated, Literal

from gateway.model.scalars import Doc, Part


class Certificate(Part, frozen=True):
    """A certificate chain and its private key, as files."""

    cert: Annotated[str, Doc("File with the certificate chain, PEM")]
    key: Annotated[str, Doc("File with the private key, PEM")]


class ClientCertificate(Part, frozen=True):
    """What a listener asks of its clients' certificates."""

    ca: Annotated[str, Doc("File with the authorities that may have signed a client's certificate, PEM")] = ""
    mode: Annotated[Literal["off", "optional", "require"], Doc("Whether a client must show a certificate")] = "require"


class ListenerTLS(Part, frozen=True):
    """How a listener ends TLS."""

    certificates: Annotated[tuple[Certificate, ...], Doc("Chosen by SNI; the first is the default")] = ()
    min_version: Annotated[Literal["1.2", "1.3"], Doc("Oldest protocol version that is spoken")] = "1.2"
    client_certificate: ClientCertificate | None = None


class ClusterTLS(Part, frozen=True):
    """How TLS to the endpoints of a cluster is verified."""

    server_name: Annotated[str, Doc("SNI, and the name that the certificate must carry; default: the endpoint's name")] = ""
    ca: Annotated[str, Doc("'system', or a file with the authorities, PEM")] = "system"
    subject_alt_names: Annotated[tuple[str, ...], Doc("Names of which the certificate must carry one, instead of serverName")] = ()
    client_certificate: Certificate | None = None
