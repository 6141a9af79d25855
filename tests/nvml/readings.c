/* The functions of the library that read what a device does, and who makes it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "processes.h"

/* ---- numbers ---- */

/* A field of the card in the unit of NVML; what the scenario does not have, this card does not support. */
static int give_number(const Call *call, const char *key, double scale, u64 *out) {
    double number;
    if (extra_value(call, out)) return OK;
    if (!has_number(call->card, key, &number)) return NOT_SUPPORTED;
    *out = (u64)llround(number * scale);
    return OK;
}

#define NUMBER(name, type, key, scale, whom)                    \
    API int name(Device *device, type *out) {                   \
        u64 found;                                              \
        BEGIN(device, whom);                                    \
        int code = give_number(&call, key, scale, &found);      \
        if (!code) *out = (type)found;                          \
        return code;                                            \
    }

NUMBER(nvmlDeviceGetFanSpeed, unsigned, "fan", 1, CARDS)
NUMBER(nvmlDeviceGetPowerUsage, unsigned, "power", 1000, CARDS)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, "power_limit", 1000, CARDS)
NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, "power_limit", 1000, CARDS)
NUMBER(nvmlDeviceGetTotalEnergyConsumption, u64, "energy", 1000, CARDS)
NUMBER(nvmlDeviceGetPerformanceState, int, "performance_state", 1, CARDS)
NUMBER(nvmlDeviceGetPersistenceMode, int, "persistence", 1, CARDS)
NUMBER(nvmlDeviceGetDisplayActive, int, "display", 1, CARDS)
NUMBER(nvmlDeviceGetDisplayMode, int, "display", 1, CARDS)
NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, int, "retirement_pending", 1, CARDS)

/* What this driver has, and none of its cards. */
#define NEVER(name, ...)                        \
    API int name(Device *device, __VA_ARGS__) { \
        BEGIN(device, SLICES);                  \
        return NOT_SUPPORTED;                   \
    }
#define IGNORED __attribute__((unused))

NEVER(nvmlDeviceGetSerial, char *out IGNORED, unsigned size IGNORED)
NEVER(nvmlDeviceGetMaxClockInfo, int clock IGNORED, unsigned *out IGNORED)
NEVER(nvmlDeviceGetTemperatureThreshold, int threshold IGNORED, unsigned *out IGNORED)
NEVER(nvmlDeviceGetPcieThroughput, int counter IGNORED, unsigned *out IGNORED)
NEVER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned *out IGNORED)
NEVER(nvmlDeviceGetCurrPcieLinkWidth, unsigned *out IGNORED)
NEVER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned *out IGNORED)
NEVER(nvmlDeviceGetMaxPcieLinkWidth, unsigned *out IGNORED)
NEVER(nvmlDeviceGetDriverModel, int *current IGNORED, int *pending IGNORED)
NEVER(nvmlDeviceGetDriverModel_v2, int *current IGNORED, int *pending IGNORED)

enum { GPU_SENSOR = 0, TEMPERATURE_V1 = 0x100000C };
typedef struct { unsigned version; int sensor, temperature; } TemperatureV1;

API int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *out) {
    u64 found;
    BEGIN(device, CARDS);
    int code = sensor == GPU_SENSOR ? give_number(&call, "temperature", 1, &found) : INVALID_ARGUMENT;
    if (!code) *out = (unsigned)found;
    return code;
}

API int nvmlDeviceGetTemperatureV(Device *device, TemperatureV1 *out) {
    u64 found;
    BEGIN(device, CARDS);
    if (out->version != TEMPERATURE_V1) return VERSION_MISMATCH;
    int code = out->sensor == GPU_SENSOR ? give_number(&call, "temperature", 1, &found) : INVALID_ARGUMENT;
    if (!code) out->temperature = (int)found;
    return code;
}

API int nvmlDeviceGetClockInfo(Device *device, int clock, unsigned *out) {
    static const char *const keys[] = {"sm_clock", "sm_clock", "memory_clock"}; /* graphics, SM, memory */
    u64 found;
    BEGIN(device, CARDS);
    if (clock < 0 || clock > 3) return INVALID_ARGUMENT;
    int code = clock < 3 ? give_number(&call, keys[clock], 1, &found) : NOT_SUPPORTED; /* 3 is video */
    if (!code) *out = (unsigned)found;
    return code;
}

typedef struct { unsigned gpu, memory; } Utilization;

API int nvmlDeviceGetUtilizationRates(Device *device, Utilization *out) {
    u64 memory;
    BEGIN(device, CARDS);
    if (integer(call.card, "mig") || give_number(&call, "memory_utilisation", 1, &memory)) return NOT_SUPPORTED;
    *out = (Utilization){load_of(&call), (unsigned)memory};
    return OK;
}

#define CODEC(name)                                                     \
    API int name(Device *device, unsigned *out, unsigned *period) {     \
        BEGIN(device, CARDS);                                           \
        if (integer(call.card, "mig")) return NOT_SUPPORTED;            \
        *out = 0;                                                       \
        *period = 167000;                                               \
        return OK;                                                      \
    }

CODEC(nvmlDeviceGetEncoderUtilization)
CODEC(nvmlDeviceGetDecoderUtilization)

