"""The addresses behind a port of a Service, out of its EndpointSlices.

Ready ones are used. When none is ready, those that still serve while they end are: better than nothing. Of a dual-stack Service the
preferred family is used. Topology hints count when this gateway knows where it is and every endpoint has one, as kube-proxy does
it: those for its node first, then those for its zone.
"""

from typing import Literal

from gateway.model.cluster import EndpointSpec
from gateway.sources.kubernetes.endpoint_slice import Endpoint, EndpointSlice
from gateway.sources.kubernetes.service import Service, ServicePort
from gateway.sources.kubernetes.view import View

FAMILIES = ("IPv4", "IPv6")


def endpoints_of(view: View, service: Service, port: ServicePort) -> tuple[EndpointSpec, ...]:
    """In the order of their text, each address once."""
    found: dict[str, dict[str, Endpoint]] = {}
    for each in view.slices.get((service.metadata.namespace, service.metadata.name), ()):
        number = _port_number(each, port)
        if each.address_type in FAMILIES and number:
            family = found.setdefault(each.address_type, {})
            for endpoint in each.endpoints or ():
                if endpoint.addresses:
                    address = endpoint.addresses[0]
                    text = f"[{address}]:{number}" if each.address_type == "IPv6" else f"{address}:{number}"
                    # While a slice is replaced by another, an address may stand in both; who calls it ready is right.
                    if text not in family or _is_ready(endpoint):
                        family[text] = endpoint
    for family_name in dict.fromkeys((*service.spec.ip_families, *FAMILIES)):
        used = _used(found.get(family_name, {}), view.options.node, view.options.zone)
        if used:
            return tuple(EndpointSpec(address=text, zone=used[text].zone or "") for text in sorted(used))
    return ()


def _port_number(each: EndpointSlice, wanted: ServicePort) -> int:
    """Ports of a slice carry the names of the Service's ports; the numbers are those of the pods."""
    for port in each.ports or ():
        if (port.name or "") == wanted.name and port.protocol == "TCP":
            return port.port or 0
    return 0


def _is_ready(endpoint: Endpoint) -> bool:
    return endpoint.conditions.ready is not False


def _is_leaving(endpoint: Endpoint) -> bool:
    conditions = endpoint.conditions
    return conditions.terminating is True and conditions.serving is not False


def _used(endpoints: dict[str, Endpoint], node: str, zone: str) -> dict[str, Endpoint]:
    ready = {text: each for text, each in endpoints.items() if _is_ready(each)}
    if not ready:
        return {text: each for text, each in endpoints.items() if _is_leaving(each)}
    return _near(ready, node, "for_nodes") or _near(ready, zone, "for_zones") or ready


def _near(ready: dict[str, Endpoint], here: str, hint: Literal["for_nodes", "for_zones"]) -> dict[str, Endpoint]:
    """Those that are meant for this place; none when there are endpoints of which nobody says whom they are for."""
    meant = {text: {each.name for each in getattr(endpoint.hints, hint, ())} for text, endpoint in ready.items()} if here else {}
    return {text: ready[text] for text, places in meant.items() if here in places} if all(meant.values()) else {}
