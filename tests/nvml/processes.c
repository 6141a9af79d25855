#define _GNU_SOURCE
#include "processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MICRO = 1000000, LARGEST_NOTE = 4096, NOT_HERE = -2, THE_CARD = -1 };

u64 now(void) {
    struct timespec clock;
    clock_gettime(CLOCK_REALTIME, &clock);
    return (u64)clock.tv_sec * MICRO + (u64)clock.tv_nsec / 1000;
}

static void add(Crowd *crowd, Process process) {
    crowd->list = realloc(crowd->list, (crowd->count + 1) * sizeof process);
    if (!crowd->list) abort();
    crowd->list[crowd->count++] = process;
}

void disperse(Crowd *crowd) { free(crowd->list); }

/* ---- strangers ---- */

static unsigned kinds_of(const Json *stranger) {
    const char *kinds = text_of(stranger, "kinds");
    if (!kinds) return 0;
    return (strchr(kinds, 'C') ? COMPUTES : 0u) | (strchr(kinds, 'G') ? DRAWS : 0u) | (strchr(kinds, 'M') ? MPS_CLIENT : 0u);
}

static Process at(const Json *card, int slice, Process process) {
    const Json *found = slice < 0 ? NULL : slice_of(card, slice);
    process.slice = slice;
    process.gpu_instance = found ? (unsigned)integer(found, "gpu_instance") : NO_INSTANCE;
    process.compute_instance = found ? (unsigned)integer(found, "compute_instance") : NO_INSTANCE;
    return process;
}

static Process as_process(const Json *stranger) {
    double load, idle;
    bool is_loaded = has_number(stranger, "utilisation", &load), is_idle = has_number(stranger, "idle", &idle) && idle > 0;
    return (Process){
        .pid = (unsigned)integer(stranger, "pid"),
        .memory = says(stranger, "memory", "unknown") ? NOT_AVAILABLE : integer(stranger, "memory"),
        .kinds = kinds_of(stranger),
        .utilisation = is_idle ? 0 : is_loaded ? (int)load : -1,
        .idle = is_idle ? (u64)(idle * MICRO) : 0,
    };
}

static void add_strangers(Crowd *crowd, const Json *card, int index) {
    const Json *list = json_get(scenario(), "strangers"), *slices = json_get(card, "instances");
    for (const Json *each = list ? list->first : NULL; each; each = each->next) {
        if (lists_device(each, index, THE_CARD)) add(crowd, at(card, THE_CARD, as_process(each)));
        for (const Json *slice = slices ? slices->first : NULL; slice; slice = slice->next) {
            int number = (int)integer(slice, "number");
            if (lists_device(each, index, number)) add(crowd, at(card, number, as_process(each)));
        }
    }
}

/* The strangers of a card and of its slices. They may be thousands, and are the same until another file is read. */
static const Crowd *strangers_on(const Json *card, int index) {
    static struct { Crowd crowd; unsigned number; } known[MOST_CARDS];
    if (known[index].number != scenario_number()) {
        disperse(&known[index].crowd);
        known[index].crowd = (Crowd){0};
        add_strangers(&known[index].crowd, card, index);
        known[index].number = scenario_number();
    }
    return &known[index].crowd;
}

/* ---- those who have put themselves down, each in a file UUID.PID.START of the live folder ---- */

typedef struct { char uuid[64]; unsigned pid; u64 start; unsigned owner; u64 memory; int utilisation; char path[4352]; } Note;

static size_t read_file(const char *path, char *out, size_t room) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t size = descriptor < 0 ? -1 : read(descriptor, out, room - 1);
    if (descriptor >= 0) close(descriptor);
    out[size < 0 ? 0 : size] = '\0';
    return size < 0 ? 0 : (size_t)size;
}

/* Whether the process lives, a zombie does not, and is its owner's. */
static bool is_alive(const Note *note) {
    char path[64], text[4096], state;
    u64 start;
    unsigned uid;
    snprintf(path, sizeof path, "/proc/%u/stat", note->pid);
    if (!read_file(path, text, sizeof text)) return false;
    const char *rest = strrchr(text, ')');
    const char *format = ") %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu";
    if (!rest || sscanf(rest, format, &state, &start) != 2 || start != note->start || strchr("ZX", state)) return false;
    snprintf(path, sizeof path, "/proc/%u/status", note->pid);
    read_file(path, text, sizeof text);
    const char *line = strstr(text, "\nUid:");
    return line && sscanf(line, "\nUid: %*u %u", &uid) == 1 && uid == note->owner;
}

