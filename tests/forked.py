"""``deeplayer`` in forks of one process that has imported torch already, so that a command starts at once.

``python -m tests.forked SOCKET`` serves. `CLIENT` is the text of a ``deeplayer`` program that asks the server: it hands
over its arguments, folder and open files, and ends with the exit code of the command.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress

_SECONDS = 300

CLIENT = """#!{python} -ISs
import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    asked = json.dumps([sys.argv[1:], os.getcwd()]).encode()
    server.sendmsg([asked], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    sys.exit(int(server.recv(8) or 70))
"""


def serve(name: str) -> None:
    from deeplayer_cli.app import main
    from deeplayer_cli.runtime import grounder, run  # noqa: F401 - imported before the forks

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        server.settimeout(_SECONDS)  # ends it if whoever started it was killed
        print("ready", flush=True)  # noqa: T201
        while True:
            client, _ = server.accept()
            with client:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _run(main, client)


def _run(main, client):
    asked, control, *_ = client.recvmsg(2**16, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    arguments, folder = json.loads(asked)
    descriptors = array.array("i")
    descriptors.frombytes(control[0][2])
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(folder)
    sys.argv = ["deeplayer", *arguments]
    code = 70
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    with suppress(OSError):  # the reader of stdout may have left
        sys.stdout.flush()
    client.send(str(code).encode())
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
