/* Who is on a device: the strangers of the scenario, and the processes that have put themselves down as using it. */
#ifndef PROCESSES_H
#define PROCESSES_H

#include "scenario.h"

enum { COMPUTES = 1, DRAWS = 2, MPS_CLIENT = 4 };

typedef struct {
    unsigned pid;
    u64 memory; /* bytes, or NOT_AVAILABLE */
    unsigned gpu_instance, compute_instance, kinds;
    int slice;
    int utilisation; /* percent, or -1: the driver has no sample of it */
    u64 idle;        /* microseconds since it last did something, or 0 */
    bool noted;      /* a real process; the load of strangers is in that of the device already */
} Process;

/* All processes of a card, or those of one slice; and what ended ones have left behind. */
typedef struct { Process *list; unsigned count; u64 leaked; } Crowd;

u64 now(void); /* in microseconds since the epoch */
Crowd crowd_on(const Device *device);
void disperse(Crowd *crowd);
#define CROWD(name, device) Crowd name __attribute__((cleanup(disperse))) = crowd_on(device)

typedef struct { u64 total, reserved, used, free; } Amounts;

/* The memory of a card or of a slice, which shares that of its GPU instance; its utilisation in percent. */
Amounts memory_of(const Call *call);
unsigned load_of(const Call *call);

#endif
