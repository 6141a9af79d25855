#define _GNU_SOURCE
#include "scenario.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Device handles[MOST_CARDS][1 + MOST_SLICES];
static int attached; /* nvmlInit is counted */

/* ---- the file ---- */

static struct {
    char path[4096];
    struct stat status;
    char *text;
    Json *root;
    int code; /* why there is no root */
    unsigned number;
} file;

static int complain(const char *path, const char *what, int code) {
    fprintf(stderr, "libnvidia-ml.so.1 of the tests: %s%s%s\n", path, *path ? ": " : "", what);
    return code;
}

static char *content_of(const char *path, struct stat *status) {
    FILE *stream = fopen(path, "re");
    char *text = NULL;
    if (stream && fstat(fileno(stream), status) == 0 && (text = malloc((size_t)status->st_size + 1)))
        text[fread(text, 1, (size_t)status->st_size, stream)] = '\0';
    if (stream) fclose(stream);
    return text;
}

static bool is_the_same(const struct stat *one, const struct stat *other) {
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino && one->st_size == other->st_size &&
           one->st_mtim.tv_sec == other->st_mtim.tv_sec && one->st_mtim.tv_nsec == other->st_mtim.tv_nsec;
}

/* Reads the file again if there is another one in its place. */
static int refresh(void) {
    const char *path = getenv("FAKE_NVML_SCENARIO");
    struct stat status;
    if (!path || !*path) return complain("", "FAKE_NVML_SCENARIO is not set", NOT_LOADED);
    if (stat(path, &status)) return complain(path, "cannot be read", UNKNOWN);
    if (strcmp(path, file.path) == 0 && is_the_same(&status, &file.status)) return file.code;
    json_free(file.root);
    free(file.text);
    file.number++;
    file.root = NULL;
    file.text = content_of(path, &file.status);
    snprintf(file.path, sizeof file.path, "%s", path);
    if (file.text) file.root = json_read(file.text);
    bool sound = file.root && file.root->kind == '{' && count_of(json_get(file.root, "devices")) <= MOST_CARDS;
    return file.code = sound ? OK : complain(path, "is no scenario as JSON, or has too many devices", UNKNOWN);
}

/* ---- tables ---- */

const Json *scenario(void) { return file.root; }

unsigned scenario_number(void) { return file.number; }

int count_of(const Json *list) {
    int count = 0;
    for (const Json *each = list ? list->first : NULL; each; each = each->next) count++;
    return count;
}

const Json *card_at(int index) {
    const Json *list = json_get(file.root, "devices"), *each = list ? list->first : NULL;
    while (each && index--) each = each->next;
    return each;
}

const Json *slice_of(const Json *card, int number) {
    const Json *list = json_get(card, "instances");
    for (const Json *each = list ? list->first : NULL; each; each = each->next)
        if (integer(each, "number") == (u64)number) return each;
    return NULL;
}

bool has_number(const Json *table, const char *key, double *out) {
    const Json *value = json_get(table, key);
    *out = !value ? 0 : value->kind == '0' ? value->number : value->kind == 't';
    return value && strchr("0tf", value->kind);
}

u64 integer(const Json *table, const char *key) {
    const Json *value = json_get(table, key);
    return !value ? 0 : value->kind == '0' ? value->integer : value->kind == 't';
}

const char *text_of(const Json *table, const char *key) {
    const Json *value = json_get(table, key);
    return value ? value->text : NULL;
}

bool says(const Json *table, const char *key, const char *text) {
    const char *found = text_of(table, key);
    return found && strcmp(found, text) == 0;
}

bool lists_device(const Json *entry, int card, int slice) {
    char label[32];
    const Json *list = json_get(entry, "device");
    snprintf(label, sizeof label, "%d:%d", card, slice);
    for (const Json *each = list ? list->first : NULL; each; each = each->next)
        if (slice < 0 ? each->kind == '0' && each->integer == (u64)card : each->text && !strcmp(each->text, label))
            return true;
    return false;
}

/* ---- handles ---- */

