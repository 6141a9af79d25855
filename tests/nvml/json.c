#define _GNU_SOURCE
#include "json.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 16 };

static Json *read_value(char **at, int depth);

static char skip(char **at) {
    *at += strspn(*at, " \t\r\n");
    return **at;
}

static bool read_hex(const char *at, unsigned *out) {
    char digits[5] = {0}, *end;
    memcpy(digits, at, strnlen(at, 4));
    *out = (unsigned)strtoul(digits, &end, 16);
    return end == digits + 4 && strspn(digits, "0123456789abcdefABCDEF") == 4;
}

static char *put_utf8(char *to, unsigned code) {
    static const unsigned char marks[] = {0, 0xC0, 0xE0, 0xF0};
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *to++ = (char)(marks[more] | code >> 6 * more);
    while (more--) *to++ = (char)(0x80 | (code >> 6 * more & 0x3F));
    return to;
}

/* \uXXXX, two of them above U+FFFF. NULL: not sound, or U+0000, which C cannot keep. */
static char *read_code(char **at, char *to) {
    unsigned code, low;
    if (!read_hex(*at, &code) || code == 0) return NULL;
    *at += 4;
    if (code >= 0xD800 && code < 0xDC00) {
        if ((*at)[0] != '\\' || (*at)[1] != 'u' || !read_hex(*at + 2, &low) || low < 0xDC00 || low > 0xDFFF) return NULL;
        *at += 6;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    return put_utf8(to, code);
}

/* A string without its quotes, put in its own place: it never gets longer. */
static char *read_string(char **at) {
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (*(*at)++ != '"') return NULL;
    char *begin = *at, *to = begin;
    while (**at != '"') {
        if ((unsigned char)**at < 0x20) return NULL;
        if (**at != '\\') {
            *to++ = *(*at)++;
            continue;
        }
        char escape = (*at)[1];
        const char *known = escape ? strchr(escapes, escape) : NULL;
        *at += 2;
        if (known) *to++ = meanings[known - escapes];
        else if (escape != 'u' || !(to = read_code(at, to))) return NULL;
    }
    (*at)++;
    *to = '\0';
    return begin;
}

static size_t digits(const char *at) { return strspn(at, "0123456789"); }

static bool read_number(char **at, Json *value) {
    static locale_t plain; /* whoever runs us may write numbers with a comma */
    if (!plain) plain = newlocale(LC_ALL_MASK, "C", NULL);
    char *begin = *at, *end = begin + (*begin == '-');
    size_t whole = digits(end);
    if (whole == 0 || (whole > 1 && *end == '0')) return false;
    end += whole;
    bool is_whole = *begin != '-';
    if (*end == '.') {
        if (!digits(end + 1)) return false;
        is_whole = false;
        end += 1 + digits(end + 1);
    }
    if (*end == 'e' || *end == 'E') {
        char *exponent = end + 1 + (end[1] == '+' || end[1] == '-');
        if (!digits(exponent)) return false;
        is_whole = false;
        end = exponent + digits(exponent);
    }
    value->number = strtod_l(begin, NULL, plain);
    value->integer = is_whole ? strtoull(begin, NULL, 10) : value->number > 0 ? (unsigned long long)value->number : 0;
    *at = end;
    return true;
}

/* What is between brackets, separated by commas. */
static bool read_members(char **at, Json *value, int depth) {
    char closing = value->kind == '{' ? '}' : ']';
    Json **last = &value->first;
    (*at)++;
    if (skip(at) == closing) return (*at)++, true;
    for (;; (*at)++) {
        char *key = NULL;
        skip(at);
        if (value->kind == '{' && (!(key = read_string(at)) || skip(at) != ':' || !(*at)++)) return false;
        if (!(*last = read_value(at, depth + 1))) return false;
        (*last)->key = key;
        last = &(*last)->next;
        if (skip(at) == closing) return (*at)++, true;
        if (**at != ',') return false;
    }
}

static bool read_word(char **at, const char *word) {
    size_t size = strlen(word);
    bool found = strncmp(*at, word, size) == 0;
    *at += found ? size : 0;
    return found;
}

static bool read_content(char **at, Json *value, int depth) {
    switch (value->kind) {
    case '{': case '[': return depth < DEEPEST && read_members(at, value, depth);
    case '"': return (value->text = read_string(at)) != NULL;
    case 't': return read_word(at, "true");
    case 'f': return read_word(at, "false");
    case 'n': return read_word(at, "null");
    default: value->kind = '0'; return read_number(at, value);
    }
}

static Json *read_value(char **at, int depth) {
    Json *value = calloc(1, sizeof *value);
    if (!value) abort();
    value->kind = skip(at);
    if (read_content(at, value, depth)) return value;
    json_free(value);
    return NULL;
}

Json *json_read(char *text) {
    char *at = text;
    Json *value = read_value(&at, 0);
    if (!value || skip(&at) == '\0') return value;
    json_free(value);
    return NULL;
}

void json_free(Json *value) {
    for (Json *next; value; value = next) {
        next = value->next;
        json_free(value->first);
        free(value);
    }
}

const Json *json_get(const Json *object, const char *key) {
    for (const Json *each = object ? object->first : NULL; each; each = each->next)
        if (each->key && strcmp(each->key, key) == 0) return each;
    return NULL;
}
