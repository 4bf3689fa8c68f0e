"""A worker without an engine, for the tests of the fleet: it answers the channel as told by its behaviour argument."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gateway.supervisor import ipc


async def run(args: argparse.Namespace) -> int:
    done = asyncio.Event()
    status = 0
    listening: dict[int, int] = {}
    orders: list[object] = []
    shown: dict[int, str] = {}
    endpoints: list[object] = []

    def obey(order: ipc.Down, fd: int | None) -> None:
        nonlocal status
        match order:
            case ipc.TLS():
                shown.update({id_: side.pairs[0].kind for id_, side in order.listeners.items()})
                shown.update({id_: side.server_name for id_, side in order.clusters.items()})
                orders.append([order.revision, sorted(order.bundles), sorted(order.listeners), sorted(order.clusters)])
                for id_ in order.listeners if args.behaviour == "unsecured" else ():
                    channel.send(ipc.Unsecured(id_, "key values mismatch"))
            case ipc.Snapshot():
                orders.append([order.revision, order.secured])
                endpoints.append([sorted(order.endpoints.items()), order.gone, order.is_whole])
                assert fd is not None
                os.close(fd)
                if args.behaviour == "refuse":
                    channel.send(ipc.Refused(order.revision, "bad magic"))
                elif args.behaviour == "die":
                    os._exit(3)
                else:
                    channel.send(ipc.Ack(order.revision, 12))
            case ipc.Endpoints():
                endpoints.append(sorted(order.endpoints.items()))
            case ipc.Listen():
                assert fd is not None
                listening[order.bind_id] = fd
            case ipc.Unlisten():
                os.close(listening.pop(order.bind_id))
            case ipc.Describe():
                if order.what == "orders":
                    channel.send(ipc.Description(order.number, [{"orders": orders, "shown": sorted(shown.items())}]))
                elif order.what == "endpoints":
                    channel.send(ipc.Description(order.number, [{"endpoints": endpoints}]))
                elif args.behaviour != "mute":
                    channel.send(ipc.Description(order.number, [{"what": order.what, "ports": len(listening)}]))
            case ipc.Drain():
                if args.behaviour == "linger" and order.deadline_ms > 0:
                    return
                if args.behaviour != "stay":
                    channel.send(ipc.Bye(0))
                    done.set()

    channel = ipc.Channel(socket.socket(fileno=args.channel), ipc.Down, obey, done.set)
    channel.send(ipc.Hello(os.getpid()))
    if args.behaviour == "hang up":
        channel.close()
        await asyncio.Event().wait()
    await done.wait()
    await channel.flushed()
    return status


parser = argparse.ArgumentParser()
parser.add_argument("--slot")
parser.add_argument("--channel", type=int)
parser.add_argument("--counters", type=int)
parser.add_argument("--limits", type=int)
parser.add_argument("--behaviour", default="")
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(asyncio.run(run(parser.parse_args())))