Device *handle(int card, int slice) {
    Device *found = &handles[card][1 + slice];
    *found = (Device){card, slice};
    return found;
}

static bool is_ours(const Device *device) {
    return device >= &handles[0][0] && device < &handles[MOST_CARDS - 1][0] + 1 + MOST_SLICES;
}

/* ---- what is wrong ---- */

/* Whether a name, with or without a version, means this function. */
static bool means(const char *name, size_t size, const char *function) {
    if (strncmp(name, function, size)) return false;
    const char *rest = function + size;
    if (*rest == '\0') return true;
    return strncmp(rest, "_v", 2) == 0 && rest[2] && rest[2 + strspn(rest + 2, "0123456789")] == '\0';
}

static const Json *fault_of(const char *function, const Device *device) {
    const Json *list = json_get(file.root, "faults");
    for (const Json *each = list ? list->first : NULL; each; each = each->next) {
        const char *name = text_of(each, "function");
        bool here = !json_get(each, "device") || (device && lists_device(each, device->card, device->slice));
        if (here && name && means(name, strlen(name), function)) return each;
    }
    return NULL;
}

static void unlock(Call *call) {
    if (call->locked) pthread_mutex_unlock(&lock);
    call->locked = false;
}

int trouble(Call *call, const char *function, const Device *device) {
    const Json *fault = fault_of(function, device);
    if (!fault) return OK;
    if (!integer(fault, "hang")) return (int)integer(fault, "code");
    unlock(call); /* it costs nobody else anything */
    for (;;) pause();
}

const char *extra(const Call *call) {
    static char what[32];
    const char *entry = getenv("FAKE_NVML_EXTRA");
    for (; entry && *entry; entry += strcspn(entry, ";"), entry += *entry == ';') {
        size_t whole = strcspn(entry, "="), name = strcspn(entry, "@="), end = strcspn(entry, ";");
        if (whole >= end || !means(entry, name, call->function)) continue;
        char label[32] = "";
        if (call->device)
            snprintf(label, sizeof label, call->device->slice < 0 ? "%d" : "%d:%d", call->device->card, call->device->slice);
        if (name < whole && (strlen(label) != whole - name - 1 || strncmp(entry + name + 1, label, whole - name - 1)))
            continue;
        snprintf(what, sizeof what, "%.*s", (int)(end - whole - 1), entry + whole + 1);
        return what;
    }
    return NULL;
}

bool extra_value(const Call *call, u64 *out) {
    const char *what = extra(call);
    if (!what || *what != 'v') return false;
    *out = strtoull(what + 1, NULL, 10);
    return true;
}

/* ---- calls ---- */

static bool is_init(const char *function) { return strncmp(function, "nvmlInit", 8) == 0; }

static int find(Call *call, int whom) {
    const Device *device = call->device;
    if (!is_ours(device)) return INVALID_ARGUMENT;
    call->card = card_at(device->card);
    if (!call->card) return LOST;
    call->self = device->slice < 0 ? call->card : slice_of(call->card, device->slice);
    if (!call->self) return INVALID_ARGUMENT; /* the slice has been given up */
    int code = trouble(call, call->function, device);
    if (code) return code;
    if (says(call->card, "health", "unusable") && !(whom & THE_LOST)) return LOST;
    return device->slice >= 0 && !(whom & SLICES) ? NOT_SUPPORTED : OK;
}

static int begin(Call *call, int whom) {
    int code = refresh();
    if (code) return code;
    const char *what = extra(call);
    if (what && strcmp(what, "crash") == 0) raise(SIGSEGV);
    if (!attached && !is_init(call->function)) return UNINITIALIZED;
    return whom == THE_DRIVER ? trouble(call, call->function, NULL) : find(call, whom);
}

Call enter(const char *function, const Device *device, int whom) {
    Call call = {.function = function, .device = device, .locked = true};
    pthread_mutex_lock(&lock);
    call.code = begin(&call, whom);
    if (call.code) unlock(&call);
    return call;
}

void leave(Call *call) { unlock(call); }

void attach(int by) { attached += by; }