static bool is_of_this_boot(const Json *note) {
    char boot[64];
    size_t size = read_file("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    if (size) boot[strcspn(boot, "\n")] = '\0';
    return says(note, "boot", boot);
}

static bool read_note(const char *folder, const char *name, Note *note) {
    char text[LARGEST_NOTE + 1], rest;
    struct stat status;
    if (sscanf(name, "%63[A-Za-z0-9-].%u.%llu%c", note->uuid, &note->pid, &note->start, &rest) != 3) return false;
    snprintf(note->path, sizeof note->path, "%s/%s", folder, name);
    if (lstat(note->path, &status) || !S_ISREG(status.st_mode) || status.st_size > LARGEST_NOTE) return false;
    note->owner = status.st_uid;
    read_file(note->path, text, sizeof text);
    Json *said = json_read(text);
    bool sound = said && is_of_this_boot(said);
    note->memory = integer(said, "memory");
    note->utilisation = (int)integer(said, "utilisation");
    json_free(said);
    return sound;
}

static bool is_stuck(int card, int slice) {
    const Json *list = json_get(scenario(), "faults");
    for (const Json *each = list ? list->first : NULL; each; each = each->next)
        if (says(each, "kind", "stuck") && (!json_get(each, "device") || lists_device(each, card, slice))) return true;
    return false;
}

/* Whether the memory of an ended process is still to be seen. The first who looks notes when it was gone. */
static bool lingers(const Note *note) {
    char path[sizeof note->path + 8];
    struct stat status;
    double delay;
    if (!has_number(scenario(), "release_delay", &delay) || delay <= 0) return false;
    snprintf(path, sizeof path, "%s.gone", note->path);
    int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (descriptor >= 0) close(descriptor);
    if (lstat(path, &status)) return false;
    double since = (double)status.st_mtim.tv_sec + (double)status.st_mtim.tv_nsec / 1e9;
    return (double)now() / MICRO < since + delay;
}

/* Which part of the card has this UUID: a slice's number, THE_CARD or NOT_HERE. */
static int part_of(const Json *card, const char *uuid) {
    if (says(card, "uuid", uuid)) return THE_CARD;
    const Json *list = json_get(card, "instances");
    for (const Json *each = list ? list->first : NULL; each; each = each->next)
        if (says(each, "uuid", uuid)) return (int)integer(each, "number");
    return NOT_HERE;
}

static void add_noted(Crowd *crowd, const Json *card, const Device *device, const Note *note) {
    int slice = part_of(card, note->uuid);
    if (slice == NOT_HERE || (device->slice != THE_CARD && slice != device->slice)) return;
    bool alive = is_alive(note);
    if (!alive && is_stuck(device->card, slice)) {
        crowd->leaked += note->memory;
    } else if (alive || lingers(note)) {
        int utilisation = alive && note->utilisation ? note->utilisation : -1;
        Process process = {.pid = note->pid, .memory = note->memory, .kinds = COMPUTES, .utilisation = utilisation};
        process.noted = true;
        add(crowd, at(card, slice, process));
    }
}

static void add_living(Crowd *crowd, const Json *card, const Device *device) {
    const char *folder = getenv("FAKE_NVML_LIVE");
    struct dirent **entries;
    int count = folder ? scandir(folder, &entries, NULL, alphasort) : -1;
    for (int each = 0; each < count; each++) {
        Note note = {0};
        if (read_note(folder, entries[each]->d_name, &note)) add_noted(crowd, card, device, &note);
        free(entries[each]);
    }
    if (count >= 0) free(entries);
}

Crowd crowd_on(const Device *device) {
    Crowd crowd = {0};
    const Json *card = card_at(device->card);
    const Crowd *strangers = strangers_on(card, device->card);
    for (unsigned each = 0; each < strangers->count; each++)
        if (device->slice == THE_CARD || strangers->list[each].slice == device->slice)
            add(&crowd, strangers->list[each]);
    add_living(&crowd, card, device);
    return crowd;
}

/* ---- what they make of the device ---- */

static u64 used_on(int card, int slice, const Json *self) {
    CROWD(crowd, (&(Device){card, slice}));
    u64 used = integer(self, "used") + crowd.leaked;
    for (unsigned each = 0; each < crowd.count; each++)
        if (crowd.list[each].memory != NOT_AVAILABLE) used += crowd.list[each].memory;
    return used;
}

static Amounts settled(const Json *self, u64 used) {
    u64 total = integer(self, "memory"), reserved = integer(self, "reserved");
    if (used > total - reserved) used = total - reserved;
    return (Amounts){total, reserved, used, total - reserved - used};
}

Amounts memory_of(const Call *call) {
    bool of_a_slice = call->self != call->card;
    u64 used = of_a_slice ? 0 : used_on(call->device->card, THE_CARD, call->card);
    const Json *owner = of_a_slice ? NULL : call->card, *list = json_get(call->card, "instances");
    for (const Json *each = list ? list->first : NULL; each; each = each->next) {
        if (!of_a_slice) {
            used += integer(each, "used");
        } else if (integer(each, "gpu_instance") == integer(call->self, "gpu_instance")) {
            owner = owner ? owner : each; /* the first one tells how large the instance is */
            used += used_on(call->device->card, (int)integer(each, "number"), each);
        }
    }
    return settled(owner, used);
}

unsigned load_of(const Call *call) {
    CROWD(crowd, call->device);
    u64 load = integer(call->card, "utilisation");
    for (unsigned each = 0; each < crowd.count; each++)
        if (crowd.list[each].noted && crowd.list[each].utilisation > 0) load += (u64)crowd.list[each].utilisation;
    return load > 100 ? 100 : (unsigned)load;
}
