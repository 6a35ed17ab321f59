"""Run a Python module that ends when its parent process ends.

Run by path, as ``python -P embedded_cloud/run_module.py MODULE ARGUMENT...``, so that the module cannot import this
package by accident. The parent keeps the other end of standard input open and never writes to it, so end of file means
that the parent has ended. The module leads its own process group, so its subprocesses end with it.
"""

import os
import runpy
import signal
import sys
import threading

# botocore imports these where they are installed, as aws-sam-cli does here. The image lacks them, and they take 0.1 s.
_NOT_IN_THE_IMAGE = ("awscrt", "OpenSSL")


def _leave_with_parent() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sys.modules.update(dict.fromkeys(_NOT_IN_THE_IMAGE))  # type: ignore[arg-type]  # None: ImportError
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
