"""WebSocket between HTTP/1.1 and HTTP/2; see websocket.pxd."""

import base64
import hashlib

from gateway._core.headers cimport FIELD_HOP, HEAD_UPGRADE, HEAD_WEBSOCKET, Field, HeaderBlock
from gateway._core.tokens cimport T_CONTENT_LENGTH, T_SEC_WEBSOCKET_ACCEPT, T_SEC_WEBSOCKET_KEY, T_UPGRADE
from gateway._core.types cimport FRAME_NONE, FRAME_STREAM, M_GET, Span, uint8_t, uint64_t

cdef bytes GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"     # RFC 6455 §1.3


cdef int set_field(HeaderBlock head, uint8_t token, bytes name, bytes value) noexcept:
    return head.set(token, <const uint8_t *> <const char *> name, <size_t> len(name),
                    <const uint8_t *> <const char *> value, <size_t> len(value))


cdef int set_upgrade(HeaderBlock head) noexcept:
    cdef Field *field
    if set_field(head, T_UPGRADE, b"upgrade", b"websocket") < 0:
        return -1
    # as one that was received: of this hop, and written together with Connection
    field = head.find(T_UPGRADE)
    field.flags |= FIELD_HOP
    return 0


cdef int connect_to_upgrade(HeaderBlock head, uint64_t random_hi, uint64_t random_lo) noexcept:
    cdef bytes key = base64.b64encode((int(random_hi) << 64 | int(random_lo)).to_bytes(16, "big"))
    head.method = M_GET
    head.method_text = head.keep(<const uint8_t *> b"GET", 3)
    if head.method_text.off == 0xffffffff:
        return -1
    if set_upgrade(head) < 0:
        return -1
    return set_field(head, T_SEC_WEBSOCKET_KEY, b"sec-websocket-key", key)


cdef void switched_to_ok(HeaderBlock head) noexcept:
    head.status = 200
    head.framing = FRAME_STREAM
    head.drop(T_UPGRADE)
    head.drop(T_SEC_WEBSOCKET_ACCEPT)
    head.drop(T_CONTENT_LENGTH)


cdef int ok_to_switched(HeaderBlock head, bytes key) noexcept:
    head.status = 101
    head.framing = FRAME_NONE
    head.flags |= HEAD_UPGRADE | HEAD_WEBSOCKET
    if set_upgrade(head) < 0:
        return -1
    if key is None:
        return 0
    return set_field(head, T_SEC_WEBSOCKET_ACCEPT, b"sec-websocket-accept", base64.b64encode(hashlib.sha1(key + GUID).digest()))


cdef bytes key_of(HeaderBlock head):
    cdef Field *field = head.find(T_SEC_WEBSOCKET_KEY)
    cdef Span value
    if field == NULL:
        return None
    value = head.borrow_value(field)
    return value.p[:value.n]
