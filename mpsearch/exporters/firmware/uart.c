/* The UART of ARM's CMSDK, which the MPS2 and MPS3 boards have. Another board: write these five. */
#include "firmware.h"

#define REGISTER(offset) (*(volatile uint32_t *)(BOARD_UART + (offset)))
#define DATA REGISTER(0)
#define STATE REGISTER(4) /* 1: cannot take a byte, 2: has one */
#define CONTROL REGISTER(8)
#define DIVIDER REGISTER(16)

void uart_start(void) {
    DIVIDER = BOARD_CLOCK_HZ / 115200;
    CONTROL = 3; /* sends and receives */
}

void uart_put(char c) {
    while (STATE & 1)
        ;
    DATA = (unsigned char)c;
}

int uart_get(void) {
    while (!(STATE & 2))
        ;
    return (int)(DATA & 0xff);
}

void uart_text(const char *text) {
    while (*text)
        uart_put(*text++);
}

void uart_number(uint64_t number) {
    if (number > 9)
        uart_number(number / 10);
    uart_put((char)('0' + number % 10));
}
