/* A libnvidia-ml.so.1 of our own: NVML on a machine that does not exist.
 *
 * Built by the tests, and put in front on LD_LIBRARY_PATH. What it answers stands in these variables:
 *
 *   FAKE_NVML_SCENARIO   a scenario as JSON, written out in full by gpujobs.testing.explicit; read again when replaced
 *   FAKE_NVML_LIVE       the folder of the processes that have put themselves down as using the machine
 *   FAKE_NVML_EXTRA      FUNCTION[@DEVICE]=WHAT;...  what no scenario can say, as WHAT:
 *                        crash     SIGSEGV
 *                        vN        the value N instead of the scenario's; of a list of processes, every pid
 *                        grow[N]   a list of processes does not fit, ever, or N times
 *                        fieldN    the return code of each field of nvmlDeviceGetFieldValues
 *                        loadN     the load in each sample of nvmlDeviceGetProcessUtilization
 */
#include "api.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the library ---- */

static const char *const texts[] = {
    "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions", "Already Initialized",
    "Not Found", "Insufficient Size", "Insufficient External Power", "Driver Not Loaded", "Timeout",
    "Interrupt Request Issue", "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost",
    "GPU requires restart", "The operating system has blocked the request",
    "RM has detected an NVML/RM version mismatch", "In Use", "Insufficient Memory", "No Data",
    "The requested vGPU operation is not available because ECC is enabled", "Insufficient Resources",
    "Frequency Not Supported", "Argument Version Mismatch", "Deprecated", "Not Ready", "GPU Not Found", "Invalid State",
    "Reset Type Not Supported",
};

API const char *nvmlErrorString(int code) {
    return code >= 0 && code < (int)(sizeof texts / sizeof *texts) ? texts[code] : "Unknown Error";
}

static int start(Call *call) {
    if (!call->code) attach(1);
    return call->code;
}

#define INIT(name, ...)                                                                        \
    API int name(__VA_ARGS__) {                                                                \
        Call call __attribute__((cleanup(leave))) = enter(__func__, NULL, THE_DRIVER);         \
        return start(&call);                                                                   \
    }

INIT(nvmlInit_v2, void)
INIT(nvmlInit, void)
INIT(nvmlInitWithFlags, unsigned flags __attribute__((unused)))

API int nvmlShutdown(void) {
    BEGIN(NULL, THE_DRIVER);
    attach(-1);
    return OK;
}

int give_text(const char *text, char *out, unsigned size) {
    if (!text) return NOT_SUPPORTED;
    return (unsigned)snprintf(out, size, "%s", text) < size ? OK : INSUFFICIENT_SIZE;
}

API int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    BEGIN(NULL, THE_DRIVER);
    return give_text(text_of(scenario(), "driver_version"), out, size);
}

static bool cuda_version(int *major, int *minor) {
    const char *text = text_of(scenario(), "cuda_version");
    return text && sscanf(text, "%d.%d", major, minor) == 2;
}

API int nvmlSystemGetNVMLVersion(char *out, unsigned size) {
    BEGIN(NULL, THE_DRIVER);
    char text[80];
    int major, minor;
    const char *driver = text_of(scenario(), "driver_version");
    if (!driver || !cuda_version(&major, &minor)) return NOT_SUPPORTED;
    snprintf(text, sizeof text, "%d.%s", major, driver);
    return give_text(text, out, size);
}

#define CUDA_VERSION(name)                                      \
    API int name(int *out) {                                    \
        int major, minor;                                       \
        BEGIN(NULL, THE_DRIVER);                                \
        if (!cuda_version(&major, &minor)) return NOT_SUPPORTED; \
        *out = 1000 * major + 10 * minor;                       \
        return OK;                                              \
    }

CUDA_VERSION(nvmlSystemGetCudaDriverVersion)
CUDA_VERSION(nvmlSystemGetCudaDriverVersion_v2)

/* ---- handles ---- */

#define COUNT(name)                                             \
    API int name(unsigned *out) {                               \
        BEGIN(NULL, THE_DRIVER);                                \
        *out = (unsigned)count_of(json_get(scenario(), "devices")); \
        return OK;                                              \
    }

COUNT(nvmlDeviceGetCount_v2)
COUNT(nvmlDeviceGetCount)

static int open_card(Call *call, int index, Device **out) {
    Device *found = handle(index, -1);
    int code = trouble(call, call->function, found);
    if (!code) *out = found;
    return code;
}

static int open_slice(Call *call, int card, int number, Device **out) {
    Device *found = handle(card, number);
    int code = trouble(call, call->function, found);
    if (!code) code = trouble(call, "nvmlDeviceGetHandleByIndex", found); /* a scenario's "unusable" and "hang" */
    if (!code) *out = found;
    return code;
}

#define BY_INDEX(name)                                                          \
    API int name(unsigned index, Device **out) {                                \
        BEGIN(NULL, THE_DRIVER);                                                \
        if (index >= MOST_CARDS || !card_at((int)index)) return INVALID_ARGUMENT; \
        return open_card(&call, (int)index, out);                               \
    }

BY_INDEX(nvmlDeviceGetHandleByIndex_v2)
BY_INDEX(nvmlDeviceGetHandleByIndex)

API int nvmlDeviceGetHandleByUUID(const char *uuid, Device **out) {
    BEGIN(NULL, THE_DRIVER);
    const Json *card, *slices;
    for (int index = 0; (card = card_at(index)); index++) {
        if (says(card, "uuid", uuid)) return open_card(&call, index, out);
        slices = json_get(card, "instances");
        for (const Json *each = slices ? slices->first : NULL; each; each = each->next)
            if (says(each, "uuid", uuid)) return open_slice(&call, index, (int)integer(each, "number"), out);
    }
    return NOT_FOUND;
}

