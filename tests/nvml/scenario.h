/* The scenario that the library answers from, and what is wrong in it. */
#ifndef SCENARIO_H
#define SCENARIO_H

#include <stdbool.h>

#include "json.h"

typedef unsigned long long u64;

enum {
    OK, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, NOT_LOADED = 9,
    LOST = 15, VERSION_MISMATCH = 25, UNKNOWN = 999,
};
enum { MOST_CARDS = 64, MOST_SLICES = 7, MOST_LINKS = 18 };
#define NOT_AVAILABLE (~0ULL)
#define NO_INSTANCE (~0U)

/* A handle, good for as long as the library is loaded; what is behind it is looked up at each call. */
typedef struct { int card, slice; /* -1: the whole card */ } Device;

/* What a function is about, and which devices it answers for besides the cards that are well. */
enum { THE_DRIVER = -1, CARDS = 0, SLICES = 1, THE_LOST = 2 };

/* One call of the library. While it lasts, nobody else is in, and the scenario stays as it is. */
typedef struct {
    const char *function;
    const Device *device;
    const Json *card, *self; /* self is the card or the slice; both are NULL where it is about the driver */
    bool locked;
    int code;
} Call;

Call enter(const char *function, const Device *device, int whom);
void leave(Call *call);

/* Begins the body of a function of the library: it returns from it where the call fails. */
#define BEGIN(device, whom)                                                                   \
    Call call __attribute__((cleanup(leave))) = enter(__func__, device, whom);                \
    if (call.code) return call.code;

/* nvmlInit counts up, nvmlShutdown down; before the first and after the last of them nothing is answered. */
void attach(int by);

/* Whether there is trouble with another device than the call's own; it hangs here if that hangs. */
int trouble(Call *call, const char *function, const Device *device);

/* What FAKE_NVML_EXTRA says of the call's function on its device, or NULL; extra_value: where it is a number, vN. */
const char *extra(const Call *call);
bool extra_value(const Call *call, u64 *out);

const Json *scenario(void);
unsigned scenario_number(void); /* another one when another file is read */
const Json *card_at(int index);
const Json *slice_of(const Json *card, int number);
int count_of(const Json *list);
Device *handle(int card, int slice);

/* A field of a table as a number, and whether it is there; as 0 where it is not. */
bool has_number(const Json *table, const char *key, double *out);
u64 integer(const Json *table, const char *key);
const char *text_of(const Json *table, const char *key);
bool says(const Json *table, const char *key, const char *text);

/* Whether a fault's, or a stranger's, device is this one. */
bool lists_device(const Json *entry, int card, int slice);

#endif
