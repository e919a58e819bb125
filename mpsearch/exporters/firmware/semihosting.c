/* Calls of ARM's semihosting: a debugger or an emulator answers them, a bare board stops. */
#include "firmware.h"

enum { OPEN = 0x01, READ = 0x06, EXIT_EXTENDED = 0x20, STOPPED = 0x20026 };

static intptr_t call(intptr_t operation, const void *arguments) {
    register intptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

int semihost_open(const char *name) {
    const uintptr_t words[] = {(uintptr_t)name, 1 /* rb */, strlen(name)};
    return (int)call(OPEN, words);
}

size_t semihost_read(int file, void *data, size_t bytes) {
    const uintptr_t words[] = {(uintptr_t)file, (uintptr_t)data, bytes};
    return bytes - (size_t)call(READ, words); /* it gives what is left to read */
}

void semihost_exit(int status) {
    const uintptr_t words[] = {STOPPED, (uintptr_t)status};
    call(EXIT_EXTENDED, words);
}
