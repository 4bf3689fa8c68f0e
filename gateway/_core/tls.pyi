"""What the worker's shell gives the core about TLS: contexts that pyOpenSSL made, and who shows or checks what with them."""

from collections.abc import Callable, Sequence

def attach() -> str:
    """Takes the functions of OpenSSL that the core calls from `cryptography`, once. Answers OpenSSL's version.

    Raises ImportError with one line when this version of cryptography lacks one of them.
    """

class ServerTLS:
    """What a listener shows to its clients; immutable."""

    def __init__(
        self,
        contexts: Sequence[tuple[Sequence[bytes], int, object, Sequence[tuple[int, bytes]]]],
        *,
        asks_client: bool,
        lets_through: bool = False,
        alpn: bytes,
    ) -> None:
        """contexts: (names, address, owner, ocsp). names: of the certificate, lower case, "*.x" for wildcards. address: of an
        SSL_CTX that no other ServerTLS has; owner: what keeps it alive. ocsp: (address of a certificate of the context, DER of the
        response to staple to it), at most one for each kind of key. The first context is the default. asks_client: whether clients
        may show a certificate. lets_through: whether one whose certificate fails is let in, as nobody. alpn: the protocols in order
        of preference, each with its length before it (RFC 7301). Raises ValueError for no context, one that is in use, or too many
        responses.
        """

class ClientTLS:
    """How the endpoints of a cluster are reached and verified; immutable."""

    @property
    def identity(self) -> bytes: ...
    def __init__(
        self,
        context: int,
        owner: object,
        *,
        identity: bytes,
        server_name: bytes,
        ip: bytes,
        names: Callable[[bytes], bool] | None,
        alpn: bytes,
        carries: bool = False,
    ) -> None:
        """context: address of an SSL_CTX that verifies (VERIFY_PEER); owner: what keeps it alive. identity: digest of everything
        that makes connections unlike each other. server_name: SNI, and the name that is verified; ip: the packed address that is
        verified instead; names: given, it decides instead about the DER of the endpoint's certificate. carries: what ALPN chooses
        is between the endpoint and the client. Raises ValueError when nothing of the three is given.
        """
