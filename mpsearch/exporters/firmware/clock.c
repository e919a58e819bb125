/* SysTick, which every Cortex-M has, counts down from 2^24 - 1 to 0; wraps are counted here. */
#include "firmware.h"

#define CONTROL (*(volatile uint32_t *)0xe000e010)
#define RELOAD (*(volatile uint32_t *)0xe000e014)
#define CURRENT (*(volatile uint32_t *)0xe000e018)
#define PERIOD 0x1000000u

static volatile uint32_t wraps;

void clock_wrapped(void) { wraps++; }

void clock_start(void) {
    RELOAD = PERIOD - 1;
    CURRENT = 0;
    CONTROL = 7; /* on, with an interrupt, the processor's clock */
}

uint64_t clock_ticks(void) {
    uint32_t high, low;
    do {
        high = wraps;
        low = CURRENT;
    } while (high != wraps);
    return (uint64_t)high * PERIOD + ((PERIOD - low) & (PERIOD - 1)); /* at 0 it has wrapped */
}
