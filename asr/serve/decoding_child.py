"""A process that decodes files of strangers, one after the other, under limits of its own.

It reads from standard input a request (`REQUEST`: sample rate [Hz], longest duration [s], processor
time [s], bytes) and the bytes of a file, and answers on standard output with messages (`MESSAGE`:
kind, bytes): blocks of float32 samples, and last the end, or what is wrong with the file.
"""

from __future__ import annotations

import math
import os
import resource
import struct
import sys
from pathlib import Path

from asr.audio import stream_audio
from asr.audio_file import source_name

REQUEST = struct.Struct("<IddQ")
MESSAGE = struct.Struct("<cI")
SAMPLES, DONE, BAD, TOO_LONG = b"s", b"d", b"b", b"l"
MAX_MESSAGE_BYTES = 1 << 26
FILE_NAME = "file"  # what messages call what was sent


def main(memory_bytes: int) -> None:
    """Decode until standard input ends."""
    import av  # noqa: F401 -- before memory is limited, as its libraries take address space

    # Libraries print what files say; what is sent back goes to a descriptor that they do not know.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # writes no file
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source = sys.stdin.buffer

    def send(kind: bytes, content: bytes = b"") -> None:
        sink.write(MESSAGE.pack(kind, len(content)) + content)
        sink.flush()

    while header := source.read(REQUEST.size):
        sample_rate, duration_s, cpu_s, num_bytes = REQUEST.unpack(header)
        content = source.read(num_bytes)
        used = resource.getrusage(resource.RUSAGE_SELF)
        until = math.ceil(used.ru_utime + used.ru_stime + cpu_s)
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
        left = round(duration_s * sample_rate)
        try:
            for block in stream_audio(content, sample_rate):
                left -= len(block)
                if left < 0:
                    send(TOO_LONG)
                    break
                send(SAMPLES, block.tobytes())
            else:
                send(DONE)
        except MemoryError:
            send(BAD, f"{FILE_NAME}: needs too much memory, expected common audio".encode())
        except (ValueError, OSError) as error:
            message = str(error).replace(source_name(content), FILE_NAME)
            send(BAD, message.encode(errors="replace"))
        del content
