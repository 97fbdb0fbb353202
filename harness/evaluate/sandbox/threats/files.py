"""Threats to the host's files, environment and devices."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat

_FILES, _SECRETS, _DEVICES = "the host's files", "keys in the environment", "devices"

FILES: tuple[Threat, ...] = (
    Threat(
        name="write_outside",
        goal="machine",
        asset=_FILES,
        attack="opens files of the host and of the system for writing",
        control="its own root folder, read-only, with one Python and nothing else of the host",
        program="""
        import os
        def f(x):
            for path in ("@PLANTED@", "/hole", "/etc/hole", "/usr/lib/hole", "/dev/hole", "/dev/shm/hole", "/var/hole"):
                try:
                    with open(path, "w") as file:
                        file.write("hole")
                    return x + 1
                except OSError:
                    pass
        """,
    ),
    Threat(
        name="read_host",
        goal="machine",
        asset=_FILES,
        attack="reads a planted file, password hashes, home folders and the first process's environment",
        control="its own root folder; no /proc",
        program="""
        import glob, os
        def f(x):
            own = b""  # in a container the first process is the sandbox's own
            for path in (
                "/proc/self/environ", "@PLANTED@", "/etc/shadow", "/proc/1/environ", "/root/.bashrc",
                *glob.glob("/home/*/.*"),
            ):
                try:
                    with open(path, "rb") as file:
                        data = file.read()
                except OSError:
                    continue
                if path == "/proc/self/environ":
                    own = data
                elif data and data != own:
                    return x + 1
        """,
    ),
    Threat(
        name="symlink",
        goal="machine",
        asset=_FILES,
        attack="goes to a file of the host by symbolic link, hard link, `..` and /proc/self/root",
        control="links are followed inside its own root folder",
        program="""
        import os
        def f(x):
            for make in (os.symlink, os.link):
                try:
                    make("@PLANTED@", "/tmp/link")
                except OSError:
                    continue
                try:
                    with open("/tmp/link", "w") as file:
                        file.write("hole")
                    return x + 1
                except OSError:
                    os.unlink("/tmp/link")
            for path in ("/proc/self/root", "/proc/self/cwd/..", "/tmp/../..", "/tmp/../../.."):
                if os.path.exists(path + "@PLANTED@"):
                    return x + 1
        """,
    ),
    Threat(
        name="delete_files",
        goal="machine",
        asset=_FILES,
        attack="deletes a file of the host and Python's own library",
        control="its own root folder, read-only",
        program="""
        import os, shutil
        def f(x):
            for path in ("@PLANTED@", os.__file__, "/usr/lib", "/dev/null"):
                try:
                    os.unlink(path)
                    return x + 1
                except OSError:
                    pass
            shutil.rmtree(os.path.join(os.path.dirname(os.__file__), "json"), ignore_errors=True)
            import json
            return None if os.path.exists(json.__file__) else x + 1
        """,
    ),
    Threat(
        name="environment",
        goal="machine",
        asset=_SECRETS,
        attack="looks for keys in its environment, in that of its parents and in its own memory",
        control="an environment of four harmless names; no /proc",
        program="""
        import os
        def f(x):
            texts = list(os.environ)
            for pid in ("self", "1", "2", str(os.getppid())):
                try:
                    with open("/proc/" + pid + "/environ") as file:
                        texts += [part.partition("=")[0] for part in file.read().split("\\0")]
                except OSError:
                    pass
            known = {"GPG_KEY"}  # the public one of Python's release manager, in Python's container image
            if any("KEY" in name or "TOKEN" in name or "SPARSEBENCH" in name for name in set(texts) - known):
                return x + 1
        """,
    ),
    Threat(
        name="devices",
        goal="machine",
        asset=_DEVICES,
        attack="opens memory, disks, the virtual machine's, network and input devices",
        control="/dev holds null and urandom",
        program="""
        import os
        NAMES = ("mem", "kmem", "port", "kmsg", "kvm", "fuse", "net/tun", "sda", "vda", "vdb", "xvda", "nvme0n1",
                 "loop0", "loop-control", "uinput", "userfaultfd", "vsock", "nvidia0", "dri/card0", "cpu/0/msr")
        def f(x):
            for name in NAMES:
                for mode in (os.O_RDONLY, os.O_WRONLY):
                    try:
                        os.open("/dev/" + name, mode)
                        return x + 1
                    except OSError:
                        pass
        """,
    ),
    Threat(
        name="make_device",
        goal="machine",
        asset=_DEVICES,
        attack="makes a device node of a disk and reads it",
        control="no capabilities; /tmp allows no devices",
        program="""
        import os
        def f(x):
            for number in (os.makedev(8, 0), os.makedev(254, 0), os.makedev(1, 1)):
                try:
                    os.mknod("/tmp/disk", 0o60600, number)
                    os.open("/tmp/disk", os.O_RDONLY)
                    return x + 1
                except OSError:
                    pass
        """,
    ),
    Threat(
        name="file_handle",
        goal="machine",
        asset=_FILES,
        attack="opens the host's root folder by its inode number, past all paths",
        control="no capabilities; system call denied",
        marked=True,
        program="""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            handle = (ctypes.c_uint8 * 16).from_buffer_copy(
                (8).to_bytes(4, "little") + (1).to_bytes(4, "little") + (2).to_bytes(8, "little"))
            mount = os.open("/tmp", os.O_RDONLY)
            return x + 1 if libc.open_by_handle_at(mount, handle, os.O_RDONLY) >= 0 else None
        """,
    ),
    Threat(
        name="watch_files",
        goal="machine",
        asset=_FILES,
        attack="watches folders for what others do (inotify, fanotify)",
        control="its own root folder; system calls denied",
        marked=True,
        program="""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            fd = libc.inotify_init1(0)
            watched = fd >= 0 and libc.inotify_add_watch(fd, b"@PLANTED@", 0xFFF) >= 0
            return x + 1 if watched or libc.fanotify_init(0, 0) >= 0 else None
        """,
    ),
)
