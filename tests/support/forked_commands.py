"""Commands that the app starts, as forks, instead of programs that import for seconds."""

import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from typing import Any


def fork_commands() -> None:
    """Let a process, which has no threads yet, fork in place of starting Python."""
    if not hasattr(os, "fork"):  # Windows
        return
    asking, asked = socket.socketpair()
    if not os.fork():
        asking.close()
        _fork_on(asked)

    class Forked(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, arguments: list[str], **options: Any) -> None:
            (stdin, own_in), (own_out, stdout), (self.ends, end) = (os.pipe() for _ in range(3))
            self.guard = threading.Lock()
            said = json.dumps([arguments[arguments.index("-c") + 1 :], options["env"]])
            socket.send_fds(asking, [said.encode()], pipes := [stdin, stdout, end])
            [os.close(each) for each in pipes]
            self.stdin, self.stderr = os.fdopen(own_in, "w", encoding="utf-8"), None
            self.stdout = os.fdopen(own_out, encoding="utf-8", errors="replace")
            self.args, self.returncode, self.pid = arguments, None, int(os.read(self.ends, 16))

        def poll(self) -> int | None:
            if select.select([self.ends], [], [], 0)[0]:
                self.wait()
            return self.returncode

        def wait(self, timeout: float | None = None) -> int:
            with self.guard:
                if self.returncode is None:  # one that was killed writes nothing
                    self.returncode = int(os.read(self.ends, 16) or -signal.SIGKILL)
                return int(self.returncode)

    subprocess.Popen = Forked  # type: ignore[misc]


def _fork_on(asked: socket.socket) -> None:
    """Fork for what is asked, until the process that asks has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    while (said := socket.recv_fds(asked, 1 << 20, 3))[0]:
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run(*json.loads(said[0]), *said[1])
        [os.close(each) for each in said[1]]
    signal.raise_signal(signal.SIGKILL)  # without what this process would do at its end


def _run(script: list[str], environment: dict[str, str], *pipes: int) -> None:
    stdin, stdout, end = pipes
    os.write(end, str(os.getpid()).encode())
    for own, other in enumerate((stdin, stdout, stdout)):
        os.dup2(other, own)
    os.environ.update(environment)
    sys.stdin = os.fdopen(0, encoding="utf-8")
    raw: Any = os.fdopen(1, "wb", 0)
    sys.stdout = sys.stderr = io.TextIOWrapper(raw, "utf-8", "replace", write_through=True)
    code, sys.argv = 1, ["-c", *script[1:]]
    try:
        exec(script[0], {"__name__": "__main__"})
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    finally:
        os.write(end, str(code).encode())
        signal.raise_signal(signal.SIGKILL)
