/* A stand-in for NVIDIA's libnvidia-ml.so.1: as many devices as asked for, and whatever is to be wrong with them.
 *
 * Built by the tests, and put in front on LD_LIBRARY_PATH. Its scenario is in the environment, read at every call:
 *
 *   FAKE_NVML_COUNT      how many devices; 2
 *   FAKE_NVML            FUNCTION[@DEVICE]=WHAT;...   WHAT is an error code, vN (the value N instead of the usual one),
 *                        hang, crash, or grow (a list of processes never fits)
 *   FAKE_NVML_PROCESSES  DEVICE KIND:PID:MEMORY;...   as in 0C:4711:1048576;1M:4712:-   KIND is C, G or M, - is unknown
 *   FAKE_NVML_LINKS      DEVICE>END;...               NVLinks in their order: END is a device or s, a switch; 1- is down
 *   FAKE_NVML_UUID       what the UUIDs begin with; GPU-
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define NO_DEVICE -1
#define MOST 16

typedef unsigned long long u64;
typedef struct { int index; } Device;
typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
} Pci;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } Process;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;
typedef struct { unsigned gpu, memory; } Utilization;

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };
enum { RESERVED_MIB = 512, TOTAL_MIB = 81920 };

static Device devices[MOST];

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

/* What the scenario says of a function on a device: the text behind the sign =, or NULL. */
static const char *said(const char *function, int device) {
    static char what[32];
    char name[128], on_device[128];
    snprintf(name, sizeof name, "%s=", function);
    snprintf(on_device, sizeof on_device, "%s@%d=", function, device);
    for (const char *entry = setting("FAKE_NVML", ""); entry; entry = strchr(entry, ';')) {
        entry += *entry == ';';
        const char *prefix = strncmp(entry, on_device, strlen(on_device)) ? name : on_device;
        if (strncmp(entry, prefix, strlen(prefix)) == 0) {
            snprintf(what, sizeof what, "%.*s", (int)strcspn(entry + strlen(prefix), ";"), entry + strlen(prefix));
            return what;
        }
        if (!*entry) break;
    }
    return NULL;
}

/* Does what is said, and returns the error code. */
static int trouble(const char *function, int device) {
    const char *what = said(function, device);
    if (what && strcmp(what, "hang") == 0)
        for (;;) pause();
    if (what && strcmp(what, "crash") == 0) raise(SIGSEGV);
    return what && *what >= '0' && *what <= '9' ? atoi(what) : OK;
}

static u64 value(const char *function, int device, u64 usual) {
    const char *what = said(function, device);
    return what && *what == 'v' ? strtoull(what + 1, NULL, 10) : usual;
}

static int count(void) { return atoi(setting("FAKE_NVML_COUNT", "2")); }

#define ENTER(device) do { int code = trouble(__func__, device); if (code) return code; } while (0)
#define NUMBER(name, type, usual)                                   \
    API int name(Device *device, type *out) {                       \
        ENTER(device->index);                                       \
        *out = (type)value(__func__, device->index, usual);         \
        return OK;                                                  \
    }

/* ---- the library ---- */

API int nvmlInitWithFlags(unsigned flags) { (void)flags; ENTER(NO_DEVICE); return OK; }
API int nvmlShutdown(void) { return OK; }
API const char *nvmlErrorString(int code) { (void)code; return "An error of the stand-in"; }

API int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    ENTER(NO_DEVICE);
    snprintf(out, size, "590.48.01");
    return OK;
}

API int nvmlSystemGetCudaDriverVersion(int *out) {
    ENTER(NO_DEVICE);
    *out = 13010;
    return OK;
}

API int nvmlDeviceGetCount_v2(unsigned *out) {
    ENTER(NO_DEVICE);
    *out = count();
    return OK;
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **out) {
    if ((int)index >= count() || index >= MOST) return INVALID_ARGUMENT;
    ENTER((int)index);
    devices[index].index = (int)index;
    *out = &devices[index];
    return OK;
}

/* ---- what a device is ---- */

API int nvmlDeviceGetUUID(Device *device, char *out, unsigned size) {
    ENTER(device->index);
    snprintf(out, size, "%s%08d-0000-0000-0000-000000000000", setting("FAKE_NVML_UUID", "GPU-"), device->index);
    return OK;
}

API int nvmlDeviceGetName(Device *device, char *out, unsigned size) {
    ENTER(device->index);
    snprintf(out, size, "NVIDIA A100 80GB PCIe");
    return OK;
}

static void describe_pci(int index, Pci *out) {
    memset(out, 0, sizeof *out);
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", 0x3B + index);
    snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "0000:%02X:00.0", 0x3B + index);
}

API int nvmlDeviceGetPciInfo_v3(Device *device, Pci *out) {
    ENTER(device->index);
    describe_pci(device->index, out);
    return OK;
}

NUMBER(nvmlDeviceGetMinorNumber, unsigned, device->index)

