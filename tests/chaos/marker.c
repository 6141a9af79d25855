/* The job of the chaos campaign. It knows nothing of gpujobs but the variables that a job sees, and tells in a file
   that everybody may append to when it began, that it is still there, and when it ended:

     begin KEY ATTEMPT NS PID TAG INDEX DEVICES CPUS SHARED MEMORY
     alive KEY ATTEMPT NS PID
     end   KEY ATTEMPT NS PID CODE

   Usage: marker MARKS TAG SHARED MEMORY MILLISECONDS CODE HABITS. The habits are letters:
     m  holds MEMORY bytes of its devices, as a scripted machine knows it
     t  does not mind SIGTERM
     g  leaves a child behind, in a session of its own, that lives on
     w  lets a child in a session of its own do the work, and waits for it
     c  closes every descriptor but the one of its marks
     -  none                                                                                                        */

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BEAT 20
#define LEFT_BEHIND 20000

static int marks;
static const char *key, *attempt;

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : "-";
}

static long long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void tell(const char *what, const char *more) {
    char line[4096];
    int length = snprintf(line, sizeof line, "%s %s %s %lld %d%s%s\n", what, key, attempt, now(), (int)getpid(),
                          *more ? " " : "", more);
    if (length >= (int)sizeof line || write(marks, line, length) != length) _exit(99);
}

static void pause_for(long milliseconds) {
    struct timespec length = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&length, NULL);
}

static void live(long milliseconds) {
    long long until = now() + milliseconds * 1000000LL, left;
    while ((left = until - now()) > 0) {
        long rest = left / 1000000 + 1;
        pause_for(rest < BEAT ? rest : BEAT);
        tell("alive", "");
    }
}

static long long start_of_this_process(void) {
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "r");
    if (!file) _exit(98);
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    char *word = strrchr(text, ')');
    for (int field = 2; field < 22 && word; field++) word = strchr(word + 1, ' ');
    return word ? atoll(word) : 0;
}

static void hold_memory(const char *size) {
    char boot[64] = "", list[4096], aside[8192], path[8192];
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!file || !fgets(boot, sizeof boot, file)) _exit(97);
    fclose(file);
    boot[strcspn(boot, "\n")] = 0;
    snprintf(list, sizeof list, "%s", variable("GPUJOBS_GPU_UUIDS"));
    for (char *uuid = strtok(list, ","); uuid && *uuid != '-'; uuid = strtok(NULL, ",")) {
        snprintf(aside, sizeof aside, "%s.live/.%s.%d", variable("GPUJOBS_SCENARIO"), uuid, (int)getpid());
        snprintf(path, sizeof path, "%s.live/%s.%d.%lld", variable("GPUJOBS_SCENARIO"), uuid, (int)getpid(),
                 start_of_this_process());
        if (!(file = fopen(aside, "w"))) _exit(96);
        fprintf(file, "{\"boot\": \"%s\", \"memory\": %s, \"utilisation\": 0}", boot, size);
        if (fclose(file) || rename(aside, path)) _exit(95);
    }
}

int main(int count, char **words) {
    if (count != 8) return 90;
    const char *habits = words[7];
    int opened = open(words[1], O_WRONLY | O_APPEND | O_CLOEXEC);
    if (opened < 0 || (marks = fcntl(opened, F_DUPFD_CLOEXEC, 200)) < 0) return 91;
    close(opened);
    key = variable("GPUJOBS_RUN_ID"), attempt = variable("GPUJOBS_ATTEMPT");
    char more[3800];
    snprintf(more, sizeof more, "%s %s %s %s %s %s", words[2], variable("GPUJOBS_ARRAY_INDEX"),
             variable("GPUJOBS_GPU_UUIDS"), variable("GPUJOBS_CPUS"), words[3], words[4]);
    tell("begin", more);
    if (strchr(habits, 't')) signal(SIGTERM, SIG_IGN);
    if (strchr(habits, 'c'))
        for (int number = 0; number < 200; number++) close(number);
    if (strchr(habits, 'm')) hold_memory(words[4]);
    if (strchr(habits, 'g') && fork() == 0) {
        setsid();
        live(LEFT_BEHIND);
        _exit(0);
    }
    if (strchr(habits, 'w')) {
        int status;
        pid_t worker = fork();
        if (worker == 0) {
            setsid();
            live(atol(words[5]));
            _exit(0);
        }
        while (waitpid(worker, &status, 0) < 0) pause_for(1);
    } else
        live(atol(words[5]));
    tell("end", words[6]);
    return atoi(words[6]);
}
