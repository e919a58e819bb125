/* A generated network whose buffers lie apart: codes of samples in, integers out. After every
   sample the bytes between the buffers (gaps.h: start, size) must be as before; the address
   sanitizer, where there is one, also sees them read. */
#include <stdio.h>
#include "network.c"

static const size_t gaps[][2] = {
#include "gaps.h"
};

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
static void guard(unsigned char *at, size_t size) { __asan_poison_memory_region(at, size); }
static int touched(const unsigned char *at, size_t size) { return (void)at, (void)size, 0; }
#else
static void guard(unsigned char *at, size_t size) { memset(at, 0xa5, size); }
static int touched(const unsigned char *at, size_t size) {
    for (; size > 0 && *at == 0xa5; size--)
        at++;
    return size > 0;
}
#endif

int main(void) {
    const size_t count = sizeof gaps / sizeof *gaps;
    for (size_t g = 0; g < count; g++)
        guard(arena.bytes + gaps[g][0], gaps[g][1]);
    for (;;) {
        for (int e = 0; e < NETWORK_ENTRIES; e++) {
            const size_t size = mps_bytes_of(network_entries[e].type, network_entries[e].count);
            if (fread(network_entry(e), 1, size, stdin) != size)
                return 0;
        }
        network_run();
        for (size_t i = 0; i < NETWORK_OUTPUTS; i++)
            printf("%ld ", (long)mps_get(network_output(), network_result.type, i));
        printf("\n");
        for (size_t g = 0; g < count; g++) {
            if (touched(arena.bytes + gaps[g][0], gaps[g][1])) {
                fprintf(stderr, "bytes after %lu were written\n", (unsigned long)gaps[g][0]);
                return 1;
            }
        }
    }
}