typedef struct { unsigned domain, bus, device, function; } Address;

static bool address_of(const char *text, Address *out) {
    return text && sscanf(text, "%x:%x:%x.%x", &out->domain, &out->bus, &out->device, &out->function) == 4;
}

API int nvmlDeviceGetHandleByPciBusId_v2(const char *text, Device **out) {
    BEGIN(NULL, THE_DRIVER);
    Address wanted = {0}, found = {0};
    if (!address_of(text, &wanted)) return INVALID_ARGUMENT;
    const Json *card;
    for (int index = 0; (card = card_at(index)); index++)
        if (address_of(text_of(card, "bus_id"), &found) && memcmp(&wanted, &found, sizeof found) == 0)
            return open_card(&call, index, out);
    return NOT_FOUND;
}

API int nvmlDeviceIsMigDeviceHandle(Device *device, unsigned *out) {
    BEGIN(device, SLICES | THE_LOST);
    *out = device->slice >= 0;
    return OK;
}

API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *device, Device **out) {
    BEGIN(device, SLICES);
    if (device->slice < 0) return INVALID_ARGUMENT;
    *out = handle(device->card, -1);
    return OK;
}

API int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *out) {
    BEGIN(device, CARDS);
    *out = integer(call.card, "mig") ? MOST_SLICES : 0;
    return OK;
}

API int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned number, Device **out) {
    BEGIN(device, CARDS);
    if (number >= MOST_SLICES) return INVALID_ARGUMENT;
    if (!slice_of(call.card, (int)number)) return NOT_FOUND;
    return open_slice(&call, device->card, (int)number, out);
}

/* ---- what a device is ---- */

#define TEXT(name, key, whom)                                   \
    API int name(Device *device, char *out, unsigned size) {    \
        BEGIN(device, whom);                                    \
        return give_text(text_of(call.self, key), out, size);   \
    }

TEXT(nvmlDeviceGetUUID, "uuid", SLICES | THE_LOST)

/* A slice is called by its card and its profile. */
API int nvmlDeviceGetName(Device *device, char *out, unsigned size) {
    BEGIN(device, SLICES | THE_LOST);
    const char *name = text_of(call.card, "name"), *profile = text_of(call.self, "profile");
    char text[256];
    if (device->slice < 0 || !name || !profile) return give_text(name, out, size);
    snprintf(text, sizeof text, "%s MIG %s", name, profile);
    return give_text(text, out, size);
}

#define INDEX(name)                             \
    API int name(Device *device, unsigned *out) { \
        BEGIN(device, THE_LOST);                \
        *out = (unsigned)device->card;          \
        return OK;                              \
    }

INDEX(nvmlDeviceGetIndex)
INDEX(nvmlDeviceGetMinorNumber)

int give_pci(const Json *card, Pci *out) {
    Address address = {0};
    if (!address_of(text_of(card, "bus_id"), &address)) return NOT_SUPPORTED;
    *out = (Pci){.domain = address.domain, .bus = address.bus, .device = address.device, .id = 0x20B510DE};
    snprintf(out->bus_id, sizeof out->bus_id, "%s", text_of(card, "bus_id"));
    snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "%04X:%02X:%02X.%X", address.domain & 0xFFFF,
             address.bus & 0xFF, address.device & 0xFF, address.function & 0xF);
    return OK;
}

#define PCI(name)                               \
    API int name(Device *device, Pci *out) {    \
        BEGIN(device, THE_LOST);                \
        return give_pci(call.card, out);        \
    }

PCI(nvmlDeviceGetPciInfo_v3)
PCI(nvmlDeviceGetPciInfo_v2)

API int nvmlDeviceGetGpuInstanceId(Device *device, unsigned *out) {
    BEGIN(device, SLICES);
    if (device->slice < 0) return NOT_SUPPORTED;
    *out = (unsigned)integer(call.self, "gpu_instance");
    return OK;
}

API int nvmlDeviceGetComputeInstanceId(Device *device, unsigned *out) {
    BEGIN(device, SLICES);
    if (device->slice < 0) return NOT_SUPPORTED;
    *out = (unsigned)integer(call.self, "compute_instance");
    return OK;
}

/* The kernel's list of CPUs as words of bits; CPUs beyond the last word are left out. */
static int give_cpus(const Json *card, unsigned words, unsigned long *out) {
    const char *at = text_of(card, "cpus");
    unsigned first, last;
    int size;
    if (!at) return NOT_SUPPORTED;
    memset(out, 0, words * sizeof *out);
    for (; sscanf(at, "%u%n", &first, &size) == 1; at += *at == ',') {
        last = first;
        at += size;
        if (sscanf(at, "-%u%n", &last, &size) == 1) at += size;
        for (unsigned cpu = first; cpu <= last && cpu / 64 < words; cpu++) out[cpu / 64] |= 1UL << cpu % 64;
    }
    return OK;
}

API int nvmlDeviceGetCpuAffinity(Device *device, unsigned words, unsigned long *out) {
    BEGIN(device, CARDS);
    return give_cpus(call.card, words, out);
}

API int nvmlDeviceGetCpuAffinityWithinScope(Device *device, unsigned words, unsigned long *out, unsigned scope) {
    BEGIN(device, CARDS);
    return scope > 1 ? INVALID_ARGUMENT : give_cpus(call.card, words, out);
}
