"""A reader of indexes that crashes, in every Python process that finds this on its path.

FAISS from 1.15 on has no file known to crash it, and the next one will be found by somebody else. So here the reader
itself crashes on versions whose names say how, in a server as in its children: without its guard the server would end.
Processes of root give up root's right to read what nobody may read, as a server in a container has none.
"""

import os
from pathlib import Path

SITECUSTOMIZE = """
import ctypes, mmap, os
import faiss

read_index = faiss.read_index


def read_hostile(path, *options):
    if "-crash" in path:
        ctypes.string_at(0)
    if "-abort" in path:
        os.abort()
    if "-hang" in path:
        ctypes.CDLL(None).sleep(3600)
    if "-huge" in path:
        mmap.mmap(-1, 12 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_NORESERVE)
    return read_index(path, *options)


faiss.read_index = read_hostile

header = (ctypes.c_uint32 * 2)(0x20080522, 0)
data = (ctypes.c_uint32 * 6)()
libc = ctypes.CDLL(None)
if os.geteuid() == 0 and libc.capget(header, data) == 0:
    data[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    libc.capset(header, data)
"""


def write_hostile_reader(folder: Path) -> str:
    """A value for PYTHONPATH; what else stands there is kept."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
