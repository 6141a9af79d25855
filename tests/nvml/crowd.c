/* The functions of the library that tell who is on a device, and how near it is to another. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "processes.h"

/* ---- lists of processes ---- */

typedef struct { unsigned pid; u64 memory; } Entry;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } EntryWithInstances;

/* Whether the list does not fit this time, because it has grown since it was counted; counted anew per scenario. */
static bool has_grown(const Call *call) {
    static unsigned times, number;
    const char *what = extra(call);
    if (!what || strncmp(what, "grow", 4)) return false;
    if (what[4] == '\0') return true;
    if (number != scenario_number()) times = 0;
    number = scenario_number();
    return times++ < (unsigned)atoi(what + 4);
}

static void put(void *out, unsigned place, const Process *process, bool with_instances, const u64 *pid) {
    unsigned shown = pid ? (unsigned)*pid : process->pid;
    if (with_instances)
        ((EntryWithInstances *)out)[place] =
            (EntryWithInstances){shown, process->memory, process->gpu_instance, process->compute_instance};
    else
        ((Entry *)out)[place] = (Entry){shown, process->memory};
}

static int list(const Call *call, unsigned kind, bool with_instances, unsigned *size, void *out) {
    CROWD(crowd, call->device);
    unsigned room = out ? *size : 0, found = 0;
    u64 pid;
    bool replaced = extra_value(call, &pid);
    for (unsigned each = 0; each < crowd.count; each++) {
        if (!(crowd.list[each].kinds & kind)) continue;
        if (found < room) put(out, found, &crowd.list[each], with_instances, replaced ? &pid : NULL);
        found++;
    }
    *size = found;
    return found > room || (out && has_grown(call)) ? INSUFFICIENT_SIZE : OK;
}

#define LIST(name, kind, with_instances)                        \
    API int name(Device *device, unsigned *size, void *out) {   \
        BEGIN(device, SLICES);                                  \
        return list(&call, kind, with_instances, size, out);    \
    }

LIST(nvmlDeviceGetComputeRunningProcesses_v3, COMPUTES, true)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, COMPUTES, true)
LIST(nvmlDeviceGetComputeRunningProcesses, COMPUTES, false)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, DRAWS, true)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, DRAWS, true)
LIST(nvmlDeviceGetGraphicsRunningProcesses, DRAWS, false)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, MPS_CLIENT, true)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, MPS_CLIENT, true)
LIST(nvmlDeviceGetMPSComputeRunningProcesses, MPS_CLIENT, false)

/* ---- samples of processes ---- */

typedef struct { unsigned pid; u64 stamp; unsigned multiprocessors, memory, encoder, decoder; } Sample;

typedef struct { Sample *list; unsigned room, found; u64 since; } Samples;

static void add(Samples *samples, unsigned pid, u64 stamp, int load) {
    if (load < 0 || stamp <= samples->since) return;
    if (samples->found < samples->room) samples->list[samples->found] = (Sample){pid, stamp, (unsigned)load, 0, 0, 0};
    samples->found++;
}

static unsigned fill(Samples samples, const Crowd *crowd) {
    u64 stamp = now();
    for (unsigned each = 0; each < crowd->count; each++) {
        const Process *process = &crowd->list[each];
        if (process->idle) add(&samples, process->pid, stamp - process->idle, 1); /* it has worked then */
        add(&samples, process->pid, stamp, process->utilisation);
    }
    return samples.found;
}

/* With "v0" it says, as some drivers do, that there are none and that all is well; with "loadN" each has N percent. */
API int nvmlDeviceGetProcessUtilization(Device *device, Sample *out, unsigned *size, u64 since) {
    u64 none;
    BEGIN(device, CARDS);
    if (integer(call.card, "mig")) return NOT_SUPPORTED;
    CROWD(crowd, device);
    unsigned room = out ? *size : 0;
    *size = extra_value(&call, &none) ? (unsigned)none : fill((Samples){out, room, 0, since}, &crowd);
    if (*size == 0) return extra(&call) ? OK : NOT_FOUND;
    const char *what = extra(&call);
    for (unsigned each = 0; what && strncmp(what, "load", 4) == 0 && each < *size && each < room; each++)
        out[each].multiprocessors = (unsigned)atoi(what + 4);
    return *size > room ? INSUFFICIENT_SIZE : OK;
}

/* ---- accounting: off, as on most machines, unless nvmlDeviceGetAccountingMode=v1 ---- */

enum { BUFFER_SIZE = 4000 };
typedef struct {
    unsigned gpu_utilization, memory_utilization;
    u64 most_memory, time, start;
    unsigned is_running, reserved[5];
} Account;

