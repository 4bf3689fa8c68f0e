"""TLS on both sides: what a listener shows to clients, what a cluster expects of its endpoints.

Files are named as texts; a relative one counts from the directory of the file that names it. Reading them is a source's business.
"""

from typing import Annotated, Literal

from msgspec import Meta

from gateway.model.scalars import Doc, Part


class Certificate(Part, frozen=True):
    """A certificate chain and its private key, as files."""

    cert: Annotated[str, Doc("File with the certificate and then its chain, PEM")]
    key: Annotated[str, Doc("File with the private key, PEM, without a passphrase")]
    ocsp: Annotated[str, Doc("File with the OCSP response to staple, DER; empty: none is stapled")] = ""


class KeyPair(Part, frozen=True):
    """The certificate that a cluster's endpoints are shown, as files."""

    cert: Annotated[str, Doc("File with the certificate and then its chain, PEM")]
    key: Annotated[str, Doc("File with the private key, PEM, without a passphrase")]


class ClientCertificate(Part, frozen=True):
    """What a listener asks of its clients' certificates."""

    ca: Annotated[str, Doc("File with the authorities that may have signed a client's certificate, PEM")] = ""
    mode: Annotated[
        Literal["off", "optional", "require", "insecureFallback"],
        Doc("Whether a client must show a certificate; insecureFallback lets in whoever shows none, or a bad one, as nobody"),
    ] = "require"
    depth: Annotated[int, Meta(ge=0, le=16), Doc("Most certificates between a client's own and one of `ca`")] = 4
    crl: Annotated[str, Doc("File with the revocation lists of those authorities, PEM; empty: none is asked")] = ""


class ListenerTLS(Part, frozen=True):
    """How a listener ends TLS."""

    certificates: Annotated[
        tuple[Certificate, ...], Doc("Chosen by SNI, an ECDSA and an RSA one may stand for one name; the first is the default")
    ] = ()
    min_version: Annotated[Literal["1.2", "1.3"], Doc("Oldest protocol version that is spoken")] = "1.2"
    client_certificate: ClientCertificate | None = None
    session_tickets: Annotated[bool, Doc("Whether a client may resume its session with a ticket")] = True


class ClusterTLS(Part, frozen=True):
    """How TLS to the endpoints of a cluster is verified. It always is."""

    server_name: Annotated[str, Doc("SNI, and the name that the certificate must carry; default: the endpoints' one name")] = ""
    ca: Annotated[str, Doc("'system', or a file with the authorities, PEM")] = "system"
    subject_alt_names: Annotated[
        tuple[str, ...], Doc("Names, addresses or URIs of which the certificate must carry one, instead of serverName")
    ] = ()
    client_certificate: KeyPair | None = None
    crl: Annotated[str, Doc("File with the revocation lists of those authorities, PEM; empty: none is asked")] = ""
