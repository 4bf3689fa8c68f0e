# faults.pxd - level 0: everything that can be wrong with what a peer sent, each with its status and its name.
# A Fault is what a parser answers (negated); the status goes to the peer, the name goes to a counter and to the log, never to the peer.
# Called by: the codecs, target, validate (which answer faults), downstream and upstream (which act on them).

from gateway._core.types cimport uint16_t

cdef enum Fault:
    F_NONE = 0
    # start line
    F_START_LINE           # not METHOD SP target SP version CRLF, or a status line that is not one         400
    F_METHOD               # the method is no token, or too long                                            400
    F_VERSION              # HTTP/x.y other than 1.0 and 1.1                                                505
    F_TARGET               # the target is of no known form, or not of the form the method asks for         400
    F_TARGET_LONG          # start line longer than allowed                                                 414
    F_PATH                 # the path cannot be normalised safely (item 57)                                 400
    F_AUTHORITY            # Host or authority missing, doubled, malformed or contradicting                 400
    F_CONNECT              # CONNECT on a listener that does not offer it                                   405
    F_TRACE                # TRACE                                                                          405
    # fields
    F_LINE_END             # bare LF, bare CR, or a line that begins with white space                       400
    F_FIELD_NAME           # not a token, empty, white space before the colon, no colon                     400
    F_FIELD_VALUE          # NUL or another control character                                               400
    F_UNDERSCORE           # a name with an underscore (item 48)                                            400
    F_FIELDS_MANY          # more fields than allowed                                                       431
    F_FIELDS_LARGE         # more header bytes than allowed                                                 431
    # framing
    F_LENGTH               # content-length that is no single decimal number                                400
    F_LENGTH_AND_CODING    # content-length beside transfer-encoding                                        400
    F_CODING               # transfer-encoding other than chunked, or in HTTP/1.0                           400
    F_CODING_UNKNOWN       # a transfer coding that nobody here implements                                  501
    F_EXPECT               # an expectation other than 100-continue                                         417
    F_UPGRADE_BODY         # an upgrade request with content (item 44)                                      400
    F_MAX_FORWARDS         # not a number                                                                   400
    # content
    F_CHUNK_SIZE           # not 1 to 16 hex digits, or overflow                                            400
    F_CHUNK_EXTENSION      # malformed or too long                                                          400
    F_CHUNK_END            # chunk data or a chunk line not ended by CRLF                                   400
    F_CHUNK_ABUSE          # overhead out of proportion to the content                                      400
    F_TRAILER              # malformed trailer                                                              400
    F_TRAILERS_LARGE       # more trailer bytes or fields than allowed                                      431
    F_BODY_LARGE           # more content than the route allows                                             413
    F_BODY_SHORT           # the peer closed before the end of the content                                  400
    # responses
    F_STATUS               # not three digits from 100 to 599                                               502
    F_SWITCHED             # 101 that nobody asked for                                                      502
    F_INFORMATIONAL_MANY   # more 1xx than allowed                                                          502
    F_EXTRA                # bytes after the end of a response                                              502
    F_RESPONSE             # any fault of the list above, met in a response                                 502
    # beside the message
    F_PROXY_HEADER         # PROXY protocol header missing or malformed                                     closed without an answer
    F_LOOP                 # this gateway is in Via too often                                               508
    # before the first byte of HTTP: what a TLS client says first; an alert at most answers it
    F_TLS_NOT              # no TLS record of version 3.x (SSLv2, plain text, anything)                     400
    F_TLS_RECORD           # an empty record, or one of another type or version where a handshake goes on   400
    F_TLS_RECORD_LONG      # a record of more than 2^14 bytes                                               400
    F_TLS_MESSAGE          # another handshake message first, or one behind the ClientHello                 400
    F_TLS_LONG             # a ClientHello, or the records around it, larger than allowed                   400
    F_TLS_HELLO            # lengths inside it that contradict each other, trailing bytes, no TLS version   400
    F_TLS_EXTENSION        # an extension twice, too many of them, supported_versions malformed             400
    F_TLS_NAME             # server_name malformed, several host names, or no host name as DNS spells one   400
    F_TLS_ALPN             # ALPN malformed, or more of it than 256 bytes                                   400
    # HTTP/2 and its header compression: what breaks the connection, and what breaks one stream
    F_H2_PREFACE           # the connection does not begin as RFC 9113 §3.4 says                            400
    F_H2_FRAME             # a frame where it may not stand, or with content that it may not have           400
    F_H2_FRAME_SIZE        # a frame longer than allowed, or of another length than its type has            400
    F_H2_STREAM            # a frame on a stream that is closed for it, or that was never opened            400
    F_H2_SETTINGS          # a setting out of its range                                                     400
    F_H2_WINDOW            # more content than the window allows, or a window beyond 2^31 - 1               400
    F_H2_BLOCK             # a field block that another frame breaks off                                    400
    F_H2_SLOW              # settings that are never acknowledged                                           400
    F_H2_PSEUDO            # a pseudo-header field missing, doubled, unknown, misplaced or malformed        400
    F_H2_HOP               # a field of HTTP/1.1 connections, or TE other than trailers (item 52)           400
    F_H2_LENGTH            # content that is not as long as content-length says (item 53)                   400
    F_H2_STALL             # a stream whose content nobody takes (class D9)                                 400
    F_HPACK                # header compression that cannot be undone                                       400
    # floods: each frame allowed by itself, their number is not (classes D1 to D8)
    F_FLOOD_RESET          # requests reset before they were answered                                       400
    F_FLOOD_FAULT          # requests that have to be reset or refused                                      400
    F_FLOOD_STREAMS        # streams beyond the number that the settings allow                              400
    F_FLOOD_BLOCK          # a field block in too many pieces, too large, or never finished                 400
    F_FLOOD_PING           # PING                                                                           400
    F_FLOOD_SETTINGS       # SETTINGS                                                                       400
    F_FLOOD_EMPTY          # DATA without content                                                           400
    F_FLOOD_CONTROL        # WINDOW_UPDATE, PRIORITY, unknown frames out of proportion to the content       400
    F_FLOOD_TABLE          # resizing the table of header compression                                       400
    F_FLOOD_OUTPUT         # answers to control frames that nobody reads                                    400
    F_BASE64               # content of gRPC-Web in its text form that is no base64                         400
    FAULTS

# Status for the peer: the column above.
cdef uint16_t fault_status(int fault) noexcept nogil
# Short stable name for counters and logs, for example "chunk_size".
cdef const char *fault_name(int fault) noexcept nogil
