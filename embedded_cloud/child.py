"""Run a Python module that does not outlive the process that started it.

Run by path, as ``python -P embedded_cloud/child.py MODULE ARGUMENT...``, so that the module sees nothing of this
package. The parent holds the other end of standard input and never writes to it: end of
file means that it is gone, however it died.
The module leads a process group of its own, so that what it starts goes with it.
"""

import os
import runpy
import signal
import sys
import threading


def _leave_with_parent() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
