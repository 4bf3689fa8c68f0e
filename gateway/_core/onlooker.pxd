# onlooker.pxd - level 9: an exchange as an operator sees it. Owns: nothing. Called by: downstream (Engine.describe_connections).

from gateway._core.exchange cimport Exchange

cdef dict describe_exchange(Exchange ex)