static bool accounts(const Call *call) {
    Call mode = *call;
    u64 on;
    mode.function = "nvmlDeviceGetAccountingMode";
    return extra_value(&mode, &on) && on;
}

API int nvmlDeviceGetAccountingMode(Device *device, int *out) {
    BEGIN(device, CARDS);
    *out = accounts(&call);
    return OK;
}

API int nvmlDeviceGetAccountingBufferSize(Device *device, unsigned *out) {
    BEGIN(device, CARDS);
    *out = BUFFER_SIZE;
    return OK;
}

API int nvmlDeviceGetAccountingPids(Device *device, unsigned *size, unsigned *out) {
    BEGIN(device, CARDS);
    if (!accounts(&call)) return NOT_SUPPORTED;
    CROWD(crowd, device);
    unsigned room = out ? *size : 0;
    for (unsigned each = 0; each < crowd.count && each < room; each++) out[each] = crowd.list[each].pid;
    *size = crowd.count;
    return crowd.count > room ? INSUFFICIENT_SIZE : OK;
}

API int nvmlDeviceGetAccountingStats(Device *device, unsigned pid, Account *out) {
    BEGIN(device, CARDS);
    if (!accounts(&call)) return NOT_SUPPORTED;
    CROWD(crowd, device);
    for (unsigned each = 0; each < crowd.count; each++) {
        const Process *found = &crowd.list[each];
        if (found->pid != pid) continue;
        unsigned load = found->utilisation < 0 ? 0 : (unsigned)found->utilisation;
        *out = (Account){.gpu_utilization = load, .most_memory = found->memory, .start = now(), .is_running = 1};
        return OK;
    }
    return NOT_FOUND;
}

/* ---- neighbours ---- */

static bool is_node_known(int card, double *out) { return has_number(card_at(card), "numa_node", out); }

static const char *link_between(int one, int other) {
    const Json *links = json_get(scenario(), "links");
    u64 a = (u64)(one < other ? one : other), b = (u64)(one < other ? other : one);
    for (const Json *each = links ? links->first : NULL; each; each = each->next)
        if (integer(each, "a") == a && integer(each, "b") == b) return text_of(each, "kind");
    return NULL;
}

/* What a pair with NVLinks has besides them is not in the scenario: it goes by their NUMA nodes, or is farthest. */
static int level_beside(int one, int other) {
    double node, other_node;
    bool known = is_node_known(one, &node) && is_node_known(other, &other_node);
    return known && node == other_node ? 40 : 50;
}

API int nvmlDeviceGetTopologyCommonAncestor(Device *device, Device *other, int *out) {
    static const char *const kinds[] = {"internal", "single", "multiple", "hostbridge", "node", "system"};
    u64 level;
    BEGIN(device, CARDS);
    const char *kind = link_between(device->card, other->card);
    if (extra_value(&call, &level)) return *out = (int)level, OK;
    if (!kind) return NOT_SUPPORTED;
    if (strcmp(kind, "nvlink") == 0) return *out = level_beside(device->card, other->card), OK;
    for (unsigned each = 0; each < sizeof kinds / sizeof *kinds; each++)
        if (strcmp(kinds[each], kind) == 0) return *out = 10 * (int)each, OK;
    return NOT_SUPPORTED;
}

/* The card at the other end of the n-th NVLink; each pair has one. */
static int far_end(const Device *device, unsigned link, int *out) {
    if (link >= MOST_LINKS) return INVALID_ARGUMENT;
    for (int other = 0; card_at(other); other++) {
        const char *kind = other == device->card ? NULL : link_between(device->card, other);
        if (kind && strcmp(kind, "nvlink") == 0 && link-- == 0) return *out = other, OK;
    }
    return NOT_SUPPORTED;
}

API int nvmlDeviceGetNvLinkState(Device *device, unsigned link, int *out) {
    u64 state = 1;
    int other;
    BEGIN(device, CARDS);
    int code = far_end(device, link, &other);
    if (!code) extra_value(&call, &state), *out = (int)state;
    return code;
}

API int nvmlDeviceGetNvLinkRemoteDeviceType(Device *device, unsigned link, int *out) {
    u64 type = 0; /* a GPU; 2 would be a switch */
    int other;
    BEGIN(device, CARDS);
    int code = far_end(device, link, &other);
    if (!code) extra_value(&call, &type), *out = (int)type;
    return code;
}

API int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device *device, unsigned link, Pci *out) {
    int other;
    BEGIN(device, CARDS);
    int code = far_end(device, link, &other);
    return code ? code : give_pci(card_at(other), out);
}
