/* A strict reader of JSON: what is not JSON is refused as a whole. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>

typedef struct Json {
    char kind;        /* one of { [ " 0 t f n, the first letter of what it is; every number is a 0 */
    char *key;        /* its name, where it stands in an object */
    char *text;       /* of a string; it lies in the text that was read */
    double number;
    unsigned long long integer; /* the same where it is whole and not negative */
    struct Json *first, *next;  /* what is in it; what stands beside it */
} Json;

/* Reads a whole text, writing into it; it must live as long as what is returned. NULL: it is not JSON. */
Json *json_read(char *text);
void json_free(Json *value);

/* What an object has under a key, or NULL. */
const Json *json_get(const Json *object, const char *key);

#endif
