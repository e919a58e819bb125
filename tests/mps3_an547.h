/* What mps3_an547.c offers. */
#ifndef MPS3_AN547_H
#define MPS3_AN547_H

#include <stdint.h>

void say(const char *text);
void say_number(int64_t value);

#endif
