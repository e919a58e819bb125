/* Layers with what they read and what they must give (cases.h), each with exactly the memory that
   is planned for it: on a host, where the address sanitizer sees every byte beyond, or as the only
   program of an emulated Cortex-M, where bytes around are compared. */
#include "kernels.h"

typedef struct {
    const mps_convolution *convolution; /* or NULL */
    const mps_linear *linear;
    int depthwise;
    const unsigned char *input, *addend, *expected;
    size_t input_bytes, addend_bytes, output_bytes, scratch_bytes;
    int in_place; /* the output is the addend's memory */
} test_case;

#include "cases.h"

static int run(const test_case *t, void *scratch, const void *input, const void *addend,
               void *output) {
    if (t->linear)
        mps_multiply_patches(t->linear, scratch, input, addend, output);
    else if (t->depthwise)
        mps_convolve_depthwise(t->convolution, scratch, input, addend, output);
    else
        mps_convolve_patches(t->convolution, scratch, input, addend, output);
    return memcmp(output, t->expected, t->output_bytes) != 0;
}

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define GUARD 32
#define ALIGNMENT 8 /* of what the sanitizer guards */
static void guard(unsigned char *at) { __asan_poison_memory_region(at, GUARD); }
static int touched(const unsigned char *at) { return (void)at, 0; }
static void unguard(unsigned char *at, size_t size) { __asan_unpoison_memory_region(at, size); }
#else
#define GUARD 12
#define ALIGNMENT 4
static void guard(unsigned char *at) { memset(at, 0xa5, GUARD); }
static int touched(const unsigned char *at) {
    for (int i = 0; i < GUARD; i++)
        if (at[i] != 0xa5)
            return 1;
    return 0;
}
static void unguard(unsigned char *at, size_t size) { (void)at, (void)size; }
#endif

static union {
    uint64_t alignment;
    unsigned char bytes[MEMORY + 5 * (GUARD + ALIGNMENT)];
} memory;

/* The place of `size` bytes at *at, between guards. */
static unsigned char *place(unsigned char **at, const void *content, size_t size) {
    unsigned char *start = *at + GUARD;
    guard(*at);
    if (content)
        memcpy(start, content, size);
    guard(start + size);
    *at = start + (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return start;
}

static int fails(const test_case *t) {
    unsigned char *at = memory.bytes, *input, *addend, *output, *scratch;
    unguard(memory.bytes, sizeof memory.bytes);
    input = place(&at, t->input, t->input_bytes);
    addend = place(&at, t->addend, t->addend_bytes);
    output = t->in_place ? addend : place(&at, NULL, t->output_bytes);
    scratch = place(&at, NULL, t->scratch_bytes);
    return run(t, scratch, input, addend, output) || touched(input - GUARD) ||
           touched(addend - GUARD) || touched(output - GUARD) || touched(scratch - GUARD) ||
           touched(scratch + t->scratch_bytes);
}

#if defined(__arm__)
extern unsigned stack_top, bss_start, bss_end;

static void call_host(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void leave(int failed) { /* the host's exit status is 0 only for "application exit" */
    call_host(0x18, (const void *)(failed ? 0x20023 : 0x20026));
    for (;;)
        ;
}

static void print_number(int number) {
    char text[12] = {0};
    int i = 10;
    text[i] = '\n';
    do
        text[--i] = (char)('0' + number % 10);
    while (number /= 10);
    call_host(4, text + i);
}

static void fault(void) {
    call_host(4, "fault\n");
    leave(1);
}

void reset(void) {
    int failed = 0;
    for (unsigned *word = &bss_start; word < &bss_end; word++)
        *word = 0;
    for (int i = 0; i < CASES; i++)
        if (fails(&cases[i]))
            print_number(i), failed = 1;
    leave(failed);
}

typedef union {
    unsigned *stack;
    void (*entry)(void);
} vector;
__attribute__((section(".vectors"), used)) static const vector vectors[] = {
    {&stack_top},
    {.entry = reset},
    {.entry = fault},
    {.entry = fault},
};

#else
#include <stdio.h>

int main(void) {
    int failed = 0;
    for (int i = 0; i < CASES; i++) {
        if (fails(&cases[i]))
            printf("%d\n", i), failed = 1;
        fflush(stdout);
    }
    return failed;
}
#endif
