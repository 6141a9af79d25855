/* What the files of the library's functions share. */
#ifndef API_H
#define API_H

#include "scenario.h"

#define API __attribute__((visibility("default")))

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
} Pci;

int give_text(const char *text, char *out, unsigned size);
int give_pci(const Json *card, Pci *out);

#endif
