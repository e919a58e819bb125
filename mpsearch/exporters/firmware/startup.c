/* From reset to main: vector table, memory, floating point. The depth of the stack. */
#include "firmware.h"

/* of firmware.ld */
extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];

#define COPROCESSORS (*(volatile uint32_t *)0xe000ed88)
#define PAINT 0xa5c35a3cu

int main(void);
void reset(void);

__attribute__((weak)) void fault(void) {
    for (;;)
        ;
}

/* Vectors of faults and of the system's own interrupts; add those of your devices behind them. */
typedef void handler(void);
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    handler *handlers[15];
} vectors = {stack_top,
             {reset, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault,
              clock_wrapped}};

void reset(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    COPROCESSORS |= 0xfu << 20;
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    memcpy(data_start, data_load, (size_t)((char *)data_end - (char *)data_start));
    memset(bss_start, 0, (size_t)((char *)bss_end - (char *)bss_start));
    semihost_exit(main());
    fault(); /* without a debugger or an emulator */
}

__attribute__((noinline)) void stack_paint(void) {
    const volatile uint32_t *frame = __builtin_frame_address(0);
    for (volatile uint32_t *word = bss_end; word < frame - 4; word++)
        *word = PAINT;
}

size_t stack_depth(void) {
    const volatile uint32_t *word = bss_end;
    while (word < stack_top && *word == PAINT)
        word++;
    return 4 * (size_t)(stack_top - word);
}
