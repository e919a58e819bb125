/* Run the network on a file of samples: see usage. */
#ifndef MPS_STEP_TIMES /* with it, step_times.c has the main function */
#define _POSIX_C_SOURCE 199309L
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "border.h"
#include "network.h"

#define MOST_RUNS 100000

static const char USAGE[] =
    "usage: network --input FILE [--codes] [--integers] [--repeat N]\n"
    "  --input FILE  samples one after the other: float32 of all inputs, in the machine's order "
    "of\n"
    "                bytes; '-' for standard input\n"
    "  --codes       FILE holds the codes of all entries instead\n"
    "  --integers    print the output's integers, not the real numbers that they stand for\n"
    "  --repeat N    run every sample N times (1 to 100000) and print times to standard error\n"
    "  --warm-up N   leave the first N runs (1) out of minimum, median, p90 and p99\n";

static unsigned char codes[NETWORK_ENTRY_BYTES];
static float values[NETWORK_LARGEST_INPUT];
static long long times[MOST_RUNS];

static int compare(const void *a, const void *b) {
    const long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

static size_t bytes_of(int entry) {
    return mps_bytes_of(network_entries[entry].type, network_entries[entry].count);
}

/* Keep a copy of every entry's codes: a run reuses the memory of its inputs. */
static void keep(void) {
    size_t at = 0;
    for (int entry = 0; entry < NETWORK_ENTRIES; entry++) {
        memcpy(codes + at, network_entry(entry), bytes_of(entry));
        at += bytes_of(entry);
    }
}

static void restore(void) {
    size_t at = 0;
    for (int entry = 0; entry < NETWORK_ENTRIES; entry++) {
        memcpy(network_entry(entry), codes + at, bytes_of(entry));
        at += bytes_of(entry);
    }
}

/* 1: a sample was read into `codes`; 0: the file ended before it; -1: within it, or a bad code. */
static int read_sample(FILE *file, int as_codes) {
    if (as_codes) {
        const size_t got = fread(codes, 1, sizeof codes, file);
        size_t at = 0;
        if (got != sizeof codes)
            return got == 0 ? 0 : -1;
        for (int entry = 0; entry < NETWORK_ENTRIES; entry++) {
            const network_tensor *tensor = &network_entries[entry];
            for (size_t i = 0; i < tensor->count; i++) {
                const int32_t code = mps_get(codes + at, tensor->type, i);
                if (code < tensor->low || code > tensor->high)
                    return -1;
            }
            at += bytes_of(entry);
        }
        return 1;
    }
    for (int input = 0; input < NETWORK_INPUTS; input++) {
        const size_t count = network_input_counts[input];
        const size_t got = fread(values, sizeof values[0], count, file);
        if (got != count)
            return got == 0 && input == 0 ? 0 : -1;
        for (int entry = 0; entry < NETWORK_ENTRIES; entry++)
            if (network_entries[entry].input == input)
                network_quantize(entry, values);
    }
    keep();
    return 1;
}

static void print_output(int as_integers) {
    for (int i = 0; i < NETWORK_OUTPUTS; i++) {
        const char *space = i ? " " : "";
        if (as_integers)
            printf("%s%ld", space, (long)mps_get(network_output(), network_result.type, (size_t)i));
        else
            printf("%s%.9g", space, network_real(i));
    }
    printf("\n");
}

/* `start`: of the first run on the monotonic clock, which a process that measures shares. */
static void print_times(long sample, long runs, long warm_up, long long start) {
    const long long first = times[0];
    const long rest = runs > warm_up ? runs - warm_up : 1;
    long long *steady = times + runs - rest;
    qsort(steady, (size_t)rest, sizeof *steady, compare);
    fprintf(stderr,
            "{\"sample\": %ld, \"runs\": %ld, \"start_ns\": %lld, \"first_ns\": %lld, "
            "\"minimum_ns\": %lld, \"median_ns\": %lld, \"p90_ns\": %lld, \"p99_ns\": %lld}\n",
            sample, runs, start, first, steady[0], steady[rest / 2], steady[rest * 9 / 10],
            steady[rest * 99 / 100]);
}

static int fail(const char *message, const char *what) {
    fprintf(stderr, "network: error: %s%s\n", message, what);
    return 2;
}

int main(int argc, char **argv) {
    const char *path = NULL;
    int as_codes = 0, as_integers = 0, state;
    long runs = 0, warm_up = 1, sample = 0;
    long long start = 0;
    FILE *file;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--codes") == 0) {
            as_codes = 1;
        } else if (strcmp(argv[i], "--integers") == 0) {
            as_integers = 1;
        } else if (strcmp(argv[i], "--input") == 0 && i + 1 < argc) {
            path = argv[++i];
        } else if (strcmp(argv[i], "--repeat") == 0 && i + 1 < argc) {
            char *end;
            runs = strtol(argv[++i], &end, 10);
            if (*end || runs < 1 || runs > MOST_RUNS)
                return fail("--repeat expects 1 to 100000, got ", argv[i]);
        } else if (strcmp(argv[i], "--warm-up") == 0 && i + 1 < argc) {
            char *end;
            warm_up = strtol(argv[++i], &end, 10);
            if (*end || warm_up < 1 || warm_up >= MOST_RUNS)
                return fail("--warm-up expects 1 to 99999, got ", argv[i]);
        } else if (strcmp(argv[i], "--help") == 0) {
            fputs(USAGE, stdout);
            return 0;
        } else {
            fputs(USAGE, stderr);
            return 2;
        }
    }
    if (path == NULL) {
        fputs(USAGE, stderr);
        return 2;
    }
    file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (file == NULL)
        return fail(strerror(errno), path);
    while ((state = read_sample(file, as_codes)) == 1) {
        for (long run = 0; run < (runs ? runs : 1); run++) {
            restore();
            times[run] = now();
            if (run == 0)
                start = times[run];
            network_run();
            times[run] = now() - times[run];
        }
        print_output(as_integers);
        if (runs)
            print_times(sample, runs, warm_up, start);
        sample++;
    }
    if (file != stdin)
        fclose(file);
    if (state < 0)
        return fail("half a sample, or a code out of range, in ", path);
    if (sample == 0)
        return fail("no sample in ", path);
    return fflush(stdout) == 0 ? 0 : fail("cannot write the output", "");
}
#else
typedef int network_has_another_main;
#endif
