"""Threats by way of the network and of sockets."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat

_NETWORK, _SERVICES = "the network", "services of the host"

NETWORK: tuple[Threat, ...] = (
    Threat(
        name="network",
        goal="machine",
        asset=_NETWORK,
        attack="connects by TCP to the host and the internet, and to an abstract Unix socket of the host",
        control="a network of its own without interfaces; `socket` denied",
        program="""
        import socket
        def f(x):
            for kind, address in (("AF_INET", ("127.0.0.1", @PORT@)), ("AF_INET", ("1.1.1.1", 53)),
                                  ("AF_INET6", ("::1", @PORT@)), ("AF_UNIX", "\\0@SOCKET@")):
                try:
                    with socket.socket(getattr(socket, kind), socket.SOCK_STREAM) as s:
                        s.settimeout(1)
                        s.connect(address)
                    return x + 1
                except OSError:
                    pass
        """,
    ),
    Threat(
        name="udp",
        goal="machine",
        asset=_NETWORK,
        attack="sends datagrams to the host, the internet and everybody",
        control="a network of its own without interfaces; `socket` denied",
        program="""
        import socket
        def f(x):
            for address in (("127.0.0.1", @UDP@), ("1.1.1.1", 53), ("255.255.255.255", @UDP@)):
                try:
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                        s.sendto(b"hole", address)
                    return x + 1
                except OSError:
                    pass
        """,
    ),
    Threat(
        name="netlink",
        goal="machine",
        asset=_NETWORK,
        attack="asks the kernel for network interfaces and sets one up (netlink)",
        control="a network of its own; no capabilities; `socket` denied",
        program="""
        import socket
        def f(x):
            try:
                if {name for _, name in socket.if_nameindex()} - {"lo"}:
                    return x + 1
            except OSError:
                pass
            try:
                with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as s:
                    s.bind((0, 1))  # group 1: the changes of interfaces
                    up = bytes.fromhex("20000000 1000 0500 01000000 00000000 00 00 0000 01000000 01000000 01000000")
                    s.send(up)
                    s.settimeout(0.2)
                    if s.recv(4096)[16:20] == bytes(4):
                        return x + 1
            except OSError:
                pass
        """,
    ),
    Threat(
        name="raw_socket",
        goal="machine",
        asset=_NETWORK,
        attack="opens raw and packet sockets, to listen to all traffic",
        control="no capabilities; `socket` denied",
        program="""
        import socket
        def f(x):
            for family, protocol in ((socket.AF_PACKET, 3), (socket.AF_INET, socket.IPPROTO_ICMP)):
                try:
                    socket.socket(family, socket.SOCK_RAW, protocol)
                    return x + 1
                except OSError:
                    pass
        """,
    ),
    Threat(
        name="vsock",
        goal="machine",
        asset="the hypervisor",
        attack="opens a socket to the hypervisor, which no network namespace holds back (vsock)",
        control="`socket` denied",
        program="""
        import socket
        def f(x):
            try:
                socket.socket(40, socket.SOCK_STREAM)
                return x + 1
            except OSError:
                pass
        """,
    ),
    Threat(
        name="service_sockets",
        goal="machine",
        asset=_SERVICES,
        attack="connects to docker, the system bus and the name service through their socket files",
        control="its own root folder; `socket` denied",
        program="""
        import socket
        def f(x):
            for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/dbus/system_bus_socket",
                         "/run/systemd/private", "/var/run/nscd/socket", "/tmp/.X11-unix/X0"):
                try:
                    with socket.socket(socket.AF_UNIX) as s:
                        s.connect(path)
                    return x + 1
                except OSError:
                    pass
        """,
    ),
)
