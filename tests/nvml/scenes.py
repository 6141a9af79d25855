"""What nvidia-ml-py itself does on the stand-in: each scene calls it directly, and returns what a test can look at."""

import ctypes

import pynvml

from gpujobs.machine.nvml_faults import attempt, call


def first():
    """The first card."""
    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByIndex(0)


def outcome(read, *arguments):
    """What a call returns, or the name of what it raises."""
    try:
        return read(*arguments)
    except Exception as error:  # noqa: BLE001  # that is what is asked
        return type(error).__name__


def caught(function, *arguments):
    """The error of a function of pynvml."""
    try:
        getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError as error:
        return error
    raise AssertionError(f"{function} did not fail")


def judged(function, *arguments):
    """What our gate makes of a call: the code, whether it is absent, the text; or the value."""
    found = attempt(call, pynvml, function, *arguments)
    return [found.code, found.absent, found.text] if hasattr(found, "absent") else found


KEPT = {}


def keep():
    """Handles of the first card and its first slice, for when none can be had any more."""
    KEPT["card"] = first()
    KEPT["slice"] = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(KEPT["card"], 0)


def codes_of(names):
    """What each of these functions of the library returns: of a driver, of a card, of a slice."""
    library, room = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.create_string_buffer(4096)
    rest = [ctypes.byref(room)] * 5
    return {name: [getattr(library, name)(handle, *rest) for handle in KEPT.values()] for name in names}


def hash_of_an_error():
    """Of one that was raised, and its comparison with None."""
    error = caught("nvmlDeviceGetName", first())
    same = attempt(call, pynvml, "nvmlDeviceGetName", first())
    return [outcome(hash, error), outcome(lambda: error == None), len({same, same})]  # noqa: E711


def old_lists():
    """The list of processes under its plain name."""
    name = "nvmlDeviceGetComputeRunningProcesses"
    kind = outcome(getattr(pynvml, name), first())
    return [kind, issubclass(getattr(pynvml, kind), pynvml.NVMLError), judged(name, first())]


def samples():
    """The error of a device on which nothing ran."""
    return caught("nvmlDeviceGetProcessUtilization", first(), 0).value


def account():
    """The account of the first process."""
    (pid,) = pynvml.nvmlDeviceGetAccountingPids(first())
    name = "nvmlDeviceGetAccountingStats"
    return [outcome(getattr(pynvml, name), first(), pid), judged(name, first(), pid)]


def memory():
    """Used memory by the two versions."""
    versions = (None, pynvml.nvmlMemory_v2)
    return [pynvml.nvmlDeviceGetMemoryInfo(first(), version).used for version in versions]


def is_slice():
    """What is said of a card, as it is, and its value."""
    answer = pynvml.nvmlDeviceIsMigDeviceHandle(first())
    return [answer == answer.value, answer.value]


def memory_of_the_first():
    """The memory of the first process of the first card."""
    return pynvml.nvmlDeviceGetComputeRunningProcesses(first())[0].usedGpuMemory


def name_of_an_error():
    """The text of an error, with the library at hand."""
    return [str(caught("nvmlDeviceGetName", first())), judged("nvmlDeviceGetName", first())]


def functions_that_are_missing():
    """One that the driver does not have, and one that the binding does not have."""
    return [judged("nvmlDeviceGetName", first()), judged("nvmlDeviceGetNews", first())]


def handles():
    """Whether the ways to a card and to a slice lead to the same place; then what nowhere gives."""
    card = first()
    found = [
        pynvml.nvmlDeviceGetHandleByUUID(pynvml.nvmlDeviceGetUUID(card)),
        pynvml.nvmlDeviceGetHandleByPciBusId("0000:01:00.0"),
    ]
    slice_ = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, 2)
    found.append(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(slice_))
    uuids = [pynvml.nvmlDeviceGetUUID(each) for each in (card, *found)]
    lost = [
        caught("nvmlDeviceGetHandleByIndex", 99).value,
        caught("nvmlDeviceGetHandleByUUID", "GPU-none").value,
        caught("nvmlDeviceGetHandleByPciBusId", "0000:99:00.0").value,
        caught("nvmlDeviceGetMigDeviceHandleByIndex", card, 1).value,
        caught("nvmlDeviceGetMigDeviceHandleByIndex", card, 7).value,
    ]
    return [len(set(uuids)), pynvml.nvmlDeviceIsMigDeviceHandle(slice_).value, lost]


def stamps():
    """How many samples there are since the beginning, and since the newest."""
    name, card = "nvmlDeviceGetProcessUtilization", first()
    newest = max(sample.timeStamp for sample in pynvml.nvmlDeviceGetProcessUtilization(card, 0))
    return [len(pynvml.nvmlDeviceGetProcessUtilization(card, 0)), outcome(getattr(pynvml, name), card, newest + 10**9)]


def with_instances():
    """The lists of a card that is cut up, as the driver gives them."""
    listed = pynvml.nvmlDeviceGetComputeRunningProcesses(first())
    return [[one.pid, one.gpuInstanceId, one.computeInstanceId] for one in listed]


def closed():
    """What the library says after it was closed as often as it was opened, and when it is opened again."""
    codes = []
    while not codes:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            codes.append(error.value)
    codes.append(caught("nvmlDeviceGetCount").value)
    pynvml.nvmlInit()
    return [*codes, pynvml.nvmlDeviceGetCount()]


def of_the_card_only():
    """What a slice, and then its card, says to questions that cannot be asked of slices."""
    card = first()
    questions = {
        "nvmlDeviceGetTemperature": [0],
        "nvmlDeviceGetPowerUsage": [],
        "nvmlDeviceGetUtilizationRates": [],
        "nvmlDeviceGetProcessUtilization": [0],
        "nvmlDeviceGetMigMode": [],
    }
    return {
        name: [outcome(getattr(pynvml, name), handle, *rest) for handle in (slice_of(card, 0), card)]
        for name, rest in questions.items()
    }


def slice_of(card, number):
    """A slice of a card."""
    return pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, number)


def grown():
    """How long the list of processes is, asked three times."""
    lists = [outcome(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, first()) for _ in range(3)]
    return [found if isinstance(found, str) else len(found) for found in lists]


def versions():
    """The codes for versions of structures, and for a field, that the library does not know."""
    card, temperature = first(), pynvml.c_nvmlTemperature_v1_t(version=7)
    of_temperature = ctypes.CDLL("libnvidia-ml.so.1").nvmlDeviceGetTemperatureV
    fields = pynvml.nvmlDeviceGetFieldValues(card, [230, 1])
    return [
        caught("nvmlDeviceGetMemoryInfo", card, 7).value,
        of_temperature(card, ctypes.byref(temperature)),
        [field.nvmlReturn for field in fields],
    ]
