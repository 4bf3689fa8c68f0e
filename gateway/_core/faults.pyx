"""Status and name of every fault: one table, in the order of the enum."""

from gateway._core.types cimport uint16_t

# name, status: one row for each member of Fault, in its order.
cdef tuple TABLE = (
    (b"none", 200),
    (b"start_line", 400),
    (b"method", 400),
    (b"version", 505),
    (b"target", 400),
    (b"target_long", 414),
    (b"path", 400),
    (b"authority", 400),
    (b"connect", 405),
    (b"trace", 405),
    (b"line_end", 400),
    (b"field_name", 400),
    (b"field_value", 400),
    (b"underscore", 400),
    (b"fields_many", 431),
    (b"fields_large", 431),
    (b"length", 400),
    (b"length_and_coding", 400),
    (b"coding", 400),
    (b"coding_unknown", 501),
    (b"expect", 417),
    (b"upgrade_body", 400),
    (b"max_forwards", 400),
    (b"chunk_size", 400),
    (b"chunk_extension", 400),
    (b"chunk_end", 400),
    (b"chunk_abuse", 400),
    (b"trailer", 400),
    (b"trailers_large", 431),
    (b"body_large", 413),
    (b"body_short", 400),
    (b"status", 502),
    (b"switched", 502),
    (b"informational_many", 502),
    (b"extra", 502),
    (b"response", 502),
    (b"proxy_header", 400),
    (b"loop", 508),
    (b"tls_not", 400),
    (b"tls_record", 400),
    (b"tls_record_long", 400),
    (b"tls_message", 400),
    (b"tls_long", 400),
    (b"tls_hello", 400),
    (b"tls_extension", 400),
    (b"tls_name", 400),
    (b"tls_alpn", 400),
    (b"h2_preface", 400),
    (b"h2_frame", 400),
    (b"h2_frame_size", 400),
    (b"h2_stream", 400),
    (b"h2_settings", 400),
    (b"h2_window", 400),
    (b"h2_block", 400),
    (b"h2_slow", 400),
    (b"h2_pseudo", 400),
    (b"h2_hop", 400),
    (b"h2_length", 400),
    (b"h2_stall", 400),
    (b"hpack", 400),
    (b"flood_reset", 400),
    (b"flood_fault", 400),
    (b"flood_streams", 400),
    (b"flood_block", 400),
    (b"flood_ping", 400),
    (b"flood_settings", 400),
    (b"flood_empty", 400),
    (b"flood_control", 400),
    (b"flood_table", 400),
    (b"flood_output", 400),
    (b"base64", 400),
)

if len(TABLE) != FAULTS:
    raise ImportError("faults: the table has not one row for each member of Fault")

# The rows again as C arrays; the names point into the bytes objects of TABLE, which lives as long as the module.
cdef const char *c_names[FAULTS]
cdef uint16_t c_statuses[FAULTS]


cdef tuple names_of_faults():
    cdef tuple row
    cdef list names = []
    for row in TABLE:
        names.append(row[0].decode())
    return tuple(names)


cdef int fill_arrays() except -1:
    cdef int i
    for i in range(<int> FAULTS):
        c_names[i] = <bytes> TABLE[i][0]
        c_statuses[i] = TABLE[i][1]
    return 0


fill_arrays()
globals().update(TABLE=TABLE, NAMES=names_of_faults())      # a module variable that Python sees


cdef uint16_t fault_status(int fault) noexcept nogil:
    if fault < 0 or fault >= <int> FAULTS:
        return 400
    return c_statuses[fault]


cdef const char *fault_name(int fault) noexcept nogil:
    if fault < 0 or fault >= <int> FAULTS:
        return "unknown"
    return c_names[fault]