/* CPUs 0, 2, 4, 6 are near even devices, 1, 3, 5, 7 near odd ones. */
API int nvmlDeviceGetCpuAffinity(Device *device, unsigned words, unsigned long *out) {
    ENTER(device->index);
    memset(out, 0, words * sizeof *out);
    out[0] = (unsigned long)value(__func__, device->index, device->index % 2 ? 0xAA : 0x55);
    return OK;
}

/* ---- what it does ---- */

API int nvmlDeviceGetMemoryInfo(Device *device, Memory *out) {
    ENTER(device->index);
    *out = (Memory){(u64)TOTAL_MIB << 20, (u64)(TOTAL_MIB - RESERVED_MIB - 1024) << 20, (u64)(RESERVED_MIB + 1024) << 20};
    return OK;
}

API int nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *out) {
    ENTER(device->index);
    out->total = (u64)TOTAL_MIB << 20;
    out->reserved = (u64)RESERVED_MIB << 20;
    out->used = (u64)1024 << 20;
    out->free = out->total - out->reserved - out->used;
    return OK;
}

API int nvmlDeviceGetUtilizationRates(Device *device, Utilization *out) {
    ENTER(device->index);
    *out = (Utilization){87, 23};
    return OK;
}

API int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *out) {
    (void)sensor;
    ENTER(device->index);
    *out = 41;
    return OK;
}

API int nvmlDeviceGetTotalEccErrors(Device *device, int type, int counter, u64 *out) {
    ENTER(device->index);
    *out = type == 1 && counter == 0 ? 0 : 99;
    return OK;
}

API int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    ENTER(device->index);
    *current = (unsigned)value(__func__, device->index, 0);
    *pending = 1;
    return OK;
}

NUMBER(nvmlDeviceGetFanSpeed, unsigned, 30)
NUMBER(nvmlDeviceGetPowerUsage, unsigned, 43210)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 300000)
NUMBER(nvmlDeviceGetTotalEnergyConsumption, u64, 5000000000500)
NUMBER(nvmlDeviceGetPerformanceState, int, 0)
NUMBER(nvmlDeviceGetPersistenceMode, int, 1)
NUMBER(nvmlDeviceGetDisplayActive, int, 0)
NUMBER(nvmlDeviceGetComputeMode, int, 0)

/* ---- who is on it ---- */

static int list(const char *function, Device *device, char kind, unsigned *size, Process *out) {
    const char *what = said(function, device->index);
    unsigned found = 0, room = *size;
    int index, read;
    char is, memory[32];
    const char *entry = setting("FAKE_NVML_PROCESSES", "");
    for (unsigned pid; sscanf(entry, "%d%c:%u:%31[^;]%n", &index, &is, &pid, memory, &read) == 4;) {
        if (index == device->index && is == kind) {
            if (out && found < room)
                out[found] = (Process){pid, *memory == '-' ? ~0ULL : strtoull(memory, NULL, 10), ~0U, ~0U};
            found++;
        }
        entry += read + (entry[read] == ';');
    }
    *size = found;
    if (what && strcmp(what, "grow") == 0) return INSUFFICIENT_SIZE;
    return found > room ? INSUFFICIENT_SIZE : OK;
}

#define LIST(name, kind)                                                        \
    API int name(Device *device, unsigned *size, Process *out) {                \
        ENTER(device->index);                                                   \
        return list(__func__, device, kind, size, out);                         \
    }

LIST(nvmlDeviceGetComputeRunningProcesses_v3, 'C')
LIST(nvmlDeviceGetComputeRunningProcesses_v2, 'C')
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, 'G')
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'M')

/* ---- where it is ---- */

API int nvmlDeviceGetTopologyCommonAncestor(Device *one, Device *other, int *out) {
    (void)other;
    ENTER(one->index);
    *out = (int)value(__func__, one->index, 30);
    return OK;
}

/* The end of the device's n-th NVLink, a device or s, and whether it is down; 0 where there is no such link. */
static char end_of(Device *device, unsigned link, int *down) {
    int index, read;
    char end;
    const char *entry = setting("FAKE_NVML_LINKS", "");
    for (unsigned n = 0; sscanf(entry, "%d>%c%n", &index, &end, &read) == 2; entry += read + (entry[read] == ';')) {
        *down = entry[read] == '-';
        if (index == device->index && n++ == link) return end;
        entry += *down;
    }
    return 0;
}

API int nvmlDeviceGetNvLinkState(Device *device, unsigned link, int *out) {
    ENTER(device->index);
    if (!getenv("FAKE_NVML_LINKS")) return NOT_SUPPORTED;
    int down = 1;
    char end = end_of(device, link, &down);
    *out = !down;
    return end ? OK : INVALID_ARGUMENT;
}

API int nvmlDeviceGetNvLinkRemoteDeviceType(Device *device, unsigned link, int *out) {
    ENTER(device->index);
    int down;
    *out = end_of(device, link, &down) == 's' ? 2 : 0;
    return OK;
}

API int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device *device, unsigned link, Pci *out) {
    ENTER(device->index);
    int down;
    char end = end_of(device, link, &down);
    if (end == 's') snprintf(out->bus_id, sizeof out->bus_id, "00000000:C0:00.0");
    else describe_pci(end - '0', out);
    return OK;
}
