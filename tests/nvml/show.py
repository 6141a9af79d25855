"""Show what our driver reads. Lives where the stand-in is the NVML: the tests ask it, one JSON line each.

A request is a list of looks: each a ``machine`` as the stand-in has it (or a ``text`` that may be none), what is
``extra`` in it, the folder of those who are ``live`` on it, and whether to go on with the driver of the look before
(``same``). The answer is a list of the same length, each item a list of the parts that were read; with a ``deadline``,
the snapshot of a reader that runs this driver; with a ``scene``, what that function of ``scenes.py`` returns of the
``arguments``; with ``called``, the functions of nvidia-ml-py that were called.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import pynvml
import scenes
from plain import plain

from gpujobs.machine.nvml import NvmlDriver
from gpujobs.machine.reader import DriverSpec, Reader
from latest import latest


class Recorder:
    """The binding, and the names of the functions that it was asked for."""

    def __init__(self):
        self.names = set()

    def __getattr__(self, name):
        found = getattr(pynvml, name)
        if callable(found):
            self.names.add(name)
        return found


class Shower:
    """Answers one look after the other."""

    def __init__(self, sysfs):
        self.sysfs = sysfs
        self.driver = NvmlDriver(sysfs)

    def show(self, look):
        """What is asked for, of the machine in the look."""
        if "machine" in look:
            replace(Path(os.environ["FAKE_NVML_SCENARIO"]), json.dumps(look["machine"]))
        if "text" in look:
            replace(Path(os.environ["FAKE_NVML_SCENARIO"]), look["text"])
        os.environ["FAKE_NVML_EXTRA"] = look.get("extra", "")
        os.environ["FAKE_NVML_LIVE"] = look.get("live", "")
        if "scene" in look:
            return getattr(scenes, look["scene"])(*look.get("arguments", ()))
        if "deadline" in look:
            with Reader(DriverSpec("gpujobs.machine.nvml:NvmlDriver", self.sysfs)) as reader:
                return reader.snapshot(look["deadline"])
        if "called" in look:
            recorder = Recorder()
            NvmlDriver(self.sysfs, nvml=recorder).read([].append)
            return recorder.names
        if not look.get("same"):
            self.driver = NvmlDriver(self.sysfs)
        parts = []
        self.driver.read(parts.append, 10.0)
        return latest(parts)


def replace(path, text):
    """Write aside and rename: the stand-in sees another file."""
    aside = path.with_name(".aside")
    aside.write_text(text)
    aside.rename(path)


def main(sysfs):
    shower = Shower(sysfs)
    for line in sys.stdin:
        try:
            answer = [plain(shower.show(look)) for look in json.loads(line)]
        except Exception:  # noqa: BLE001  # the test fails, and shows this
            answer = traceback.format_exc()
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
