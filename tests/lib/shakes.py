"""A client that makes so many full TLS handshakes and nothing else: `shakes.py ADDRESS N` prints what came of them, as JSON."""

import hashlib
import json
import socket
import ssl
import sys
import threading


def shake(address: str, n: int) -> dict[str, object]:
    """On a few threads. Each is ended politely: the other side's close_notify says that it saw the end of the handshake too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # That the gateway has the key is proven all the same; which certificate it was the parent looks at.
    context.verify_mode = ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    where = host, int(port)
    prints: set[str] = set()
    failures: list[str] = []
    done: list[int] = []
    left = iter(range(n))

    def work() -> None:
        for _ in left:
            try:
                with socket.create_connection(where, timeout=60) as plain:
                    connection = context.wrap_socket(plain, server_hostname="web.test")
                    der = connection.getpeercert(binary_form=True)
                    connection.unwrap().close()
            except OSError as error:
                failures.append(repr(error))
                return
            assert der is not None
            prints.add(hashlib.sha256(der).hexdigest())
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"done": len(done), "failures": failures, "prints": sorted(prints)}


if __name__ == "__main__":
    print(json.dumps(shake(sys.argv[1], int(sys.argv[2]))))