/* ---- modes and health ---- */

static int place_in(const char *text, const char *const *names, unsigned count) {
    for (unsigned place = 0; text && place < count; place++)
        if (strcmp(names[place], text) == 0) return (int)place;
    return -1;
}
#define PLACE_IN(text, names) place_in(text, names, sizeof names / sizeof *names)

API int nvmlDeviceGetComputeMode(Device *device, int *out) {
    static const char *const modes[] = {"default", "", "prohibited", "exclusive process"};
    u64 other;
    BEGIN(device, SLICES);
    int mode = call.self == call.card ? PLACE_IN(text_of(call.card, "compute_mode"), modes) : 0;
    if (extra_value(&call, &other)) mode = (int)other;
    if (mode < 0) return NOT_SUPPORTED;
    *out = mode;
    return OK;
}

API int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    u64 found;
    BEGIN(device, CARDS);
    int code = give_number(&call, "mig", 1, &found);
    if (!code) *current = *pending = (unsigned)found;
    return code;
}

/* Uncorrected since the last reset is all that a scenario tells. */
API int nvmlDeviceGetTotalEccErrors(Device *device, int type, int counter, u64 *out) {
    BEGIN(device, CARDS);
    return type == 1 && counter == 0 ? give_number(&call, "ecc_errors", 1, out) : NOT_SUPPORTED;
}

API int nvmlDeviceGetRemappedRows(Device *device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending,
                                  unsigned *failed) {
    double is_pending, has_failed;
    BEGIN(device, CARDS);
    bool known = has_number(call.card, "remap_pending", &is_pending) & has_number(call.card, "remap_failed", &has_failed);
    if (!known || integer(call.card, "mig")) return NOT_SUPPORTED;
    *correctable = 0;
    *uncorrectable = is_pending || has_failed;
    *pending = (unsigned)is_pending;
    *failed = (unsigned)has_failed;
    return OK;
}

static int give_reasons(const Call *call, u64 *out) {
    static const char *const reasons[] = {
        "idle", "application clocks", "power cap", "hardware slowdown", "sync boost", "too warm (driver)",
        "too hot (hardware)", "power brake", "display clocks",
    };
    const Json *list = json_get(call->card, "throttle");
    if (extra_value(call, out)) return OK;
    if (!list) return NOT_SUPPORTED;
    *out = !list->first && load_of(call) == 0;
    for (const Json *each = list->first; each; each = each->next) {
        int bit = PLACE_IN(each->text, reasons);
        if (bit >= 0) *out |= 1ULL << bit;
    }
    return OK;
}

#define REASONS(name)                           \
    API int name(Device *device, u64 *out) {    \
        BEGIN(device, CARDS);                   \
        return give_reasons(&call, out);        \
    }

REASONS(nvmlDeviceGetCurrentClocksEventReasons)
REASONS(nvmlDeviceGetCurrentClocksThrottleReasons)

enum { RECOVERY_ACTION = 230, UNSIGNED = 1 };
typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    int type, code;
    union { unsigned number; u64 widest; } value;
} FieldValue;

static int give_field(const Call *call, FieldValue *out) {
    static const char *const actions[] = {
        "none", "reset", "reboot", "drain P2P", "drain and reset", "recover IMEX domain",
    };
    u64 other;
    const char *what = extra(call);
    if (what && strncmp(what, "field", 5) == 0) return atoi(what + 5);
    int action = PLACE_IN(text_of(call->card, "recovery"), actions);
    if (extra_value(call, &other)) action = (int)other;
    if (out->field != RECOVERY_ACTION || action < 0) return NOT_SUPPORTED;
    out->type = UNSIGNED;
    out->value.number = (unsigned)action;
    return OK;
}

API int nvmlDeviceGetFieldValues(Device *device, int count, FieldValue *out) {
    BEGIN(device, CARDS);
    for (int each = 0; each < count; each++) out[each].code = give_field(&call, &out[each]);
    return OK;
}

/* ---- memory ---- */

enum { MEMORY_V2 = 0x2000028 };
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;

static bool has_memory(const Call *call) { return json_get(call->self, "memory") != NULL; }

API int nvmlDeviceGetMemoryInfo(Device *device, Memory *out) {
    BEGIN(device, SLICES);
    if (!has_memory(&call)) return NOT_SUPPORTED;
    Amounts found = memory_of(&call);
    *out = (Memory){found.total, found.free, found.used + found.reserved};
    return OK;
}

/* The window to it: as large as what it shows, and not in use. */
API int nvmlDeviceGetBAR1MemoryInfo(Device *device, Memory *out) {
    BEGIN(device, SLICES);
    if (!has_memory(&call)) return NOT_SUPPORTED;
    u64 total = memory_of(&call).total;
    *out = (Memory){total, total, 0};
    return OK;
}

API int nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *out) {
    BEGIN(device, SLICES);
    if (out->version != MEMORY_V2) return VERSION_MISMATCH;
    if (!has_memory(&call)) return NOT_SUPPORTED;
    Amounts found = memory_of(&call);
    *out = (MemoryV2){out->version, found.total, found.reserved, found.free, found.used};
    return OK;
}
