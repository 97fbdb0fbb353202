"""`sparsebench` from a process that has imported the heavy libraries already: a command costs a fork, not an import.

`python warm.py serve SOCKET` serves; `python warm.py call SOCKET ARGUMENTS` carries out a command with the caller's
folder, environment and standard streams, in a process forked for it, and ends with its exit code.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading


def call(path: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        asked = json.dumps({"argv": ["sparsebench", *arguments], "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
        socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(asked)
        code = server.recv(4)
    return int.from_bytes(code, "big", signed=True) if code else 1


def serve(path: str) -> None:
    import harness.preload  # noqa: F401
    from harness import cli

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        print("ready", flush=True)
        while True:
            client, _ = listening.accept()
            length, streams, _, _ = socket.recv_fds(client, 4, 3)
            size, raw = int.from_bytes(length, "big"), b""
            while len(raw) < size:
                raw += client.recv(size - len(raw))
            child = os.fork()
            if child:
                for stream in streams:
                    os.close(stream)
                threading.Thread(target=answer, args=(client, child), daemon=True).start()
                continue
            listening.close()
            client.close()
            carry_out(json.loads(raw), streams, cli.main)


def carry_out(asked: dict, streams: list[int], main: object) -> None:  # type: ignore[type-arg]
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.argv = asked["argv"]
        main()  # type: ignore[operator]
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def answer(client: socket.socket, child: int) -> None:
    _, status = os.waitpid(child, 0)
    with client:
        client.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[2], sys.argv[3:]))
