/* What a board gives to a program: a line to talk over, a clock, the depth of its stack. */
#ifndef FIRMWARE_H
#define FIRMWARE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "board.h" /* clock and addresses */

/* One sample of check/, a pointer for each of the network's inputs: your sensor's values instead */
extern const float *const sample[];

/* uart.c */
void uart_start(void);
void uart_put(char c);
int uart_get(void); /* waits */
void uart_text(const char *text);
void uart_number(uint64_t number);

/* clock.c: ticks of BOARD_CLOCK_HZ since the start */
void clock_start(void);
uint64_t clock_ticks(void);
void clock_wrapped(void); /* the interrupt */

/* startup.c: paint the free stack; how many bytes of it, from its top, were ever in use since. */
void stack_paint(void);
size_t stack_depth(void);

/* semihosting.c: files of the machine that debugs or emulates, and its end; only there. */
int semihost_open(const char *name);
size_t semihost_read(int file, void *data, size_t bytes);
void semihost_exit(int status);

#endif
