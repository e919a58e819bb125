/* Startup for mps3_an547.ld, and a host to write to (semihosting): main's result is the exit status
   of the emulator. */
#include "mps3_an547.h"
#include <stddef.h>
#include <string.h>

extern uint32_t stack_top, data_start, data_end, data_load, bss_start, bss_end;
int main(void);
void reset(void);

static void ask(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void say(const char *text) { ask(4, text); }

void say_number(int64_t value) {
    char digits[24];
    int at = 23;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    digits[at] = 0;
    do
        digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        digits[--at] = '-';
    say(digits + at);
}

static void leave(int status) {
    const uint32_t reason[2] = {0x20026, (uint32_t)status};
    ask(0x20, reason);
    for (;;) {
    }
}

static void fault(void) {
    say("fault, CFSR ");
    say_number(*(volatile uint32_t *)0xE000ED28);
    say("\n");
    leave(3);
}

void reset(void) {
    *(volatile uint32_t *)0xE000ED88 |= 0xf << 20; /* FPU and MVE on */
    __asm__ volatile("dsb\nisb");
    memcpy(&data_start, &data_load, (size_t)((char *)&data_end - (char *)&data_start));
    memset(&bss_start, 0, (size_t)((char *)&bss_end - (char *)&bss_start));
    leave(main());
}

__attribute__((section(".vectors"), used)) static const struct {
    void *stack;
    void (*handlers[15])(void);
} vectors = {&stack_top, {reset, fault, fault, fault, fault, fault, fault}};
